"""The command line: `netpoll-harness run|lint|list|explain|judge|images|bench|doctor|shell`.

In: arguments. Out: an exit code that scripts can trust: 0 all held, 1 a case failed, 2 a usage or scenario error before anything was
started, 3 the testbed could not be built or failed, 130 interrupted. Rule: no traceback for what a user can mend.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from enum import IntEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import shtab

import images
import images.cli
from harness import authoring, away, doctor, manual, shell
from harness.authoring import AuthoringError
from harness.bench import commands as measuring
from harness.bench import growth, netdump, stack, turnaround
from harness.judge.model import Verdict
from harness.judge.words import many
from harness.mutants import run as seeded_defects
from harness.plan.explain import explain
from harness.plan.model import Plan
from harness.plan.nics import MODELS
from harness.repetition import case_of, flakes, name_of, times
from harness.report import bisection, faults, nics, store
from harness.report import commands as reading
from harness.report.bisection import BisectExit, case_folders
from harness.run import Options, bench, choice, is_path, load, results_folder
from harness.scenario.errors import ScenarioErrors, suggest
from harness.selection import WrongArguments, selected
from harness.testbed.capacity import remember
from harness.testbed.errors import TestbedError
from harness.testbed.qemu import Channels, Memory
from harness.testbed.template import clone_argv, prune

TESTCASES = Path("testcases")
EPILOG = """\
examples:
  netpoll-harness doctor                                   what this machine can do
  netpoll-harness run testcases/crash -k e1000             run some of the testcases
  netpoll-harness run testcases/crash --kernel bzImage --modules DIR
  netpoll-harness new testcases/mine/panic.yaml            write one's own
  netpoll-harness report runs/20260101T120000Z-4711        a page with timelines
  netpoll-harness completion bash > ~/.local/share/bash-completion/completions/netpoll-harness

exit codes: 0 all held, 1 a case failed, 2 usage or scenario error, 3 testbed failed, 130 interrupted; docs/ci.md says more"""
# No testcase asks for a temporary folder, and a run that is killed leaves pytest's locked one behind.
WITHOUT = ("-p", "no:tmpdir")
INTERRUPTED = "interrupted: everything that was started has ended"


QUIETER = ("-rN", "--no-header", "--show-capture=no", "-W", "ignore::pytest.PytestAssertRewriteWarning")
"""What pytest would add to our table and explanations; whoever wants it says so after these."""


class Exit(IntEnum):
    """Documented in docs/ci.md; scripts rely on them."""

    HELD = 0
    FAILED = 1
    USAGE = 2
    TESTBED = 3
    INTERRUPTED = 130


class UsageError(Exception):
    """What was asked for makes no sense; the message says what would."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns an `Exit`; with --bisect a `BisectExit`."""
    try:
        args = _arguments(argv)
    except SystemExit as end:
        raise SystemExit(BisectExit.GIVE_UP if end.code and "--bisect" in (argv or sys.argv) else end.code) from None
    status = _guarded(args)
    broken = getattr(args, "bisect", False) and status in (Exit.USAGE, Exit.TESTBED)
    return BisectExit.CANNOT_TELL if broken else status


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command is not _run:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    return args


