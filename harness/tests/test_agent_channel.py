"""The control channel against a guest that answers, and against guests that do not play by the rules."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.testbed.agent import KINDS, LINE_LIMIT, Agent, AgentRefused
from harness.testbed.errors import GuestSilent

ROOT = Path(__file__).resolve().parents[2]
Talk = Callable[[dict[str, Any]], bytes]


async def converse(talk: Talk, op: str = "hello", within: float = 2.0) -> tuple[Any, list[Any], list[str]]:
    """Ask `op` of a guest that answers each request with the bytes of `talk`: (result or error, events, garbage)."""
    ours, theirs = socket.socketpair()
    events: list[Any] = []
    garbage: list[str] = []
    agent = Agent(lambda kind, stamp, keys: events.append((kind, stamp, dict(keys))), garbage.append)
    await agent.open(ours)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)

    async def guest() -> None:
        while line := await reader.readline():
            writer.write(talk(json.loads(line)))

    task = asyncio.create_task(guest())
    try:
        outcome: Any = await agent.ask(op, within=within)
    except (GuestSilent, AgentRefused) as error:
        outcome = error
    task.cancel()
    await agent.close()
    writer.close()
    return outcome, events, garbage


def answer(request: dict[str, Any], **outcome: Any) -> bytes:
    return json.dumps({"id": request["id"], **outcome}).encode() + b"\n"


def test_an_answer() -> None:
    outcome, events, garbage = asyncio.run(converse(lambda r: answer(r, result={"release": "6.1"})))
    assert (outcome, events, garbage) == ({"release": "6.1"}, [], [])


def test_a_refusal_carries_the_guests_words() -> None:
    outcome, _, _ = asyncio.run(converse(lambda r: answer(r, error="OSError: no such device")))
    assert isinstance(outcome, AgentRefused)
    assert "no such device" in str(outcome)


def test_silence_names_the_request() -> None:
    outcome, _, _ = asyncio.run(converse(lambda _r: b"", op="nic_up", within=0.05))
    assert isinstance(outcome, GuestSilent)
    assert "`nic_up`" in str(outcome)


def test_events_come_before_the_answer_that_follows_them() -> None:
    batch = json.dumps({"events": [["carrier", 4.5, {"nic": "n0", "up": True}]]}).encode() + b"\n"
    outcome, events, _ = asyncio.run(converse(lambda r: batch + answer(r, result=1)))
    assert outcome == 1
    assert events == [("carrier", 4.5, {"nic": "n0", "up": True})]


HOSTILE = {
    "not json": b"hello?\n",
    "a number": b"7\n",
    "a list": b"[]\n",
    "null": b"null\n",
    "no id": b'{"result": 1}\n',
    "an id of another request": b'{"id": 99, "result": 1}\n',
    "an id that is no number": b'{"id": "x", "result": 1}\n',
    "an unknown kind": b'{"events": [["run_as_root", 1, {}]]}\n',
    "events that are none": b'{"events": 5}\n',
    "an event cut short": b'{"events": [["carrier"]]}\n',
    "keys that are none": b'{"events": [["carrier", 1, 5]]}\n',
    "not utf-8": b"\xff\xfe\n",
    "deeply nested": b"[" * 100_000 + b"\n",
    "longer than any line": b"x" * (LINE_LIMIT + 10) + b"\n",
    "an id without end": b'{"id": 1e999, "result": 1}\n',
    "a time beyond floats": b'{"events": [["carrier", 1' + b"0" * 400 + b", {}]]}\n",
    "not a number as time": b'{"events": [["carrier", NaN, {}]]}\n',
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_whatever_a_guest_sends_the_channel_lives_on(line: bytes) -> None:
    outcome, events, garbage = asyncio.run(converse(lambda r: line + answer(r, result="alive")))
    assert outcome == "alive"
    assert events == []
    assert len(garbage) >= (0 if b'"id": 99' in line else 1)


def test_a_guest_cannot_forge_the_keys_of_evidence() -> None:
    batch = json.dumps({"events": [["rx", 1.0, {"t": 0, "src": "run", "kind": "end", "guest_t": 9, "seq": 3}]]})
    _, events, _ = asyncio.run(converse(lambda r: batch.encode() + b"\n" + answer(r, result=1)))
    assert events == [("rx", 1.0, {"seq": 3})]


ONLY_ON_THE_HOST = {"frames", "keys"}  # what is done to the guest, told by our stack's end on the host
TOLD = re.compile(r"\b_?emit\(\s*\"([a-z]+)\"")


def test_every_kind_of_event_that_the_guests_code_tells_is_known() -> None:
    told = {kind for path in (ROOT / "guest").glob("*.py") for kind in TOLD.findall(path.read_text())}
    assert len(told) > 10
    assert told - KINDS == ONLY_ON_THE_HOST
