"""When a link was down, from what the host did and what the guest saw."""

from __future__ import annotations

from math import inf

import pytest

from harness.judge.links import CLOCK_SLACK, Down, down_at, downs, state_at, surely_down
from harness.judge.records import parse
from harness.tests.judge_evidence import event, link, run

CUT, UP = "cut", "up"  # of the host
GONE, BACK = "gone", "back"  # of the guest's carrier

EVENTS = {
    CUT: lambda t: event(t, "inject", "link", nic="n0", state="down"),
    UP: lambda t: event(t, "inject", "link", nic="n0", state="up"),
    GONE: lambda t: event(t, "guest", "carrier", nic="n0", up=False),
    BACK: lambda t: event(t, "guest", "carrier", nic="n0", up=True),
}

CASES = {
    "never": ([(1.0, BACK)], []),
    "coming-up": ([(0.5, GONE), (2.8, BACK)], []),
    "cut-and-restored": (
        [(1.0, BACK), (5.0, CUT), (5.1, GONE), (7.0, UP), (7.3, BACK)],
        [Down(cut=5.0, seen=5.1, restored=7.0, back=7.3)],
    ),
    "cut-for-good": ([(1.0, BACK), (5.0, CUT), (5.1, GONE)], [Down(cut=5.0, seen=5.1)]),
    "guest-never-noticed": ([(1.0, BACK), (5.0, CUT), (5.2, UP)], [Down(cut=5.0, restored=5.2)]),
    "guest-is-first": (
        [(1.0, BACK), (4.99, GONE), (5.0, CUT), (6.99, BACK), (7.0, UP)],
        [Down(cut=5.0, seen=4.99, restored=7.0, back=6.99)],
    ),
    "twice": (
        [(1.0, BACK), (5.0, CUT), (5.1, GONE), (6.0, UP), (6.1, BACK), (8.0, CUT), (8.1, GONE)],
        [Down(cut=5.0, seen=5.1, restored=6.0, back=6.1), Down(cut=8.0, seen=8.1)],
    ),
    "cut-again-before-it-was-back": (
        [(1.0, BACK), (5.0, CUT), (5.1, GONE), (6.0, UP), (6.5, CUT), (8.0, UP), (8.2, BACK)],
        [Down(cut=5.0, seen=5.1, restored=8.0, back=8.2)],
    ),
    "unnoticed-then-noticed": (
        [(1.0, BACK), (5.0, CUT), (5.1, UP), (8.0, CUT), (8.1, GONE)],
        [Down(cut=5.0, restored=5.1), Down(cut=8.0, seen=8.1)],
    ),
    "carrier-lost-by-itself": ([(1.0, BACK), (5.0, GONE), (6.0, BACK)], [Down(seen=5.0, back=6.0)]),
    "cut-before-any-carrier": ([(5.0, CUT), (5.1, GONE)], [Down(cut=5.0, seen=5.1)]),
    "told-twice": ([(1.0, BACK), (5.0, CUT), (5.1, GONE), (5.2, GONE)], [Down(cut=5.0, seen=5.1)]),
}


@pytest.mark.parametrize(("changes", "periods"), CASES.values(), ids=CASES)
def test_periods(changes: list[tuple[float, str]], periods: list[Down]) -> None:
    other = link(3.0, "n1", up=False, seen=0.1)
    records = parse([*(EVENTS[what](t) for t, what in changes), *other])
    assert downs(records, "n0") == periods


def test_bounds_of_a_period() -> None:
    down = Down(cut=5.0, seen=5.1, restored=7.0, back=7.3)
    assert (down.begin, down.end) == (5.0 - CLOCK_SLACK, 7.3 + CLOCK_SLACK)
    assert down.surely == (5.1, 7.0)
    assert Down(cut=5.0).end == inf
    assert Down(cut=5.0).surely is None
    assert Down(cut=5.0, restored=5.2).end == 5.2 + CLOCK_SLACK
    assert Down(cut=5.0, seen=5.1, restored=5.2).end == inf


@pytest.mark.parametrize(
    ("first", "last", "maybe", "surely"),
    [
        (4.0, 4.9, False, False),
        (4.0, 5.0, True, False),
        (5.2, 6.0, True, True),
        (6.9, 7.1, True, False),
        (7.2, 7.3, True, False),
        (7.4, 7.5, False, False),
        (4.0, 9.0, True, False),
    ],
)
def test_a_message_sent_in_an_interval(first: float, last: float, maybe: bool, surely: bool) -> None:
    periods = [Down(cut=5.0, seen=5.1, restored=7.0, back=7.3)]
    assert (down_at(periods, first, last), surely_down(periods, first, last)) == (maybe, surely)


def test_state_at() -> None:
    bond = event(5.3, "guest", "bond", bond="b0", active="n1")
    records = parse([EVENTS[BACK](1.0), EVENTS[CUT](5.0), EVENTS[GONE](5.1), bond])
    assert state_at(records, 0.5) == "no link was touched and no carrier change was seen"
    assert state_at(records, 2.0) == "n0 carrier up"
    assert state_at(records, 5.05) == "n0 link down since 5.000 s, carrier up"
    assert state_at(records, 6.0) == "n0 link down since 5.000 s, carrier down; b0 active n1"


def test_a_cut_that_nobody_in_the_guest_can_see_counts_by_its_own_time() -> None:
    cut = event(3.0, "inject", "link", nic="n0", state="down", by="filter", way="tx")
    mended = event(4.0, "inject", "link", nic="n0", state="up", by="filter", way="tx")
    records = parse(run(cut, mended))
    (period,) = downs(records, "n0", "tx")
    assert period.surely == (3.0, 4.0)
    assert downs(records, "n0", "rx") == []
    assert downs(records, "n0") == []


def test_a_cable_is_cut_both_ways_and_the_guest_must_have_seen_it() -> None:
    records = parse(run(event(3.0, "inject", "link", nic="n0", state="down", by="cable", way="both")))
    assert [period.surely for period in downs(records, "n0", "rx")] == [None]
