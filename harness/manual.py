"""The end of each command's --help: examples, and what its exit codes mean.

Out: text. Rule: examples are command lines that parse (a test says), and an exit code means the same everywhere: docs/ci.md has them all.
"""

from __future__ import annotations

import argparse

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        'run testcases/crash -k "e1000 and nmi"',
        'run "testcases/send/datagrams-out.yaml::send/datagrams-out[nic=virtio-net]"',
        'run testcases -m "not long" -n auto --junitxml results.xml',
        "run testcases/crash --kernel arch/x86/boot/bzImage --modules /tmp/mods",
        "run testcases/crash --format ktap > results.ktap",
        "run testcases/links --repeat 20",
    ),
    "lint": ("lint", "lint testcases/mine/panic.yaml"),
    "list": ("list", "list testcases/crash"),
    "explain": ('explain "crash/panic[nic=e1000,crash=nmi]"', "explain mine/panic testcases/mine"),
    "judge": ("judge runs/20260101T120000Z-4711", "judge runs/mine --format ktap"),
    "report": ("report runs/mine",),
    "compare": ("compare runs/6.1 runs/6.12 --html changes.html", "compare runs/before runs/after --again"),
    "nics": ("nics runs/nics > docs/nics.md",),
    "faults": ("faults runs/faults > docs/faults.md",),
    "bench": (
        "bench turnaround --rounds 3 --output bench",
        "bench growth --cases 1,10,50 --workers 1,2,4 --remember",
        "bench stack",
    ),
    "doctor": ("doctor", "doctor --fix"),
    "shell": ('shell "crash/panic[nic=virtio-net,crash=sysrq-c]"', "shell mine/panic testcases/mine < steps.txt"),
    "new": ("new testcases/mine/panic.yaml --kind panic --nic e1000e", "new"),
    "schema": ("schema --where", "schema --fragment > fragment.schema.json", "schema --refresh"),
    "completion": ("completion bash > ~/.local/share/bash-completion/completions/netpoll-harness",),
    "images": ("images list", "images build --kernel debian-6.12", "images prune --all"),
}

WRONG = {2: "usage or testcase error, before anything was started"}
BROKEN = {3: "the testbed could not be built, or failed"}
DONE = {0: "done"}
EXITS: dict[str, dict[int, str]] = {
    "run": {0: "every expectation held", 1: "a case failed", **WRONG, **BROKEN, 130: "interrupted"},
    "lint": {0: "no errors", 2: "errors, each with file, line and column"},
    "explain": {0: "done", **WRONG, **BROKEN},
    "judge": {
        0: "every expectation held",
        1: "a case failed",
        2: "no such evidence",
        3: "the testbed failed in a case",
    },
    "compare": {0: "no verdict got worse", 1: "one did", 2: "no such evidence"},
    "bench": {0: "done", 1: "`stack` missed a goal", **WRONG, **BROKEN},
    "doctor": {0: "cases can run", 3: "they cannot"},
    "shell": {0: "the session ended", **WRONG, **BROKEN, 130: "interrupted"},
    "images": {0: "done", 2: "usage error", 3: "an image could not be built"},
    "report": {0: "done", 2: "no such evidence"},
    "nics": {0: "done", 2: "no such evidence"},
    "faults": {0: "done", 2: "no such evidence"},
}
BISECTING = "with --bisect: 0 good, 1 bad, 125 cannot tell"


def complete(name: str, parser: argparse.ArgumentParser) -> None:
    """Gives a command's help its end; a test says which command has no examples yet."""
    exits = EXITS.get(name, {**DONE, 2: "usage error"})
    lines = ["examples:", *(f"  netpoll-harness {each}" for each in EXAMPLES.get(name, ())), "", "exit codes:"]
    lines += [f"  {code:3}  {meaning}" for code, meaning in exits.items()]
    lines += [f"  {BISECTING}"] if name == "run" else []
    parser.epilog = "\n".join(lines)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
