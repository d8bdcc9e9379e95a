"""`netpoll-harness run --bisect`: what git is told of good, bad and untellable commits, and a real bisection that finds the first bad one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.report.bisection import BisectExit, exit_of
from harness.run import Bench, load
from harness.tests.test_run_doors import NOT_PROVOKED

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

OK, FAILED, USAGE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR
TOLD: dict[str, tuple[pytest.ExitCode, list[str], BisectExit]] = {
    "all-held": (OK, ["PASS", "PASS"], BisectExit.GOOD),
    "one-failed": (FAILED, ["PASS", "FAIL"], BisectExit.BAD),
    "failed-and-error": (FAILED, ["FAIL", "ERROR"], BisectExit.BAD),
    "inconclusive": (OK, ["PASS", "INCONCLUSIVE"], BisectExit.CANNOT_TELL),
    "testbed-failed": (FAILED, ["PASS", "ERROR"], BisectExit.CANNOT_TELL),
    "nothing-was-run": (pytest.ExitCode.NO_TESTS_COLLECTED, [], BisectExit.CANNOT_TELL),
    "nothing-was-judged": (FAILED, [], BisectExit.CANNOT_TELL),
    "an-option-that-pytest-refuses": (USAGE, [], BisectExit.GIVE_UP),
    "interrupted": (pytest.ExitCode.INTERRUPTED, ["FAIL"], BisectExit.INTERRUPTED),
}  # fmt: skip


@pytest.mark.parametrize(("status", "words", "told"), TOLD.values(), ids=TOLD)
def test_what_git_is_told(status: pytest.ExitCode, words: list[str], told: BisectExit) -> None:
    assert exit_of(status, words) == told


BEFORE: dict[str, tuple[list[str], int]] = {
    "no-testcase-there": (["run", "no/such/case.yaml", "--bisect"], 125),
    "no-kernel-there": (["run", "CASE", "--kernel", "no/such/bzImage", "--bisect"], 125),
    "a-testcase-that-is-broken": (["run", "BROKEN", "--bisect"], 125),
    "the-same-without-bisect": (["run", "BROKEN"], 2),
}


@pytest.mark.parametrize(("words", "code"), BEFORE.values(), ids=BEFORE)
def test_what_fails_before_a_guest_is_started(tmp_path: Path, words: list[str], code: int) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("about: [\n")
    named = {"CASE": str(ROOT / "testcases" / "crash"), "BROKEN": str(broken)}
    assert main([named.get(word, word) for word in words]) == code


@pytest.mark.parametrize(
    "words", [["run", "--bisect", "--accel", "abacus"], ["list", "--bisect"]], ids=["value", "command"]
)
def test_a_command_line_without_sense_stops_the_bisection(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 255, "2 would say that the commit is bad"
    assert "usage:" in capsys.readouterr().err


GOOD = """
about: a few messages of the kernel arrive, as they do on a good commit
guest:
  nics:
    n0: {model: virtio-net}
endpoints:
  netconsole: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: netconsole}
steps:
  - send: {from: netconsole, count: 10}
expect:
  - delivered: {from: netconsole, to: log, at_least_sent: 10}
"""
BAD = GOOD.replace("  - send:", "  - run: {argv: [ip, link, set, eth0, down]}\n  - send:")
KNOWN = (
    BAD
    + """
known_bugs:
  - when: {}
    verdict: FAIL
    checks: [delivered]
    reason: the very bug whose beginning is looked for
"""
)
COMMITS = {
    "good": GOOD,
    "bad": BAD,
    "bad, and known as a bug": KNOWN,
    "broken testcase": GOOD.replace("count: 10", "cuont: 10"),
    "not provoked": NOT_PROVOKED,
}


@pytest.mark.guest
@pytest.mark.parametrize(
    ("case", "code"),
    [("good", 0), ("bad", 1), ("bad, and known as a bug", 1), ("broken testcase", 125), ("not provoked", 125)],
)
def test_one_commit(bench: Bench, tmp_path: Path, case: str, code: int) -> None:
    bench.prepare(load([ROOT / "testcases" / "crash" / "panic.yaml"], bench.options)[0])
    (tmp_path / "case.yaml").write_text(COMMITS[case])
    for _ in range(2):  # the same results folder again: only the new run counts
        assert main(["run", str(tmp_path / "case.yaml"), "--bisect", "-q", "--results", str(tmp_path / "r")]) == code


HISTORY = ["good", "good", "broken testcase", "good", "bad", "bad", "broken testcase", "bad", "bad"]


def git(repository: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a test", "-c", "user.email=test@example.org", *words]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.guest
def test_git_bisect_run_finds_the_first_bad_commit(bench: Bench, tmp_path: Path) -> None:
    bench.prepare(load([ROOT / "testcases" / "crash" / "panic.yaml"], bench.options)[0])
    repository = tmp_path / "kernel"
    repository.mkdir()
    git(repository, "init", "-q")
    commits = []
    for number, what in enumerate(HISTORY):
        (repository / "case.yaml").write_text(COMMITS[what])
        (repository / "number").write_text(str(number))  # or two commits would be the same
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", f"{number}: {what}")
        commits.append(git(repository, "rev-parse", "HEAD").strip())
    git(repository, "bisect", "start", commits[-1], commits[0])
    harness = [sys.executable, "-m", "harness.cli", "run", "case.yaml", "--kernel", "debian-6.1", "--bisect"]
    script = f"PYTHONPATH={ROOT} exec {' '.join(harness)} --results {tmp_path / 'r'}"
    told = git(repository, "bisect", "run", "sh", "-c", script)
    assert f"{commits[4]} is the first bad commit" in told
    log = git(repository, "bisect", "log")
    assert "# good: " in log
    assert "# bad: " in log
