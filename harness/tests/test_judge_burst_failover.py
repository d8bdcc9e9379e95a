"""burst_failover: how long a bond takes, in seconds and lines, to carry each line of a panic again after a slave has lost its cable in it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.tests.judge_evidence import PANIC_LINES, console, crashed, event, link, plan, run

EXPECT = {"burst_failover": {"bond": "b0", "cut": "n0", "to": "h", "within": 0.01}}
CUT = 10.0042  # after the fifth line: lines are a millisecond apart, each frame half a millisecond later
EVERY = range(len(PANIC_LINES))


def burst(came: Iterable[int], over: str = "n1", cut: float = CUT) -> list[Event]:
    """A panic of which these lines came: over n0 until the cut, over `over` afterwards."""
    numbers = set(came)
    events = crashed([line for number, line in enumerate(PANIC_LINES) if number in numbers])
    frames, arrivals = ([e for e in events if e["kind"] == kind] for kind in ("frame", "rx"))
    for number, frame, arrival in zip(sorted(numbers), frames, arrivals, strict=True):
        frame["t"] = arrival["t"] = round(10.0005 + number * 0.001, 6)
        frame["nic"] = "n0" if frame["t"] < cut else over
    return [*events, *link(cut, "n0", up=False)]


def checked(events: list[Event]) -> CheckResult:
    return judge(plan(EXPECT, stack="kernel", bond="active-backup", crash=True), events).checks[0]


CASES: dict[str, tuple[list[Event], bool, bool | None, str]] = {
    "never": (burst(range(4)), True, False, "never: 7 lines lost"),
    "at once": (burst(EVERY), True, True, "no line was lost"),
    "after two lines": (burst([0, 1, 2, 3, 6, 7, 8, 9, 10]), True, True, "0.002 s and 2 lines until b0 carried each line again, 2 lost"),
    "by turns": (burst([0, 1, 2, 3, 5, 7, 9]), True, False, "never: 4 lines lost"),
    "by turns, and the last one came": (burst([0, 1, 2, 3, 4, 6, 8, 10]), True, False, "never: 3 lines lost"),
    "lost before the cut is not its doing": (burst([0, 2, 3, *range(4, 11)]), True, True, "no line was lost"),
    "nothing over it before": (burst(EVERY, cut=9.95), False, None, "no line of the panic left over n0 before it was cut"),
    "all sent before": (burst(EVERY, cut=10.4), False, None, "every line had been sent"),
    "never cut": (crashed(PANIC_LINES), False, None, "was not cut after the crash was asked for"),
    "cut before the crash": ([*burst(EVERY, cut=9.0)], False, None, "was not cut after the crash was asked for"),
    "no panic": (run(console(["[    1.000000] hello"])), False, None, "the console shows no panic"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "reached", "held", "said"), CASES.values(), ids=CASES)
def test_burst_failover(events: list[Event], reached: bool, held: bool | None, said: str) -> None:
    check = checked(events)
    assert (check.check, check.reached, check.held) == ("burst_failover", reached, held), check
    assert said in check.why


def test_too_late_is_not_held() -> None:
    """Ten milliseconds are allowed; the cut is noticed 12 ms late."""
    slow = burst([0, 1, 2, 3, 9, 10])
    for each in slow:
        if each["kind"] in ("frame", "rx") and each["t"] > 10.009:
            each["t"] += 0.02
    check = checked(slow)
    assert check.held is False
    assert check.numbers["lost"] == 5


def test_the_figures_are_numbers() -> None:
    check = checked(burst([0, 1, 2, 3, 6, 7, 8, 9, 10]))
    assert check.numbers == {"lost": 2, "frames_over_others": 5, "seconds": 0.0023, "lines": 2}
    assert check.findings == ("lost since the cut: lines 5-6",)


def test_a_cut_that_is_no_event_of_the_panic() -> None:
    other = [*burst(EVERY), event(10.001, "inject", "link", nic="n1", state="down")]
    assert checked(other).held
