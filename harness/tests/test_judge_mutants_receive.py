"""Seeded defects of the evidence, for the checks of what is polled, left alone, answered, sent back and pressed.

As in test_judge_mutants: sound evidence is damaged in every place, and no damage may leave the verdict at PASS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.judge_evidence import console, plan, run, rx, send, stamped
from harness.tests.judge_strange import answers, captured, counters, echoes, keys, strange, told
from harness.tests.test_judge_mutants import (
    ENDS,
    Mutants,
    crossed,
    missing,
    repeated,
    swapped,
    with_keys,
    without,
    wrong_byte,
)
from harness.tests.test_judge_receive import AFTER, back

STOPPED: dict[str, Any] = {"sent": 30, "retried": 5, "polled": 5, "dev_tx_stopped": 5}
NOTHING = "52:54:00:00:00:66"

EVIDENCE: dict[str, tuple[dict[str, Any], list[Event]]] = {
    "polled": ({"polled": {"by": "g", "at_least": 5}}, run(send(30), rx(range(30)), counters(**STOPPED))),
    "passed-on": (
        {"not_received": {"at": "g", "at_least": 10}},
        run(strange("wrong-port"), strange("bad-udp-checksum"), AFTER),
    ),
    "eaten": (
        {"not_received": {"at": "g", "fate": "eaten", "at_least": 5}},
        run(captured("wrong-peer", 5, 0.5), told("wrong-peer", 5), AFTER, counters(dev_rx_trapped=5)),
    ),
    "answered": (
        {"arp_answered": {"by": "g", "at_least": 10}},
        run(captured("arp-request", 10, 0.5), told("arp-request", 10), answers(10)),
    ),
    "echoed": ({"echoed": {"by": "g", "at_least": 10}}, run(AFTER, echoes(range(10)), back(*range(10)))),
    "pressed": (
        {"pressed": {"at": "g"}},
        run(keys("c", 1.0, "port"), keys("hm", 1.2), console(stamped(["sysrq: HELP", "sysrq: Show Memory"]), 1.3)),
    ),
}


def arp_frames(events: list[Event]) -> Mutants:
    """One of the ARP frames is missing, or somebody else's."""
    for place, each in enumerate(events):
        if each["kind"] == "frame":
            yield f"no {each}", without(events, place)
            if each["dir"] == "in":
                yield f"not theirs {each}", with_keys(events, place, smac=NOTHING)


def last_keys(events: list[Event]) -> Mutants:
    place = max(place for place, each in enumerate(events) if each["kind"] == "keys")
    yield f"no {events[place]}", without(events, place)


ELSEWHERE = [crossed("counters", values={}), crossed("counters", endpoint="h"), missing("counters")]
MUTATIONS: dict[str, list[Callable[[list[Event]], Mutants]]] = {
    "polled": [missing("rx", "frame", "sent", "done"), wrong_byte, *ELSEWHERE, crossed("counters", values={**STOPPED, "polled": 4}),
               crossed("counters", values={**STOPPED, "retried": 4}), crossed("counters", values={**STOPPED, "dev_tx_stopped": 0}),
               ENDS],
    "passed-on": [missing("passed", "frames", "frame", "rx", "sent", "done"), wrong_byte, crossed("passed", ok=False),
                  crossed("passed", endpoint="h"), crossed("passed", label="x"), crossed("frame", nic="n1"),
                  crossed("frame", dport=1), ENDS],
    "eaten": [missing("frames", "frame", "rx", "sent", "done"), wrong_byte, *ELSEWHERE,
              crossed("counters", values={"dev_rx_trapped": 4}), crossed("frame", dip="10.0.0.1"), ENDS],
    "answered": [missing("arp", "frames"), crossed("arp", mac=NOTHING), crossed("arp", to=NOTHING), crossed("arp", ip="10.0.0.1"),
                 crossed("arp", endpoint="g"), arp_frames, ENDS],
    "echoed": [missing("rx", "frame", "echo", "sent", "done"), repeated, swapped, wrong_byte, crossed("echo", inside=False),
               crossed("echo", sent=False), crossed("echo", endpoint="h"), ENDS],
    "pressed": [missing("line", "frame"), last_keys, crossed("keys", forge="ip"), crossed("keys", keys="t"), crossed("frame", smac=NOTHING),
                crossed("line", text="sysrq: Show State"), crossed("keys", endpoint="g"), ENDS],
}  # fmt: skip


@pytest.mark.parametrize("name", EVIDENCE)
def test_the_evidence_is_sound(name: str) -> None:
    expect, events = EVIDENCE[name]
    verdict = judge(plan(expect, reverse=name != "polled"), events)
    assert verdict.word == "PASS", verdict


@pytest.mark.parametrize("name", EVIDENCE)
def test_every_defect_turns_the_verdict(name: str) -> None:
    expect, events = EVIDENCE[name]
    planned = plan(expect, reverse=name != "polled")
    mutants = [mutant for mutation in MUTATIONS[name] for mutant in mutation(events)]
    assert len(mutants) > 10
    survivors = [what for what, mutant in mutants if judge(planned, mutant).word == "PASS"]
    assert not survivors, f"{len(survivors)} of {len(mutants)} survived, first: {survivors[0]}"
