"""Every command that README and docs show is carried out: on one case where it names many, on folders made for it where it names a run.

A new command needs nothing here as long as its words are known: PLACES for what stands for something else, LESS for what would take minutes,
ELSEWHERE for what another test carries out.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.run import Bench
from harness.scenario.new import commented
from harness.tests.report_cases import make
from harness.tests.test_debugger_symbols import KALLSYMS, vmlinux
from harness.tests.test_docs import PAGES, ROOT, commands

SHELL = re.compile(
    r"^ {4,}(?:\$ )?((?:tox|git|make|python3|pip|pytest|docker|npm|apt-get|sudo|curl|gdb(?= vmlinux)) .*)$",
    re.MULTILINE,
)
CASE = "crash/panic[nic=virtio-net,crash=sysrq-c]"
RUNS = ("FOLDER", "RUN", "RUN_A", "RUN_B", "runs/mine", "runs/before", "runs/after")
PLACES = {"CASE": CASE, "NAME": "debian-6.1", "~/testcases/crash": "testcases/crash"}
OF_A_KERNEL = {"arch/x86/boot/bzImage": "vmlinux", "/tmp/mods": "modules"}
GUEST = ("run", "explain", "doctor", "shell", "bench", "gdb")
FIRST_WORDS = {"run -k NAME": "run -k panic", "run": "run testcases/crash"}  # whole commands
LESS = {
    "bench turnaround": ["--rounds", "1", "--clones", "0", "--peers", ""],
    "bench growth": ["--cases", "1", "--workers", "1"],
    "bench stack": ["--rounds", "1"],
    "bench tg3": ["--rounds", "1"],
    "bench netdump": ["--rounds", "1", "--mib", "4"],
}
QUICK = ("turnaround", "growth", "stack")  # of the benches, when told to do less
ELSEWHERE = {
    "--tx": "harness/tests/test_away.py::test_cases_over_ssh_come_back_to_one_folder",
    "--fix": "harness/tests/test_doctor.py::test_fix_makes_the_template_and_then_it_is_there",
    "bench mutants": "harness/tests/test_mutants.py::test_every_seeded_defect_is_caught_by_the_check_that_is_named",
    "faults RESULTS": "harness/tests/test_report_faults.py::test_the_page_in_the_tree_has_every_fault_under_both_drivers",
    "nics": "harness/tests/test_report_nics.py::test_a_page_from_folders",
    "git bisect": "harness/tests/test_bisect.py::test_git_bisect_run_finds_the_first_bad_commit",
    "make": "harness/tests/test_bisect.py::test_git_bisect_run_finds_the_first_bad_commit",  # what comes of it stands for it
    "from guest.kexec.load import arm": "harness/tests/test_docs_capture.py::test_another_client_in_the_capture_kernel",
    "guest.netpoll gdbstub": "guest/tests/test_tool_gdbstub.py::test_threads_registers_and_memory",
    "guest.netpoll netdump-server": "guest/tests/test_netdump_tool.py::test_debugnet",
    "guest.netpoll netdump": "guest/tests/test_netdump_tool.py::test_debugnet",
    "gdb vmlinux.symbols": "harness/tests/test_debugger_guest.py::test_both_cpus_with_backtraces_that_the_console_confirms",
    "pytest harness/tests/test_tg3_guest.py": "harness/tests/test_tg3_guest.py::test_the_machine_sleeps_and_wakes_with_the_chip",
    "harness.debugger VMLINUX": "harness/tests/test_docs_run.py::test_a_symbol_file_is_made",
    "schema --refresh": "harness/tests/test_scenario_schema.py::test_the_tables_of_the_docs_are_what_the_models_say",
}
CHOOSING = ("-k", "-m", "--nic", "--kernel", "--modules")  # options that decide which cases there are
CHEAP = ("crash/panic[", "virtio-net")  # which of them to take
GATE = ROOT / ".ci/run"


def ours() -> list[str]:
    """Each command once, without comments; `...` and words in general are no commands."""
    found = [re.sub(r"\s+#.*", "", command) for _, command in commands()]
    return [
        each for each in dict.fromkeys(found) if not each.startswith(("netpoll-harness ...", "netpoll-harness run|"))
    ]


def elsewhere(command: str) -> str | None:
    return next(
        (test for part, test in ELSEWHERE.items() if re.search(rf"(^|[\s'\"]){re.escape(part)}\b", command)), None
    )


def carried_out() -> Iterator[Any]:
    for command in ours():
        if elsewhere(command) is None:
            words = shlex.split(command)
            guest = len(words) > 1 and words[1] in GUEST
            marks = [pytest.mark.guest] if guest else []
            marks += (
                [pytest.mark.long] if words[1:2] == ["bench"] and words[2] not in QUICK else []
            )  # minutes, however few rounds
            yield pytest.param(command, marks=marks, id=command.removeprefix("netpoll-harness "))


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder with the catalogue, a testcase of one's own, and runs."""
    catalogue = tmp_path / "testcases"
    shutil.copytree(ROOT / "testcases", catalogue)
    (catalogue / "mine").mkdir()
    for run in RUNS:
        make(tmp_path / run, "pass")
    return tmp_path


