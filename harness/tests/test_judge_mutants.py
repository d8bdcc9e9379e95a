"""Seeded defects of the evidence: each must turn a PASS into something else.

A judge that says PASS too easily is worse than none, so sound evidence of each kind of case is damaged in every place, in
every way that a broken kernel, driver, stack or harness could damage it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.observe.events import read_evidence
from harness.plan.model import Plan
from harness.tests.judge_evidence import (
    PANIC_LINES,
    console,
    crashed,
    datagrams,
    event,
    frame,
    kmsg,
    link,
    numbered,
    plan,
    run,
    rx,
    send,
)
from harness.tests.test_judge_drops import BOTH, DOWN, HELD, LOST, QUEUED, REST, came, sent

LINES = numbered(20)
DELIVERED = {"delivered": {"from": "g", "to": "h"}}
LINK = {"by": "g", "link": "n0", "at_least": 10}
SAFE = [*range(1, 30), *range(80, 100)]  # messages sent surely while the link was up


def _failover() -> list[Event]:
    """100 messages over n0, the cut, 100 over n1, each arrival with its frame."""
    arrivals = [
        [frame(t, "n0" if seq < 100 else "n1"), event(t + 0.0005, "host", "rx", endpoint="h", seq=seq, ok=True)]
        for seq in range(200)
        for t in [round(1.0 + seq * 0.01 + (0.2 if seq >= 100 else 0) + 0.005, 6)]
    ]
    halves = [*send(200)[:11], *send(200, start=1.2)[11:]]
    return run(halves, *arrivals, link(2.0, "n0", up=False, seen=0.1))


GOLDEN = Path(__file__).parent / "golden" / "evidence-panic-nmi-e1000.jsonl"
"""Written by a real run: an injected NMI, Debian's 6.1 on an e1000. Endpoints were renamed to g and h."""