def _guarded(args: argparse.Namespace) -> int:
    """The command, with words instead of a traceback for what a user can mend."""
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except (ScenarioErrors, UsageError, WrongArguments, AuthoringError, store.StoreError) as error:
        print(error, file=sys.stderr)
        return Exit.USAGE
    except (images.ImageError, TestbedError) as error:
        print(error, file=sys.stderr)
        return Exit.TESTBED
    except BrokenPipeError:
        return Exit.HELD
    except KeyboardInterrupt:
        _say(INTERRUPTED)
        return Exit.INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = argparse.ArgumentParser(
        prog="netpoll-harness",
        description="When the machine dies, do its last words get out? Crash real guests and see.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"netpoll-harness {version('netpoll-harness')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    about = "run testcases; further options go to pytest (-k, -x, --lf, -n, --junitxml ...)"
    run = _add(commands, "run", _run, about)
    _add_paths(run)
    _add_testbed_options(run)
    run.add_argument("--results", type=Path, help="folder for evidence (default: runs/<UTC time>)")
    run.add_argument(
        "--repeat", type=times, default=1, metavar="N", help="run each case N times, and say how many verdicts differ"
    )
    run.add_argument("--strict", action="store_true", help="an inconclusive case fails")
    run.add_argument(
        "--bisect", action="store_true", help="exit codes for `git bisect run`: 0 good, 1 bad, 125 cannot tell"
    )

    run.add_argument(
        "--format", choices=reading.FORMATS, default="text", help="of standard output; all but text: verdicts alone"
    )

    _add_paths(_add(commands, "lint", _lint, "check testcases without running them"))
    _add_paths(_add(commands, "list", _list, "name every case that the testcases make"))

    show = _add(commands, "explain", _explain, "print a case's plan: QEMU's command, QMP commands, guest requests")
    show.add_argument("case", help="a case's name, or a part that only one has")
    _add_paths(show)
    _add_testbed_options(show)

    reading.add_parsers(partial(_add, commands))

    seen = _add(commands, "nics", _nics, "print docs/nics.md: what a run of testcases/nics saw of each NIC model")
    seen.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="results folder of a run, or a case's")

    wrong = _add(
        commands, "faults", _faults, "print docs/faults.md: a tg3 that goes wrong under Linux's driver and under ours"
    )
    wrong.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="results folder of a run, or a case's")

    speed = _add(commands, "bench", _bench, "measure speed, as ratios against a peer in the same run")
    speed.add_argument("what", choices=["turnaround", "growth", "stack", "tg3", "pmd", "netdump", "capture", "mutants"])
    speed.add_argument("--rounds", type=int, default=5)
    speed.add_argument("--frames", type=int, default=0, help="stack: watch memory over so many frames, e.g. 10000000")
    speed.add_argument("--mib", type=int, default=32, help="netdump: size of a dump on the veth (default: %(default)s)")
    speed.add_argument("--case", help="turnaround: another case than the check that the peers run, too")
    speed.add_argument(
        "--peers", default=",".join(turnaround.PEERS), help="turnaround: which peers (default: %(default)s)"
    )
    speed.add_argument("--clones", type=int, default=4, help="turnaround: memory of so many idle clones; 0: none")
    speed.add_argument("--cases", type=_numbers, default=growth.CASES, help="growth: numbers of cases, e.g. 1,10,50")
    speed.add_argument(
        "--workers", type=_numbers, default=growth.WORKERS, help="growth: numbers of workers, e.g. 1,2,4"
    )
    speed.add_argument("--remember", action="store_true", help="growth: let -n auto start what was best, from now on")
    speed.add_argument("--output", type=Path, metavar="FOLDER", help="write the figures there, as text and as JSON")
    _add_paths(speed)
    _add_testbed_options(speed)

    health = _add(commands, "doctor", _doctor, "say what this machine can do, with the remedy for each no")
    health.add_argument("--fix", action="store_true", help="mend what can be mended: build images, load tun, prune")
    health.add_argument("--qemu", type=Path, help="another qemu-system-x86_64 than the image's own")
    health.add_argument("--mirror", default="", help="Debian mirror (default: the host's own apt sources)")
    health.set_defaults(accel="auto", wires="auto", kernel=None, modules=None, nic=None, fresh=False)

    hand = _add(
        commands, "shell", _shell, "bring a case up and work in its guest: a shell, live capture, steps by hand"
    )
    hand.add_argument("case", help="a case's name, or a part that only one has")
    _add_paths(hand)
    _add_testbed_options(hand)
    hand.add_argument("--results", type=Path, help="folder for evidence (default: runs/<UTC time>)")

    authoring.add_parsers(commands)
    about = "print shell completion"
    words = _add(commands, "completion", _completion, about)
    words.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    images.cli.add_parser(commands).set_defaults(command=_images)
    for name, each in commands.choices.items():
        manual.complete(name, each)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    about: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(command=command)
    return parser


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="TESTCASE", help="file, folder or FILE::CASE (default: testcases/)")


