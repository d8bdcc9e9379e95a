"""The Python API without a guest: what is refused before or instead of starting one, and what a failed verdict does to a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.api import session
from harness.api.guest import ApiError, Guest
from harness.plan.compile import compile_plan
from harness.run import Bench, Options
from harness.testbed.errors import TestbedError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(Bench(Options(results=tmp_path), print), "api/x", "a guest that is never started", "test_x.py::test_y")


def test_the_topology_is_that_of_a_testcase(guest: Guest) -> None:
    joined = guest.bond("active-backup", guest.nic("e1000e"), guest.nic("virtio-net", mtu=9000))
    flow = guest.netpoll(joined, sends={"a": {"count": 10}, "b": {"count": 20, "size": [64, 64]}})
    log = guest.netconsole(joined, extended=True)
    scenario = guest._scenario([])
    assert [(name, nic.model, nic.mtu) for name, nic in scenario.guest.nics.items()] == [("n0", "e1000e", None), ("n1", "virtio-net", 9000)]  # fmt: skip
    assert scenario.guest.bonds["bond0"].slaves == ("n0", "n1")
    assert scenario.endpoints[log.sender].extended
    assert {(flow.sender, flow.receiver), (log.sender, log.receiver)} == {
        ("sender0", "receiver0"),
        ("sender1", "receiver1"),
    }
    assert compile_plan(scenario, "x:1").stages[0].actions


def test_a_send_that_nobody_announced(guest: Guest) -> None:
    with pytest.raises(ApiError, match="nobody said what 'first' sends"):
        guest.send("first")


@pytest.mark.parametrize("step", [{"crash": {"how": "nicely"}}, {"jump": {}}, {"wait": {"carrier": "n0"}}])
def test_a_step_is_checked_before_anything_starts(step: dict[str, object], guest: Guest, tmp_path: Path) -> None:
    guest.nic()
    with pytest.raises(ValidationError):
        guest.do(step)
    assert not list(tmp_path.iterdir())


def test_an_expectation_is_checked_too(guest: Guest) -> None:
    with pytest.raises(ValidationError):
        guest.judge({"parity": {"too": "log"}})


MINE = """
pytest_plugins = ["harness.api.fixtures"]
"""

TEST = '''
def test_a_panic_without_a_link(guest, nic, netconsole, link, crash, judged):
    """A panic is expected on a wire that was cut."""
    only = nic()
    log = netconsole(only)
    link(only, False)
    assert guest.wait(carrier=only.id, state="down")
    assert guest.carrier(only) is False
    crash()
    judged({"parity": {"to": log.receiver}})

def test_an_expectation_that_nothing_can_provoke(guest, nic, netconsole, judged):
    log = netconsole(nic())
    guest.kmsg(log, 5)
    judged({"dropped": {"by": log.sender, "link": "n0"}})

def test_that_ends_early(guest, nic):
    nic()
    assert guest.run("true").rc == 0
    assert "pid" not in guest.run("cat", "/proc/self/stat").out
    raise KeyError("of the test's own")
'''


@pytest.mark.guest
def test_failures_say_what_a_testcase_would(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(MINE)
    (tmp_path / "test_mine.py").write_text(TEST)
    options = ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), "--results", f"{tmp_path}/r"]
    argv = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout
    assert "3 failed" in said.splitlines()[-1]
    assert "at that time: n0 link down since" in said
    assert "lost" in said
    assert "again:    pytest test_mine.py::test_a_panic_without_a_link" in said
    assert "ApiError: expect.0" in said
    assert 'KeyError: "of the test\'s own"' in said
    assert (tmp_path / "r/report.html").exists()
    assert {path.name for path in (tmp_path / "r").glob("*/case.pcapng")} == {"case.pcapng"}


@pytest.mark.guest
def test_a_case_process_that_stands_still_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Guest(bench, "test/stands-still", "a case whose process is stopped", "here")
    mine.nic()
    try:
        assert mine.run("true").rc == 0
        process = mine._session._process  # type: ignore[union-attr]
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(session, "PATIENCE", 1.0)
        with pytest.raises(TestbedError, match=r"did not end within \d+ s"):
            mine.run("true", within=1)
        assert process.returncode == -signal.SIGKILL
    finally:
        mine.end()


LASTING = """
def test_that_waits(guest, nic):
    nic()
    guest.wait(console="never said", within=600)
"""


def below(pid: int) -> set[int]:
    """All processes that descend from one, by /proc."""
    children = {int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()}
    return children | {each for child in children for each in below(child)}


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.guest
def test_a_test_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(MINE)
    (tmp_path / "test_mine.py").write_text(LASTING)
    options = ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), "--results", f"{tmp_path}/r"]
    argv = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    process = subprocess.Popen(
        argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    waits = '"title":"wait for console line'
    until(
        lambda: any(waits in path.read_text() for path in tmp_path.glob("r/*/evidence.jsonl")), "the wait never began"
    )
    found = below(process.pid)
    assert len(found) >= 2, "the case's process and its QEMU"
    process.kill()
    process.wait()
    until(lambda: not [pid for pid in found if Path(f"/proc/{pid}/exe").exists()], f"some of {found} live on")
