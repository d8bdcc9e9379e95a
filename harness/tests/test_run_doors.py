"""The doors to a run, as a user opens them: `netpoll-harness run`, `pytest testcases/`, `judge`; with their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.run import Bench, load

pytestmark = pytest.mark.guest

NOT_PROVOKED = """
about: the link is cut after everything was sent, so no message can have met a link that is down
guest:
  nics:
    n0: {model: virtio-net}
endpoints:
  sender: {at: guest, stack: netpoll, device: n0, peer: sink}
  sink: {at: host, stack: netpoll, device: n0, peer: sender}
steps:
  - send: {from: sender, count: 20}
  - wait: {received: sink, count: 20}
  - inject: {link: n0, state: down}
  - wait: {carrier: n0, state: down}
expect:
  - dropped: {by: sender, link: n0}
"""


@pytest.fixture(autouse=True)
def _built(bench: Bench, testcases: Path) -> None:
    """Images and template are there, so that the tests below time out on nothing else."""
    bench.prepare(load([testcases / "crash" / "panic.yaml"], bench.options)[0])


def call(*arguments: str | Path, module: str = "harness.cli") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def verdicts(results: Path) -> dict[str, str]:
    files = sorted(results.glob("*/verdict.json"))
    return {(data := json.loads(file.read_text()))["case"]: data["word"] for file in files}


def test_run_is_pytest_with_junit_and_evidence(testcases: Path, tmp_path: Path) -> None:
    done = call(
        "run",
        testcases / "crash" / "panic.yaml",
        "-k",
        "virtio and sysrq",
        "--results",
        tmp_path / "r",
        "--junitxml",
        tmp_path / "j.xml",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(tmp_path / "r") == {"crash/panic[nic=virtio-net,crash=sysrq-c]": "PASS"}
    (suite,) = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "0")
    (folder,) = (path for path in (tmp_path / "r").iterdir() if path.is_dir())
    names = {path.name for path in folder.iterdir()}
    assert {"evidence.jsonl", "console.log", "case.pcapng", "plan.json", "verdict.json", "versions.json"} <= names


def test_the_same_verdict_again_from_disk(testcases: Path, tmp_path: Path) -> None:
    call("run", testcases / "send", "-k", "virtio", "--results", tmp_path / "r")
    there = len(list((testcases / "send").glob("*.yaml")))
    before = verdicts(tmp_path / "r")
    assert len(before) == there
    again = call("judge", tmp_path / "r")
    assert again.returncode == 0
    for case, word in before.items():
        assert f"{word} {case}" in again.stdout


def test_pytest_by_itself_runs_testcases(testcases: Path, tmp_path: Path) -> None:
    case = testcases / "crash" / "panic.yaml"
    done = call(case, "-k", "virtio and nmi", "--results", tmp_path / "r", "-q", module="pytest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(verdicts(tmp_path / "r").values()) == ["PASS"]


def test_two_workers_write_to_one_folder(testcases: Path, tmp_path: Path) -> None:
    panic = testcases / "crash" / "panic.yaml"
    out = testcases / "send" / "datagrams-out.yaml"
    done = call("run", panic, out, "-k", "virtio", "-n", "2", "--results", tmp_path / "r")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(verdicts(tmp_path / "r").values()) == ["PASS"] * 3


def test_a_failed_case_is_1_and_explains_itself(tmp_path: Path) -> None:
    twin = Path(__file__).parent / "must_fail" / "crash-without-link.yaml"
    done = call("run", twin, "--results", tmp_path / "r")
    assert done.returncode == 1
    line = 1 + next(number for number, text in enumerate(twin.read_text().splitlines()) if "- parity:" in text)
    for words in (
        "expected parity",
        f"crash-without-link.yaml:{line}",
        "lost",
        "n0 link down since",
        "evidence:",
        "again:",
    ):
        assert words in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert call("judge", tmp_path / "r").returncode == 1


@pytest.mark.parametrize(
    ("option", "code", "word"), [((), 0, "skipped"), (("--strict",), 1, "failed")], ids=["skip", "strict"]
)
def test_what_was_not_provoked_is_not_passed(tmp_path: Path, option: tuple[str, ...], code: int, word: str) -> None:
    case = tmp_path / "late-cut.yaml"
    case.write_text(NOT_PROVOKED)
    done = call("run", case, "--results", tmp_path / "r", *option)
    assert done.returncode == code, done.stdout + done.stderr
    assert list(verdicts(tmp_path / "r").values()) == ["INCONCLUSIVE"]
    assert f"1 {word}" in done.stdout


KNOWN = """
known_bugs:
  - when: {kernel: debian-6.1}
    verdict: VERDICT
    checks: [parity]
    reason: stated by a test to see what is made of it