def _add_testbed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accel", choices=["auto", "kvm", "tcg"], default="auto", help="accelerator (default: probe)")
    parser.add_argument(
        "--wires",
        choices=["auto", "tap", "dgram"],
        default="auto",
        help="what joins guest and host (default: taps, or datagram sockets where no tap can be had)",
    )
    parser.add_argument("--qemu", type=Path, help="another qemu-system-x86_64 than the image's own")
    known = ", ".join(images.kernel_names())
    parser.add_argument("--kernel", help=f"run every case on this kernel: {known}, or a bzImage or vmlinux of your own")
    parser.add_argument("--modules", type=Path, help="modules of --kernel: what `make modules_install` wrote")
    parser.add_argument("--nic", metavar="MODEL", help="run every case on NICs of this model (docs/nics.md lists them)")
    parser.add_argument(
        "--fresh", action="store_true", help="restore every machine from its template, copy none that is warm"
    )
    parser.add_argument(
        "--mirror", default="", help="Debian mirror to fetch images from (default: the host's own apt sources)"
    )


def _paths(args: argparse.Namespace) -> list[Path]:
    paths = [Path(text.partition("::")[0]) for text in args.paths] or [TESTCASES]
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder\n  -> name a testcase, or run where testcases/ is")
    return list(dict.fromkeys(paths))


def _chosen(plans: list[Plan], named: Sequence[str]) -> list[Plan]:
    """The plans that arguments of the form FILE::CASE leave; UsageError for a case that is not there."""
    cases = {text.partition("::")[2] for text in named if "::" in text}
    if unknown := cases - {plan.case for plan in plans}:
        names = "\n".join(f"  {plan.case}" for plan in plans)
        raise UsageError(f"{', '.join(sorted(unknown))}: no such case; there are:\n{names}")
    return [plan for plan in plans if not cases or plan.case in cases]


def _options(args: argparse.Namespace) -> Options:
    if args.kernel is not None and is_path(args.kernel) and not Path(args.kernel).is_file():
        known = ", ".join(images.kernel_names())
        raise UsageError(
            f"--kernel {args.kernel}: no such file, and no kernel of that name\n  -> a file, or one of {known}"
        )
    if args.nic is not None and args.nic not in MODELS:
        raise UsageError(f"--nic {args.nic}: unknown NIC model\n  -> {suggest(args.nic, MODELS, 'models')}")
    if args.modules is not None and not args.modules.is_dir():
        raise UsageError(f"--modules {args.modules}: no such folder")
    if args.qemu is not None and not args.qemu.is_file():
        raise UsageError(f"--qemu {args.qemu}: no such file")
    accel = None if args.accel == "auto" else args.accel
    results = results_folder(getattr(args, "results", None))
    return Options(
        results=results,
        accel=accel,
        qemu=args.qemu,
        kernel=args.kernel,
        modules=args.modules,
        nic=args.nic,
        fresh=args.fresh,
        mirror=args.mirror,
        wires=None if args.wires == "auto" else args.wires,
    )


def _run(args: argparse.Namespace) -> int:
    """Everything that can be wrong before a guest starts is found first, then it is pytest's run."""
    paths, options = _paths(args), _options(args)
    plans = _chosen(load(paths, options, _say), args.paths)
    forwarded = _forwarded(args, options)
    named = [each for path in args.paths or [str(TESTCASES)] for each in _repeated(path, args.repeat)]
    named, spreading = away.spread(named, args.rest)
    arguments = [*WITHOUT, *named, *forwarded, *QUIETER, *args.rest, *spreading]
    if not away.elsewhere(args.rest):
        accel = _prepare(plans, arguments, options)
        arguments += [f"--accel={accel}"] if accel else []  # found once, said once
    before = case_folders(options.results)
    with redirect_stdout(sys.stdout if args.format == "text" else sys.stderr):
        status = pytest.main(arguments)
    if args.format != "text":
        folders = sorted(case_folders(options.results) - before)
        reading.show([store.read_verdict(folder) for folder in folders], folders, args.format)
    if status == pytest.ExitCode.INTERRUPTED:
        _say(f"{INTERRUPTED}\n  -> what was seen until then is in {options.results}")
    if args.bisect:
        return bisection.exit_of(status, bisection.words_of(case_folders(options.results) - before))
    differ = (
        args.repeat > 1
        and flakes((each.case, each.word, each.by_chance) for each in store.verdicts(options.results)).differ
    )
    interrupted = status == pytest.ExitCode.INTERRUPTED  # whatever was seen until then
    return Exit.FAILED if differ and not interrupted else _exit_of(status, options.results, args.strict)


