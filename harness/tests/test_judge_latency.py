"""Late is not lost: delays by printk's stamps, their distribution, and the check that bounds them."""

from __future__ import annotations

import pytest

from harness.judge.judge import judge
from harness.judge.latency import percentile
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.plan.model import Plan
from harness.tests.judge_evidence import (
    PANIC_LINES,
    console,
    datagrams,
    event,
    frame,
    kmsg,
    numbered,
    plan,
    run,
    rx,
    send,
)


@pytest.mark.parametrize(
    ("values", "percent", "rank"),
    [([1.0], 50, 1.0), ([3.0, 1.0, 2.0], 50, 2.0), ([*map(float, range(1, 101))], 99, 99.0), ([1.0, 9.0], 99, 9.0)],
)
def test_percentiles_are_values_that_were_seen(values: list[float], percent: int, rank: float) -> None:
    assert percentile(values, percent) == rank


def found(planned: Plan, events: list[Event], name: str) -> CheckResult:
    return next(check for check in judge(planned, events).checks if check.check == name)


LINES = numbered(10)  # a millisecond apart by their stamps


def late(by: float, since: int = 5, most: float = 0.5, at_least: float = 0.0) -> CheckResult:
    """Lines from `since` on come that much later."""
    planned = plan({"latency": {"from": "g", "to": "h", "most": most, "at_least": at_least}}, stack="kernel")
    wire = [*datagrams(LINES[:since], start=2.0), *datagrams(LINES[since:], start=2.0 + since * 0.001 + by)]
    return found(planned, run(kmsg(10), console(LINES, start=2.0), wire), "latency")


def test_a_quick_way_is_in_time() -> None:
    check = late(0.0)
    assert check.held, check
    assert check.numbers == {"p50_ms": 0.5, "p99_ms": 0.5, "max_ms": 0.5}


def test_what_takes_too_long_is_late() -> None:
    check = late(0.7)
    assert not check.held
    assert check.why == "the longest is 700.5 ms, allowed are 500 ms"
    assert check.numbers["p50_ms"] == 0.5


def test_a_delay_that_was_not_provoked_is_inconclusive() -> None:
    check = late(0.1, at_least=0.2)
    assert not check.reached
    assert check.why == "no message took 0.2 s: the longest took 100.5 ms"


def test_nothing_that_came_has_no_latency() -> None:
    planned = plan({"latency": {"from": "g", "to": "h", "most": 1}}, stack="kernel")
    assert not found(planned, run(kmsg(10), console(LINES, start=2.0)), "latency").reached


def test_datagrams_count_from_the_end_of_their_range() -> None:
    planned = plan({"latency": {"from": "g", "to": "h", "most": 0.5}})
    check = found(planned, run(send(10), rx(range(10), start=1.6)), "latency")
    assert check.numbers["max_ms"] == pytest.approx(598, abs=1)
    assert not check.held


def test_a_late_line_of_a_panic_is_told_apart_from_a_lost_one() -> None:
    asked = event(9.9, "inject", "crash", how="sysrq-c")
    wire = [*datagrams(PANIC_LINES[:4]), *datagrams(PANIC_LINES[5:], start=12.0)]
    check = found(
        plan({"parity": {"to": "h"}}, stack="kernel", crash=True), run(asked, console(PANIC_LINES), wire), "parity"
    )
    assert not check.held
    assert (check.numbers["lost"], check.numbers["late"]) == (1, 6)
    assert any("late, not lost: lines 6-11 came up to 1.996 s after being printed" in said for said in check.findings)


def test_late_lines_alone_are_a_complete_panic() -> None:
    asked = event(9.9, "inject", "crash", how="sysrq-c")
    events = run(asked, console(PANIC_LINES), datagrams(PANIC_LINES, start=12.0))
    check = found(plan({"parity": {"to": "h"}}, stack="kernel", crash=True), events, "parity")
    assert check.held
    assert check.numbers["late"] == len(PANIC_LINES)


FOREIGN = frame(3.0, smac="02:00:00:00:00:99", ethertype=0x0806, sip=None, sport=None, dip=None, dport=None)


def test_a_frame_from_an_unknown_mac_is_seen_whatever_its_kind() -> None:
    verdict = judge(plan({"delivered": {"from": "g", "to": "h"}}), run(send(10), rx(range(10)), FOREIGN))
    assert verdict.word == "FAIL"
    assert "macs: a frame of type 0x0806 over n0 at 3.000 s comes from 02:00:00:00:00:99" in verdict.why


def test_an_invariant_that_the_testcase_lets_off_is_told_and_does_not_fail() -> None:
    planned = plan({"delivered": {"from": "g", "to": "h"}})
    data = planned.model_dump(by_alias=True)
    data["scenario"]["allow"] = [{"invariant": "macs", "reason": "a bridge in the guest"}]
    allowed = Plan.model_validate(data, by_name=True, by_alias=True)
    verdict = judge(allowed, run(send(10), rx(range(10)), FOREIGN))
    assert verdict.word == "PASS", verdict.why
    (macs,) = [check for check in verdict.checks if check.check == "macs"]
    assert macs.why.startswith("allowed (a bridge in the guest): a frame of type 0x0806")
    assert macs.findings
