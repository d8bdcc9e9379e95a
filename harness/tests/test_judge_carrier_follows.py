"""carrier_follows: a guest that sees every change of a link, one that sees none, and changes too short to tell."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.tests.judge_evidence import event, link, plan, run

UP = event(0.5, "guest", "carrier", nic="n0", up=True)
LATER = event(30.0, "guest", "carrier", nic="n1", up=True)  # the run goes on for a while


def follows(*events: Event | list[Event], cuts: tuple[str, ...] = ("down", "up"), **keys: Any) -> CheckResult:
    expect = {"carrier_follows": {"link": "n0", **keys}}
    verdict = judge(plan(expect, cuts=cuts), run(UP, *events, LATER))
    (check,) = [check for check in verdict.checks if check.check == "carrier_follows"]
    return check


CASES: dict[str, tuple[list[Event], dict[str, Any], bool, bool | None, str]] = {
    "both-seen": (link(2, "n0", False, 0.1) + link(8, "n0", True, 1.5), {}, True, True, "2 changes: link down at 2.000 s: seen after 0.10 s"),
    "before-qemu-answered": (link(2, "n0", False, -0.01) + link(8, "n0", True, 0), {}, True, True, "seen after 0.00 s"),
    "down-not-seen": (link(2, "n0", False) + link(8, "n0", True, 0.1), {}, True, False, "link down at 2.000 s: not seen in 6.0 s"),
    "up-not-seen": (link(2, "n0", False, 0.1) + link(8, "n0", True), {}, True, False, "link up at 8.000 s: not seen in"),
    "another-nics-carrier": ([*link(2, "n0", False), event(2.1, "guest", "carrier", nic="n1", up=False), *link(8, "n0", True, 0.1)],
        {}, True, False, "link down at 2.000 s: not seen"),
    "too-short-to-tell": (link(2, "n0", False) + link(4, "n0", True, 0.1), {}, False, None, "too short to tell: link down at 2.000 s: not seen in 2.0 s, and 4 s"),
    "short-but-seen": (link(2, "n0", False, 0.1) + link(2.5, "n0", True, 0.1), {}, True, True, "2 changes"),
    "asked-for-less": (link(2, "n0", False) + link(4, "n0", True, 0.1), {"within": 1}, True, False, "not seen in 2.0 s"),
    "never-changed": ([], {}, False, None, "the link of n0 was never changed"),
    "unseen-as-known": (link(2, "n0", False) + link(8, "n0", True), {"seen": False}, True, True, "not seen in 6.0 s"),
    "unseen-is-over": (link(2, "n0", False, 1) + link(8, "n0", True, 1), {"seen": False}, True, False, "seen after 1.00 s"),
    "one-short-one-wrong": (link(2, "n0", False) + link(3, "n0", True), {}, True, False, "link up at 3.000 s: not seen in"),
    "unseen-once-is-over": (link(2, "n0", False, 0.5) + link(3, "n0", True), {"seen": False}, True, False, "seen after 0.50 s"),
    "unseen-but-too-short": (link(2, "n0", False) + link(3, "n0", True, 0.1)[:1] + link(4, "n0", False), {"seen": False}, False, None, "too short to tell"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "keys", "reached", "held", "why"), CASES.values(), ids=CASES)
def test_check(events: list[Event], keys: dict[str, Any], reached: bool, held: bool | None, why: str) -> None:
    check = follows(events, **keys)
    assert (check.reached, check.held) == (reached, held), check.why
    assert why in check.why


def test_numbers_for_the_table() -> None:
    check = follows(link(2, "n0", False, 0.25), link(8, "n0", True, 1.5))
    assert check.numbers == {"changes": 2, "seen": 2, "slowest": 1.5}
    assert follows(link(2, "n0", False), link(8, "n0", True)).numbers == {"changes": 2, "seen": 0}


def test_a_crash_ends_the_time_in_which_it_could_be_seen() -> None:
    crash = event(3.0, "inject", "crash", how="sysrq-c")
    check = follows(link(2, "n0", False), [crash, event(3.5, "guest", "carrier", nic="n0", up=False)], cuts=("down",))
    assert check.reached is False
