"""Lines of a guest into the host's end of the control channel, and the events among them into evidence.

In: lines, each of a kind (an octet): as they are, after their length; or an answer, or events, with values of any JSON
type, so that a fuzzer need not write JSON. Held: nothing raises, and the channel reads on; every event that gets through
is of a known kind, has a time that is a number and no key of the evidence's own, and can be written and read back; of
two answers to one request the first counts.
"""

from __future__ import annotations

import asyncio
import atexit
import json
from collections.abc import Iterator, Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from guest.tests.fuzz.octets import Octets, block
from guest.tests.fuzz.table import Target
from harness.observe.events import RESERVED, Clock, Evidence
from harness.testbed.agent import KINDS, Agent, AgentRefused

LINE_LIMIT = 60_000  # for the stream here: the channel's own is too long to be reached by chance
ASKED = 3  # requests that wait for an answer, numbered from 1
RAW, ANSWER, REFUSAL, EVENTS = range(4)

SCALARS = (
    "null", "true", "false", "0", "1", "2", "-1", "1.5", "1e308", "-1e308", "1e999", "NaN", "Infinity", "-Infinity",
    "9" * 400, "9" * 5000, '""', '"1"', '"t"', '"guest_t"', '"kind"', '"src"', '"events"', '"\\ud800"', '"\\u0000"',
    '"' + "x" * 3000 + '"', "[" * 50_000, "{",
)  # fmt: skip
KEYS = ("seq", "t", "src", "kind", "guest_t", "self", "", "\\ud800", "label")
LIST, OBJECT = len(SCALARS), len(SCALARS) + 1


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def run(data: bytes) -> None:
    octets = Octets(data)
    lines = b"".join(_line(octets) + b"\n" for _ in iter(octets.__bool__, False))
    garbage: list[str] = []
    evidence = Evidence(Path("/dev/null"), Clock(0.0, 0.0))

    def event(kind: str, stamp: float, keys: Mapping[str, Any]) -> None:
        assert kind in KINDS
        assert isfinite(stamp)
        assert RESERVED.isdisjoint(keys)
        evidence.add("guest", kind, t=stamp, guest_t=round(stamp, 6), **keys)

    try:
        _loop().run_until_complete(_converse(Agent(event, garbage.append), lines))
        _check(evidence, garbage, lines)
    finally:
        evidence.close()


def _line(octets: Octets) -> bytes:
    kind = octets.u8() % 4
    if kind == RAW:
        return octets.block()
    if kind == EVENTS:
        events = [_event(octets) for _ in range(octets.u8() % 4)]
        return f'{{"events":[{",".join(events)}]}}'.encode()
    word = "result" if kind == ANSWER else "error"
    return f'{{"id":{_value(octets)},"{word}":{_value(octets)}}}'.encode()


def _event(octets: Octets) -> str:
    """Of a known kind if it is even."""
    choice = octets.u8()
    kind = f'"{sorted(KINDS)[choice // 2 % len(KINDS)]}"' if choice % 2 == 0 else _value(octets)
    return f"[{kind},{_value(octets)},{_value(octets)}]"


def _value(octets: Octets, depth: int = 0) -> str:
    """A JSON value, or what is none."""
    choice = octets.u8() % (OBJECT + 1)
    if choice < LIST or depth == 3:
        return SCALARS[choice % LIST]
    inner = [_value(octets, depth + 1) for _ in range(octets.u8() % 4)]
    if choice == LIST:
        return f"[{','.join(inner)}]"
    return "{" + ",".join(f'"{KEYS[octets.u8() % len(KEYS)]}":{value}' for value in inner) + "}"


async def _converse(agent: Agent, lines: bytes) -> None:
    """A guest that writes `lines` and closes, while requests are waiting for their answers."""
    stream = asyncio.StreamReader(limit=LINE_LIMIT)
    asked = [asyncio.get_running_loop().create_future() for _ in range(ASKED)]
    agent._pending.update(enumerate(asked, 1))
    stream.feed_data(lines + b'{"id":%d,"result":"alive"}\n' % ASKED)
    stream.feed_eof()
    await agent._read(stream)
    for answer in asked:
        if answer.done():
            error = answer.exception()
            assert error is None or isinstance(error, AgentRefused)
    assert asked[-1].done(), "the channel does not read on"


def _check(evidence: Evidence, garbage: list[str], lines: bytes) -> None:
    assert len(garbage) <= lines.count(b"\n") + len(lines) // LINE_LIMIT
    for event in evidence.events:
        text = json.dumps(event)
        assert "NaN" in text or json.loads(text) == event


def encoded() -> Iterator[bytes]:
    for text in (
        b'{"id":1,"result":{"release":"6.1"}}\n{"id":1,"result":2}\n{"id":2,"error":"no such device"}',
        b'{"events":[["carrier",4.5,{"nic":"n0","up":true}],["rx",5,{"seq":1,"t":0}]]}',
        b'{"events":[["run",1,{"argv":["true"],"rc":0}]]}\n{not json\n{"id":2}',
        b'7\n[]\nnull\n{"result":1}\n"events"\n{"events":5}\n\xff\n{"id":true}\n{"id":"1"}\n{"id":2.5}',
    ):
        yield bytes((RAW,)) + block(text)
    yield bytes((RAW,)) + block(b"x" * (LINE_LIMIT + 5) + b"\n" + b"[" * 60)
    for value in range(len(SCALARS)):
        yield bytes((ANSWER, value, LIST, 2, value, value, REFUSAL, 4, OBJECT, 1, value, 2))
        yield bytes((EVENTS, 2, 0, value, OBJECT, 3, value, 0, 0, 0, 1, 2, 1, value, 4, OBJECT, 0))


TOKENS = (b'{"id":', b'"result":', b'"error":', b'{"events":[[', b'"carrier",', b"1e400", b"NaN", b"-Infinity", b"null")
TARGET = Target(run, encoded, TOKENS, max_len=400)