"""


@pytest.mark.parametrize(
    ("stated", "code", "word"), [("FAIL", 0, "KNOWN_BUG"), ("INCONCLUSIVE", 1, "FAIL")], ids=["seen", "another"]
)
def test_a_known_bug_is_an_xfail_and_only_if_it_is_the_stated_one(
    tmp_path: Path, stated: str, code: int, word: str
) -> None:
    twin = (Path(__file__).parent / "must_fail" / "crash-without-link.yaml").read_text()
    (tmp_path / "known.yaml").write_text(twin + KNOWN.replace("VERDICT", stated))
    done = call("run", tmp_path / "known.yaml", "--results", tmp_path / "r")
    assert list(verdicts(tmp_path / "r").values()) == [word], done.stdout
    assert done.returncode == code


def test_a_known_bug_that_is_gone_is_said(testcases: Path, tmp_path: Path) -> None:
    good, _, _ = (testcases / "crash" / "panic.yaml").read_text().partition("known_bugs:")
    good = good.replace("nic: [e1000, virtio-net]", "nic: [virtio-net]").replace(
        "crash: [sysrq-c, nmi]", "crash: [nmi]"
    )
    (tmp_path / "gone.yaml").write_text(good + KNOWN.replace("VERDICT", "FAIL"))
    done = call("run", tmp_path / "gone.yaml", "--results", tmp_path / "r")
    assert done.returncode == 1, done.stdout
    assert "gone" in done.stdout


def test_explain_prints_what_is_done(testcases: Path) -> None:
    done = call("explain", "panic[nic=virtio-net,crash=nmi]", testcases)
    assert done.returncode == 0, done.stderr
    for words in ("-incoming", "netdev_add", "device_add", "virtio-net-pci", "netconsole_open", "inject-nmi"):
        assert words in done.stdout


def test_lf_runs_what_failed(testcases: Path, tmp_path: Path) -> None:
    good = (
        (testcases / "send" / "datagrams-out.yaml").read_text().replace("nic: [e1000, virtio-net]", "nic: [virtio-net]")
    )
    (tmp_path / "good.yaml").write_text(good)
    twin = Path(__file__).parent / "must_fail" / "crash-without-link.yaml"
    (tmp_path / "bad.yaml").write_text(twin.read_text())
    # Below tox, pytest keeps what failed in the environment's folder, where the runs of tests beside this one write, too.
    options = ("--rootdir", tmp_path, "-c", "/dev/null", "-o", f"cache_dir={tmp_path / 'cache'}", "--results")
    first = call("run", tmp_path / "good.yaml", tmp_path / "bad.yaml", *options, tmp_path / "1")
    assert first.returncode == 1, first.stdout
    assert sorted(verdicts(tmp_path / "1").values()) == ["FAIL", "PASS"]
    again = call("run", tmp_path / "good.yaml", tmp_path / "bad.yaml", *options, tmp_path / "2", "--lf")
    assert list(verdicts(tmp_path / "2").values()) == ["FAIL"], first.stdout + again.stdout
