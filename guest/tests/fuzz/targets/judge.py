"""What a guest says, put among the evidence of good runs, into the judge.

In: which run (an octet), then events of the guest, each with its place, its kind and what its keys hold (an octet each);
values come from a table of everything that a guest can send. Held: there is a verdict, in words; the same evidence,
written to disk and read again, gives the same one; a guest that speaks of endlessly many messages costs no more time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from guest.tests.fuzz.octets import Octets
from guest.tests.fuzz.table import Target
from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.test_judge_mutants import PASSING

RUNS = tuple(PASSING.values())
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (  # what the catalogue (harness.observe.events) has of the guest
    ("sent", ("endpoint", "label", "first", "last")),
    ("kmsg", ("endpoint", "label", "first", "last")),
    ("sending", ("endpoint", "label", "count", "size", "seed")),
    ("done", ("endpoint", "label", "count", "error")),
    ("dropped", ("endpoint", "label", "seq", "why")),
    ("queued", ("endpoint", "label", "seq", "why")),
    ("late", ("endpoint", "label", "seq")),
    ("rx", ("endpoint", "label", "seq", "ok", "why", "text")),
    ("carrier", ("nic", "up")),
    ("bond", ("bond", "active")),
    ("counters", ("endpoint", "values")),
    ("frames", ("endpoint", "label", "what", "count")),
    ("passed", ("endpoint", "label", "seq", "ok")),
    ("echo", ("endpoint", "label", "seq", "sent", "inside")),
    ("key", ("endpoint", "key", "allowed")),
    ("arp", ("endpoint", "ip", "mac", "to")),
)
VALUES: tuple[Any, ...] = (
    "g", "h", "k", "n0", "n1", "b0", 0, 1, 2, 5, 9, 10, 19, 29, 99, 199, True, False, None, "", "x" * 300, "\ud800", "\0",
    -1, 10**15, 1 << 70, 1.5, 1e308, [], [1, 2], [16, 1400], [5, 10**12], [2, 1], {}, {"polled": 3}, {"": None}, "arp-request",
)  # fmt: skip
ABSENT = len(VALUES)  # one more: the key is not there
MAX_EVENTS = 12


def run(data: bytes) -> None:
    octets = Octets(data)
    plan, good = RUNS[octets.u8() % len(RUNS)]
    events = list(good)
    for _ in range(MAX_EVENTS):
        if octets:
            at = octets.u8() * len(events) // 256
            events.insert(at, _event(octets, events[at]["t"]))
    verdict = judge(plan, events)
    assert verdict.why
    saved = [json.loads(json.dumps(event)) for event in events]
    assert judge(plan, saved) == verdict
    json.dumps(verdict.model_dump(mode="json"))


def _event(octets: Octets, now: float) -> Event:
    kind, keys = KINDS[octets.u8() % len(KINDS)]
    event: Event = {"t": now, "src": "guest", "kind": kind}
    for key in keys:
        choice = octets.u8() % (ABSENT + 1)
        if choice != ABSENT:
            event[key] = VALUES[choice]
    return event


def encoded() -> Iterator[bytes]:
    for number in range(len(RUNS)):
        yield bytes((number,))
        for kind in range(len(KINDS)):
            yield bytes((number, 100, kind, 0, 0, 7, 9, 16, 20))
    last, endless = VALUES.index(5), VALUES.index(10**15)
    yield bytes((0, 100, 0, 0, 0, 6, endless)) + bytes((120, 0, 0, 0, 6, last))


TARGET = Target(run, encoded, max_len=100)