def _repeated(path: str, times: int) -> list[str]:
    """FILE::CASE as often as it is to run, by the names that its repetitions have."""
    return [name_of(path, number, times) for number in range(1, times + 1)] if "::" in path else [path]


def _forwarded(args: argparse.Namespace, options: Options) -> list[str]:
    """Our options in pytest's words, each one word with its value: a path by itself would move pytest's root folder."""
    given = {
        "results": options.results,
        "accel": args.accel,
        "wires": args.wires,
        "qemu": args.qemu,
        "kernel": args.kernel,
        "modules": args.modules,
        "nic": args.nic,
        "mirror": args.mirror,
        "repeat": args.repeat if args.repeat > 1 else None,
    }
    words = [f"--{name}={value}" for name, value in given.items() if value]
    words += ["--fresh"] if args.fresh else []
    return [*words, "--inconclusive-fails"] if args.strict else words


def _prepare(plans: list[Plan], arguments: Sequence[str], options: Options) -> str | None:
    """Images and templates for what pytest will run, so that what cannot be had is said before anything is started. The accelerator
    that was found; None when nothing was chosen."""
    accel: str | None = None
    if (joined := choice(options)).wires != "tap":
        _say(f"wires: datagram sockets instead of taps ({joined.why})")
    wanted = {case_of(name) for name in selected(arguments)}
    with bench(options, _say) as ready:
        chosen = [plan for plan in plans if plan.case in wanted]
        ready.require(chosen)
        for plan in _one_per_machine(chosen):
            accel = ready.prepare(plan).ingredients.accel
    return accel


def _one_per_machine(plans: Sequence[Plan]) -> list[Plan]:
    return list({plan.machine: plan for plan in plans}.values())


def _exit_of(status: int, results: Path, strict: bool = False) -> Exit:
    """pytest's status in our words. A run whose only trouble was the testbed's is no failed case; nor is one whose case came to no
    verdict, since the process that ran it was killed."""
    match pytest.ExitCode(status):
        case pytest.ExitCode.OK:
            return Exit.HELD
        case pytest.ExitCode.INTERRUPTED:
            return Exit.INTERRUPTED
        case pytest.ExitCode.USAGE_ERROR | pytest.ExitCode.NO_TESTS_COLLECTED:
            return Exit.USAGE
        case pytest.ExitCode.TESTS_FAILED:
            words = {verdict.word for verdict in store.verdicts(results)}
            failed = "FAIL" in words or (strict and "INCONCLUSIVE" in words and "ERROR" not in words)
            return Exit.FAILED if failed else Exit.TESTBED
    return Exit.TESTBED


def _lint(args: argparse.Namespace) -> int:
    plans = load(_paths(args), Options(results=Path(), wires="tap"))
    print(f"{many(len(plans), 'case')}, no errors")
    return Exit.HELD


def _list(args: argparse.Namespace) -> int:
    for plan in load(_paths(args), Options(results=Path(), wires="tap")):
        print(f"{plan.case:60} {plan.source}")
    return Exit.HELD


def _explain(args: argparse.Namespace) -> int:
    options = _options(args)
    plan = _only(load(_paths(args), options), args.case)
    with bench(options, _say) as ready:
        argv = clone_argv(ready.ingredients(plan.machine), Memory("TEMPLATE/ram", False), Channels(3, 4, 5, 6, 7))
    print(explain(plan, argv))
    return Exit.HELD


