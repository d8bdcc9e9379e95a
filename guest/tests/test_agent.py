"""The agent against requests good and bad, over a socket pair, in a network namespace of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVE = "import sys; from guest.agent import serve; serve(int(sys.argv[1]))"
UNSHARE = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]


class Host:
    """The harness's side, as simple as can be."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile("rwb")
        self.events: list[Any] = []

    def raw(self, line: bytes) -> dict[str, Any]:
        """Send a line; the next answer."""
        self._file.write(line + b"\n")
        self._file.flush()
        while True:
            message: dict[str, Any] = json.loads(self._file.readline())
            if "events" not in message:
                return message
            self.events += message["events"]

    def ask(self, op: str, **args: Any) -> dict[str, Any]:
        return self.raw(json.dumps({"id": 7, "op": op, "args": args}).encode())


@pytest.fixture
def host() -> Iterator[Host]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    command = [*UNSHARE, sys.executable, "-c", SERVE, str(theirs.fileno())]
    agent = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
    theirs.close()
    yield Host(ours)
    agent.kill()
    agent.wait()
    ours.close()


def test_who_is_there(host: Host) -> None:
    answer = host.ask("hello")
    assert answer["id"] == 7
    assert answer["result"]["release"] == os.uname().release


def test_its_clock_goes_on(host: Host) -> None:
    first, second = (host.ask("clock")["result"]["monotonic"] for _ in range(2))
    assert first < second


BAD = {
    "not json": (b"hello?", "not a request"),
    "not an object": (b"[]", "not a request"),
    "no op": (b'{"id": 7, "args": {}}', "not a request"),
    "an unknown op": (b'{"id": 7, "op": "reboot", "args": {}}', "op_reboot"),
    "not an operation at all": (b'{"id": 7, "op": "__class__", "args": {}}', "not a request"),
    "an unknown argument": (b'{"id": 7, "op": "hello", "args": {"x": 1}}', "TypeError"),
    "an unknown device": (b'{"id": 7, "op": "nic_up", "args": {"id": "n9"}}', "no device 'n9'"),
    "an unknown sysctl": (b'{"id": 7, "op": "sysctl", "args": {"values": {"no.such": 1}}}', "FileNotFoundError"),
    "an unknown crash": (b'{"id": 7, "op": "crash", "args": {"how": "hammer"}}', "hammer"),
    "a command that is not there": (b'{"id": 7, "op": "run", "args": {"argv": ["/no/such"]}}', "FileNotFoundError"),
    "a NIC that never comes": (
        b'{"id": 7, "op": "nic_wait", "args": {"id": "n0", "mac": "52:54:00:00:00:01", "within": 0.05}}',
        "did not come within 0.05 s",
    ),
}


@pytest.mark.parametrize(("line", "word"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_answered_in_words_and_the_agent_lives_on(host: Host, line: bytes, word: str) -> None:
    assert word in host.raw(line)["error"]
    assert "result" in host.ask("hello")


def test_a_command_tells_its_outcome_as_an_event_too(host: Host) -> None:
    answer = host.ask("run", argv=["sh", "-c", "echo out; echo err >&2"])
    assert (answer["result"]["rc"], answer["result"]["out"], answer["result"]["err"]) == (0, "out\n", "err\n")
    assert [kind for kind, _, _ in host.events] == ["run"]


@pytest.mark.parametrize(("may_fail", "key"), [(False, "error"), (True, "result")])
def test_a_command_that_fails(host: Host, may_fail: bool, key: str) -> None:
    answer = host.ask("run", argv=["sh", "-c", "echo no >&2; exit 3"], may_fail=may_fail)
    assert key in answer
    assert "no" in str(answer[key])


def test_a_send_to_an_endpoint_that_is_not_there_ends_with_a_named_error(host: Host) -> None:
    shape = {"count": 1, "size_low": 64, "size_high": 64, "interval": 0.0, "seed": 1}
    assert "result" in host.ask("np_send", endpoint="e9", label="l1", **shape)
    while not host.events:
        host.ask("clock")
    kind, _, keys = host.events[0]
    assert (kind, keys["endpoint"], keys["label"], keys["count"]) == ("done", "e9", "l1", -1)
    assert "KeyError" in keys["error"]