def harness(ground: Path, *words: str, typed: str = "", within: float = 280) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "GITHUB_ACTIONS"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ground, env=env, input=typed, capture_output=True, text=True, timeout=within, check=False
    )  # fmt: skip


def one_case(ground: Path, words: list[str]) -> list[str]:
    """A `run` of the first case that it would choose; the options stay."""
    named = [word for word in words if word.startswith("testcases")] or ["testcases"]
    options = [word for word in words if word not in named]
    choosing = [f"{flag}={word}" for flag, word in pairwise(options) if flag in CHOOSING]
    listed = harness(ground, "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *choosing, *named).stdout
    cases = [line for line in listed.splitlines() if "::" in line]
    assert cases, f"{shlex.join(words)} chooses no case: {listed}"
    case = next((each for word in CHEAP for each in cases if word in each), cases[0])
    return [case, *options]


@pytest.mark.parametrize("command", list(carried_out()))
def test_a_command_of_the_docs_does_what_it_says(command: str, ground: Path, request: pytest.FixtureRequest) -> None:
    first, *words = [
        PLACES.get(word, word)
        for word in shlex.split(FIRST_WORDS.get(command.partition(" ")[2], command.partition(" ")[2]))
    ]
    if first != "new":
        (ground / "testcases/mine/panic.yaml").write_text(commented("panic", "e1000e"))
    if OF_A_KERNEL.keys() & set(words):
        bench: Bench = request.getfixturevalue("bench")
        words = [
            str(getattr(bench.kernel("debian-6.1"), OF_A_KERNEL[word])) if word in OF_A_KERNEL else word
            for word in words
        ]
    if first == "run":
        words = [*one_case(ground, words), *(["--repeat", "2"] if "--repeat" in words else [])]
    if first == "bench":
        words += LESS.get(f"{first} {words[0]}", [])
    done = harness(ground, "harness.cli", first, *words, typed=":quit\n")
    fine = (
        (0, 1) if first == "bench" else (0,)
    )  # a goal that this machine misses, beside other tests, is nobody's fault
    assert done.returncode in fine, (
        f"{command}: {shlex.join([first, *words])}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_what_is_carried_out_elsewhere_is() -> None:
    for test in ELSEWHERE.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test


def others() -> list[tuple[str, str]]:
    """Commands that are not ours, by page."""
    return [(page.name, command) for page in PAGES for command in SHELL.findall(page.read_text())]


@pytest.mark.parametrize(("page", "command"), others(), ids=[f"{page}-{command[:40]}" for page, command in others()])
def test_a_command_of_somebody_else_is_carried_out_by_a_test_or_by_the_gate(page: str, command: str) -> None:
    """The gate is README's own line; a tox environment that it does not run takes hours, and is one that there is."""
    if elsewhere(command) is not None:
        return
    if wanted := re.search(r"tox -e (\w+)", command):
        assert f"[testenv:{wanted[1]}]" in (ROOT / "tox.ini").read_text(), f"{page}: {command}"
    else:
        assert command in GATE.read_text(), f"{page}: no test carries out {command}"


@pytest.mark.guest
def test_the_python_of_the_docs_runs(tmp_path: Path) -> None:
    conftest, test = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_it.py").write_text(test)
    done = harness(
        tmp_path, "pytest", "-q", "--rootdir", str(tmp_path), "--results", str(tmp_path / "runs"), "test_it.py"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_symbol_file_is_made(tmp_path: Path) -> None:
    (tmp_path / "VMLINUX").write_bytes(vmlinux((8, 0, 5, 0)))
    (tmp_path / "KALLSYMS").write_text("\n".join(KALLSYMS))
    done = harness(tmp_path, "harness.debugger", "VMLINUX", "KALLSYMS", "vmlinux.symbols")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "vmlinux.symbols").read_bytes().startswith(b"\x7fELF")