def _only(plans: Sequence[Plan], wanted: str) -> Plan:
    exact = [plan for plan in plans if plan.case == wanted]
    found = exact or [plan for plan in plans if wanted in plan.case]
    if len(found) == 1:
        return found[0]
    names = "\n".join(f"  {plan.case}" for plan in found or plans)
    raise UsageError(
        f"{wanted!r} names {len(found)} cases; " + ("which of these?" if found else "there are:") + f"\n{names}"
    )


def _completion(args: argparse.Namespace) -> int:
    print(shtab.complete(make_parser(), shell=args.shell))
    return Exit.HELD


def _faults(args: argparse.Namespace) -> int:
    print(faults.page([case for folder in args.results for case in store.cases(folder)]), end="")
    return Exit.HELD


def _nics(args: argparse.Namespace) -> int:
    print(nics.page([case for folder in args.results for case in store.cases(folder)]), end="")
    return Exit.HELD


def _images(args: argparse.Namespace) -> int:
    """The images package's own commands; RAM templates are made of images and go with them."""
    status = images.cli.run(args)
    if args.images_command == "prune":
        gone = prune(images.cache_root(), *((0, 0.0) if args.all else ()))
        print(f"removed {len(gone)} RAM templates")
    return status


def _numbers(text: str) -> tuple[int, ...]:
    """As argparse's `type`. Raises ArgumentTypeError."""
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,2,4")
    return tuple(int(word) for word in words)


def _bench(args: argparse.Namespace) -> int:
    options = _options(args)
    if args.what == "stack":
        return Exit.HELD if stack.report(args.rounds * 12, args.frames, print) else Exit.FAILED
    if args.what == "capture":
        return Exit.HELD if measuring.run_capture(options, args.rounds, args.output, _say) else Exit.FAILED
    if args.what == "netdump":
        return Exit.HELD if netdump.report(args.mib, args.rounds, print) else Exit.FAILED
    if args.what == "mutants":
        return Exit.HELD if seeded_defects.report(seeded_defects.outcomes(), print) else Exit.FAILED
    if args.what in ("pmd", "tg3"):
        plan = _only(load(_paths(args), options), args.case or "send/datagrams-out[nic=virtio-net]")
        run = measuring.run_pmd if args.what == "pmd" else measuring.run_tg3
        return Exit.HELD if run(options, plan, args.rounds, args.output, _say) else Exit.FAILED
    if args.what == "growth":
        words = [
            f"--{name}={value}"
            for name in ("accel", "wires", "qemu", "kernel", "modules")
            if (value := getattr(args, name))
        ]
        found = measuring.run_growth(options, args.cases, args.workers, words, args.output, _say)
        if args.remember:
            remember(found, options.cache)
        return Exit.HELD
    chosen = None if args.case is None else _only(load(_paths(args), options), args.case)
    peers = [peer for peer in args.peers.split(",") if peer]
    if wrong := set(peers) - set(turnaround.PEERS):
        raise UsageError(f"--peers {wrong.pop()}: no such peer\n  -> {', '.join(turnaround.PEERS)}, or nothing")
    measuring.run_turnaround(options, chosen, args.rounds, peers, args.clones, args.output, _say)
    return Exit.HELD


def _shell(args: argparse.Namespace) -> int:
    options = _options(args)
    plan = _only(load(_paths(args), options), args.case)
    with bench(options, _say) as ready:
        job = ready.prepare(plan)
    return shell.run(replace(job, folder=store.new_case(options.results, plan, job.versions)))


def _doctor(args: argparse.Namespace) -> int:
    options = _options(args)
    runs = doctor.report(lambda: bench(options, lambda _text: None), args.fix)
    return Exit.HELD if runs else Exit.TESTBED


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


__all__ = ["Exit", "Verdict", "main"]

if __name__ == "__main__":
    sys.exit(main())
