"""dropped, queued_delivered and lost_only_while_down: what a cut link does to messages.

One cast in all tables: messages 0-99 leave 10 ms apart from 1.0 s on; n0 is cut at 1.4 s (the guest notices at 1.42 s) and
restored at 1.7 s (carrier at 1.72 s). Messages 42-69 meet the drop routine.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.tests.judge_evidence import console, datagrams, event, kmsg, link, numbered, plan, run, rx, send

CARRIER = event(0.5, "guest", "carrier", nic="n0", up=True)
CUT = [CARRIER, *link(1.4, "n0", up=False, seen=0.02)]
BOTH = [*CUT, *link(1.7, "n0", up=True, seen=0.02)]
DOWN = range(42, 70)


def sent(count: int = 100) -> list[Event]:
    """Each message told by itself: its time is known to 10 ms."""
    keys = {"endpoint": "g", "label": "g"}
    begin = event(1.0, "guest", "sending", **keys, count=count, size=[16, 1400], seed=1)
    told = [event(round(1.0 + (n + 1) * 0.01, 6), "guest", "sent", **keys, first=n, last=n) for n in range(count)]
    return [begin, *told, event(1.0 + count * 0.01, "guest", "done", **keys, count=count)]


def handled(kind: str, seqs: Iterable[int], t: float | None = None) -> list[Event]:
    return [
        event(1.0 + seq * 0.01 if t is None else t, "guest", kind, endpoint="g", label="g", seq=seq, why="carrier lost")
        for seq in seqs
    ]


def came(but: Iterable[int] = (), late: Iterable[int] = ()) -> list[Event]:
    missing = set(but) | set(late)
    found = rx([seq for seq in range(100) if seq not in missing])
    return found + [each for seq in late for each in rx([seq], start=2.0 - seq * 0.01)]


def check_of(expect: dict[str, Any], events: list[Event], stack: str = "netpoll") -> CheckResult:
    return judge(plan(expect, stack=stack), events).checks[0]


Case = tuple[list[Event], bool, bool | None, str]  # events, reached, held, words in why or findings


def judged(expect: dict[str, Any], case: Case, stack: str = "netpoll") -> None:
    events, reached, held, words = case
    check = check_of(expect, events, stack)
    assert (check.reached, check.held) == (reached, held), check
    assert any(words in each for each in (check.why, *check.findings)), check


LOST = handled("dropped", DOWN)

DROPPED: dict[str, Case] = {
    "held": (run(sent(), BOTH, LOST, came(DOWN)), True, True, "was given 42-69 of g; none of them arrived unqueued"),
    "link-stays-down": (run(sent(), CUT, LOST, came(range(42, 100))), True, True, "42-69 of g"),
    "queued-may-arrive": (
        run(sent(), BOTH, LOST, handled("queued", [42, 43]), came(range(44, 70), late=[42, 43])), True, True,
        "queued by the drop routine: 42-43 of g"),
    "told-as-queued-only": (
        run(sent(), BOTH, handled("queued", DOWN), came(late=DOWN)), True, True, "queued by the drop routine: 42-69"),
    "too-few": (run(sent(), BOTH, handled("dropped", [42]), came(DOWN)), True, False, "was given 1 message, need 20"),
    "none": (run(sent(), BOTH, came(DOWN)), True, False, "was given 0 messages"),
    "arrived-all-the-same": (run(sent(), BOTH, LOST, came(range(43, 70))), True, False, "arrived all the same: 42 of g"),
    "dropped-while-up-does-not-count": (
        run(sent(), BOTH, handled("dropped", range(30)), came(DOWN)), True, False, "while the link was up: 0-29 of g"),
    "never-cut": (run(sent(), CARRIER, came()), False, None, "the link of n0 never went down"),
    "guest-did-not-notice": (
        run(sent(), CARRIER, link(1.4, "n0", up=False), LOST, came(DOWN)), False, None, "never saw the carrier of n0 go down"),
    "nothing-sent-meanwhile": (run(send(30), BOTH, rx(range(30))), False, None, "sent nothing that surely fell into"),
    "another-link": (
        run(sent(), CARRIER, link(1.4, "n1", up=False, seen=0.02), LOST, came(DOWN)), False, None, "never went down"),
}  # fmt: skip


@pytest.mark.parametrize("case", DROPPED.values(), ids=DROPPED)
def test_dropped(case: Case) -> None:
    judged({"dropped": {"by": "g", "link": "n0", "at_least": 20}}, case)


QUEUED = [*LOST, *handled("queued", range(42, 58)), *handled("late", range(42, 58), 1.73)]
HELD = range(42, 58)
REST = range(58, 70)

QUEUES: dict[str, Case] = {
    "held": (run(sent(), BOTH, QUEUED, came(REST, late=HELD)), True, True, "42-57 of g were queued and arrived in order"),
    "overflow-is-named": (run(sent(), BOTH, QUEUED, came(REST, late=HELD)), True, True, "dropped and not queued: 58-69 of g"),
    "one-lost": (run(sent(), BOTH, QUEUED, came([*REST, 50], late=[n for n in HELD if n != 50])), True, False,
                 "queued but never arrived: 50 of g"),
    "worker-never-ran": (run(sent(), BOTH, LOST, handled("queued", HELD), came(DOWN)), True, False,
                         "never handed to the device by the worker: 42-57"),
    "swapped": (run(sent(), BOTH, QUEUED, came(REST, late=[43, 42, *range(44, 58)])), True, False, "out of order: 43 of g"),
    "twice": (run(sent(), BOTH, QUEUED, came(REST, late=[*HELD, 42])), True, False, "more than once: 42 of g"),
    "too-early": (run(sent(), BOTH, QUEUED, came([*REST], late=range(43, 58)), rx([42])), True, False,
                  "left while the link was down: 42 of g"),
    "too-few": (run(sent(), BOTH, handled("queued", [42]), came(DOWN, late=[42])), True, False, "held 1 message, need 10"),
    "never-restored": (run(sent(), CUT, QUEUED, came(range(42, 100))), False, None, "never came up again"),
    "never-cut": (run(sent(), CARRIER, came()), False, None, "never went down"),
    "nothing-sent-meanwhile": (run(send(30), BOTH, rx(range(30))), False, None, "sent nothing that surely fell into"),
}  # fmt: skip


@pytest.mark.parametrize("case", QUEUES.values(), ids=QUEUES)
def test_queued_delivered(case: Case) -> None:
    judged({"queued_delivered": {"by": "g", "link": "n0", "at_least": 10}}, case)


# The guest reports the carrier of the first restoration 10 ms after the second cut, and sees that cut only 0.2 s after it.
CROSSED = run(
    link(1.3, "n0", False, 0.02),
    link(1.4, "n0", True, 0.11),
    link(1.5, "n0", False, 0.2),
    link(1.72, "n0", True, 0.02),
)
IN_FLIGHT = range(38, 78)  # with the tolerance of two clocks, and what the NIC had when the link went

ONLY: dict[str, Case] = {
    "held": (run(sent(), BOTH, LOST, came(DOWN)), True, True, "28 of 100 messages lost, all sent while n0 was down: 42-69"),
    "cut-again-before-the-guest-saw-it-back": (
        run(sent(), CARRIER, CROSSED, came([*range(30, 50), *range(53, 70)])), True, True, "30-49, 53-69 of g"),
    "after-a-cut-that-crossed": (
        run(sent(), CARRIER, CROSSED, came([*range(30, 70), 85])), True, False, "lost although n0 was up: 85 of g"),
    "nothing-lost": (run(sent(), BOTH, came()), True, True, "0 of 100 messages lost"),
    "the-edges-are-excused": (run(sent(), BOTH, came(IN_FLIGHT)), True, True, "38-77 of g"),
    "before": (run(sent(), BOTH, came([10, *DOWN])), True, False, "lost although n0 was up: 10 of g"),
    "after": (run(sent(), BOTH, came([*DOWN, 90, 91])), True, False, "lost although n0 was up: 90-91 of g"),
    "never-back": (run(sent(), CUT, came(range(42, 100))), False, None, "0 after"),
    "never-cut": (run(sent(), CARRIER, came()), False, None, "never went down"),
    "guest-did-not-notice": (run(sent(), CARRIER, link(1.4, "n0", up=False), came(DOWN)), False, None, "never saw the carrier"),
    "told-too-coarsely": (run(send(100), BOTH, came(DOWN)), True, True, "28 of 100"),
    "few-before": (run(sent(), CARRIER, link(1.08, "n0", False, 0.01), link(1.7, "n0", True, 0.01), came(range(8, 70))),
                   False, None, "2 before"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONLY.values(), ids=ONLY)
def test_lost_only_while_down(case: Case) -> None:
    judged({"lost_only_while_down": {"from": "g", "to": "h", "link": "n0"}}, case)


def test_damage_without_a_reason_is_a_loss_without_a_reason() -> None:
    events = run(
        sent(), BOTH, came([10, *DOWN]), event(1.1, "host", "rx", endpoint="h", seq=10, ok=False, why="corrupt")
    )
    judged({"lost_only_while_down": {"from": "g", "to": "h", "link": "n0"}}, (events, True, False, "damaged: corrupt"))


LINES = numbered(100)


def netconsole(*lost: int) -> list[Event]:
    """Kernel messages of the same cast; the console has them all, the wire not."""
    wire = [each for seq in range(100) if seq not in lost for each in datagrams([LINES[seq]], start=1.0 + seq * 0.01)]
    return run(kmsg(100, t=1.0), console(LINES, start=1.0, step=0.01), wire, BOTH)


@pytest.mark.parametrize(
    ("lost", "held", "words"),
    [
        (range(42, 70), True, "28 of 100 messages lost, all sent while n0 was down: 42-69 of k"),
        ([10, *range(42, 70)], False, "lost although n0 was up: 10 of k"),
        ([*range(42, 70), 99], False, "lost although n0 was up: 99 of k"),
    ],
)
def test_lost_only_while_down_of_the_kernels_netconsole(lost: list[int], held: bool, words: str) -> None:
    expect = {"lost_only_while_down": {"from": "g", "to": "h", "link": "n0"}}
    judged(expect, (netconsole(*lost), True, held, words), stack="kernel")


def test_findings_keep_excused_and_guilty_apart() -> None:
    check = check_of(
        {"lost_only_while_down": {"from": "g", "to": "h", "link": "n0"}}, run(sent(), BOTH, came([10, *DOWN]))
    )
    assert check.findings[:2] == (
        "lost while n0 was down: 42-69 of g",
        "lost while n0 was up: 10 of g, sent by 1.110 s; n0 carrier up",
    )
    assert (check.numbers["lost"], check.numbers["lost_while_up"]) == (29, 1)


def test_findings_keep_dropped_and_queued_apart() -> None:
    events = run(sent(), BOTH, LOST, handled("queued", [42, 43]), came(range(44, 70), late=[42, 43]))
    check = check_of({"dropped": {"by": "g", "link": "n0", "at_least": 20}}, events)
    assert check.findings[:2] == ("dropped: 44-69 of g", "queued by the drop routine: 42-43 of g")
    assert check.numbers == {"dropped": 28, "queued": 2, "arrived": 0}