PASSING: dict[str, tuple[Plan, list[Event]]] = {
    "delivered": (plan(DELIVERED), run(send(30), rx(range(30)))),
    "reverse": (plan({"delivered": {"from": "h", "to": "g"}}, reverse=True), run(send(30, "h", "h"), rx(range(30), "g"))),
    "kernel": (plan(DELIVERED, stack="kernel"), run(kmsg(20), console(LINES, 2.0, 0.01), datagrams(LINES, 2.0, 0.01))),
    "panic": (
        plan({"parity": {"to": "h"}}, {"event": {"name": "GUEST_PANICKED"}}, stack="kernel", crash=True),
        crashed(PANIC_LINES),
    ),
    "real-panic": (
        plan({"parity": {"to": "h"}}, {"event": {"name": "GUEST_PANICKED"}}, stack="kernel", crash=True),
        list(read_evidence(GOLDEN)),
    ),
    "dropped": (plan({"dropped": LINK}, {"lost_only_while_down": {"from": "g", "to": "h", "link": "n0"}},
                     cuts=["down", "up"]),
                run(sent(), BOTH, LOST, came(DOWN))),
    "queued": (plan({"queued_delivered": LINK}, cuts=["down", "up"]), run(sent(), BOTH, QUEUED, came(REST, late=HELD))),
    "failover": (
        plan({"failover": {"bond": "b0", "cut": "n0", "from": "g", "within": 1}}, DELIVERED, bond="active-backup", cuts=["down"]),
        _failover(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("planned", "events"), PASSING.values(), ids=PASSING)
def test_the_evidence_is_sound(planned: Plan, events: list[Event]) -> None:
    verdict = judge(planned, events)
    assert verdict.word == "PASS", verdict


def places(events: list[Event], kind: str) -> list[int]:
    """Where events of a kind are, without those that no expectation is about: ARP, and QEMU's own life."""
    return [
        place
        for place, each in enumerate(events)
        if each["kind"] == kind
        and each.get("name", "GUEST_PANICKED") == "GUEST_PANICKED"
        and (kind != "frame" or "sport" in each)
    ]


def without(events: list[Event], place: int) -> list[Event]:
    return events[:place] + events[place + 1 :]


def with_keys(events: list[Event], place: int, **keys: Any) -> list[Event]:
    return [*events[:place], {**events[place], **keys}, *events[place + 1 :]]


Mutants = Iterator[tuple[str, list[Event]]]


def missing(*kinds: str) -> Callable[[list[Event]], Mutants]:
    def mutate(events: list[Event]) -> Mutants:
        for kind in kinds:
            for place in places(events, kind):
                yield f"no {events[place]}", without(events, place)

    return mutate


def repeated(events: list[Event]) -> Mutants:
    """An arrival comes again, frame and all."""
    for place in places(events, "rx"):
        yield f"again {events[place]}", events[: place + 1] + events[place - 1 : place + 1] + events[place + 1 :]


def swapped(events: list[Event]) -> Mutants:
    """Two neighbours change places: their contents, not their times."""
    arrivals = places(events, "rx")
    for a, b in pairwise(arrivals):
        content = [{key: events[at][key] for key in ("seq", "text") if key in events[at]} for at in (a, b)]
        yield f"swapped {events[a]}", with_keys(with_keys(events, a, **content[1]), b, **content[0])


def wrong_byte(events: list[Event]) -> Mutants:
    rng = random.Random(1)
    for place in places(events, "rx"):
        text = events[place].get("text")
        if text is None:
            yield f"damaged {events[place]}", with_keys(events, place, ok=False, why="corrupt")
        else:
            at = rng.randrange(len(text) - 1)
            yield f"byte {at} of {text!r}", with_keys(events, place, text=f"{text[:at]}\x7f{text[at + 1 :]}")


def cut_short(events: list[Event]) -> Mutants:
    for place in places(events, "rx"):
        if text := events[place].get("text"):
            yield f"end of {text!r}", with_keys(events, place, text=text[: len(text) // 2])


def bad_checksum(events: list[Event]) -> Mutants:
    for place in places(events, "frame"):
        if events[place]["dir"] == "out" or len(places(events, "frame")) == 30:
            yield f"UDP checksum of {events[place]}", with_keys(events, place, csum="bad")
            yield f"IP checksum of {events[place]}", with_keys(events, place, ip_csum="bad")


def foreign_source(events: list[Event]) -> Mutants:
    for place in places(events, "frame"):
        if events[place]["dir"] == "out":
            yield f"MAC of {events[place]}", with_keys(events, place, smac="02:00:00:00:00:01")
            yield f"address of {events[place]}", with_keys(events, place, sip="10.0.0.1")


def of_messages(*seqs: int) -> Callable[[list[Event]], Mutants]:
    """These messages never arrive, although their link was up."""

    def mutate(events: list[Event]) -> Mutants:
        for place in places(events, "rx"):
            if events[place]["seq"] in seqs:
                yield f"lost {events[place]}", without(without(events, place), place - 1)

    return mutate


def crossed(kind: str, **keys: Any) -> Callable[[list[Event]], Mutants]:
    """Every event of a kind says something else."""

    def mutate(events: list[Event]) -> Mutants:
        changed = events
        for place in places(events, kind):
            changed = with_keys(changed, place, **keys)
        yield f"{kind} with {keys}", changed

    return mutate


ENDS = missing("start", "end")
STREAM = [missing("rx", "frame", "sent", "done"), repeated, swapped, wrong_byte, bad_checksum, ENDS]
MUTATIONS: dict[str, list[Callable[[list[Event]], Mutants]]] = {
    "delivered": [*STREAM, foreign_source],
    "reverse": STREAM,
    "kernel": [missing("rx", "frame", "kmsg", "sending", "done"), repeated, swapped, wrong_byte, cut_short, bad_checksum,
               foreign_source, ENDS],
    "panic": [missing("rx", "line", "event", "frame", "crash"), repeated, swapped, wrong_byte, cut_short, bad_checksum, foreign_source,
              ENDS],
    "real-panic": [missing("rx", "event", "frame", "crash"), repeated, swapped, wrong_byte, cut_short, bad_checksum,
                   foreign_source, ENDS],
    "dropped": [missing("link", "sent"), of_messages(*SAFE), bad_checksum, crossed("carrier", up=True),
                crossed("dropped", seq=43), crossed("dropped", endpoint="h"), crossed("dropped", t=1.2), ENDS],
    "queued": [missing("link", "sent"), of_messages(*HELD), bad_checksum, crossed("carrier", up=True),
               crossed("queued", seq=43), crossed("queued", endpoint="h"), crossed("queued", t=1.2), ENDS],
    "failover": [*STREAM, missing("link"), crossed("carrier", up=True), crossed("frame", nic="n0"),
                 crossed("frame", nic="n1"), crossed("frame", nic="n2")],
}  # fmt: skip


@pytest.mark.parametrize("name", PASSING)
def test_every_defect_turns_the_verdict(name: str) -> None:
    planned, events = PASSING[name]
    mutants = [mutant for mutation in MUTATIONS[name] for mutant in mutation(events)]
    assert len(mutants) > 10
    survivors = [what for what, mutant in mutants if judge(planned, mutant).word == "PASS"]
    assert not survivors, f"{len(survivors)} of {len(mutants)} survived, first: {survivors[0]}"
