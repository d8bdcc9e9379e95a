"""A cut in the middle of a panic: reached or not, how late, and which lost lines it explains."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.plan.model import Plan
from harness.tests.judge_evidence import PANIC_LINES, console, datagrams, event, plan, run

N = len(PANIC_LINES)  # 11 lines, a millisecond apart from 10.0 s; each on the wire half a millisecond later


def cut_plan(line: int = 4, seen: str = "console", mended: int | None = None, excused: bool = True) -> Plan:
    """n0 is cut after this line, and put back after `mended`."""
    steps = [{"inject": {"link": "n0", "state": "down", "after": {"line": line, "seen": seen}}}]
    if mended is not None:
        steps.append({"inject": {"link": "n0", "state": "up", "after": {"line": mended, "seen": "console"}}})
    made = plan({"parity": {"to": "h", **({"except_cut": "n0"} if excused else {})}}, stack="kernel", crash=True)
    data = made.model_dump(by_alias=True)
    data["scenario"]["steps"] = [*steps, {"crash": {"how": "sysrq-c"}}]
    return Plan.model_validate(data, by_name=True, by_alias=True)


def done(step: int, line: int, state: str, late: float = 0.0003, pace: float = 0.001) -> list[Event]:
    """What the conductor writes when the injection of `step` was made `late` seconds after the line."""
    line_t = round(10.0 + (line - 1) * pace, 6)
    t = round(line_t + late, 6)
    return [
        event(t, "inject", "link", nic="n0", state=state),
        event(t, "inject", "timed", step=step, line=line, seen="console", nic="n0", line_t=line_t, noticed=line_t),
    ]


def crash(*more: list[Event] | Event, pace: float = 0.001) -> list[Event]:
    return run(event(9.9, "inject", "crash", how="sysrq-c"), console(PANIC_LINES, step=pace), *more)


def wire(*places: int, pace: float = 0.001) -> list[Event]:
    """These lines (from 1) on the wire, each at its time."""
    return [each for place in places for each in datagrams([PANIC_LINES[place - 1]], start=10.0 + (place - 1) * pace)]


def checks(planned: Plan, events: list[Event]) -> dict[str, CheckResult]:
    return {check.check: check for check in judge(planned, events).checks}


def test_what_is_lost_after_the_cut_is_the_cuts() -> None:
    found = checks(cut_plan(), crash(done(1, 4, "down", late=0.0007), wire(1, 2, 3, 4)))
    assert found["parity"].held, found["parity"]
    assert "7 lines lost, all while the link of n0 was down; 4 came" in found["parity"].why
    assert found["timed"].why == "done at 10.004 s, 0.7 ms after line 4; 0 lines passed meanwhile"
    assert found["timed"].numbers["late_ms"] == 0.7
    assert found["timed"].numbers["left"] == N - 4


def test_how_many_lines_passed_before_the_cut() -> None:
    found = checks(cut_plan(), crash(done(1, 4, "down", late=0.0025), wire(1, 2, 3, 4, 5, 6)))
    assert found["timed"].numbers["passed"] == 2
    assert found["parity"].held


LOST: dict[str, tuple[list[Event], str]] = {
    "a line before the cut": (wire(1, 3, 4, 5, 6), "lost though the link was up: lost: line 2 of 11"),
    "a frame long after the cut": (wire(1, 2, 3, 4, 5, 6, 9), "a frame left n0 at"),
    "a line twice": (wire(1, 2, 2, 3, 4, 5, 6), "repeated: line 2"),
}


@pytest.mark.parametrize(("frames", "words"), LOST.values(), ids=LOST)
def test_what_a_cut_does_not_excuse(frames: list[Event], words: str) -> None:
    found = checks(cut_plan(line=6), crash(done(1, 6, "down", late=0.0007), frames))
    assert found["parity"].reached
    assert not found["parity"].held
    assert any(words in said for said in found["parity"].findings), found["parity"].findings


def test_a_panic_goes_on_when_the_link_is_back() -> None:
    events = crash(done(1, 4, "down", 0.0007), done(2, 8, "up", 0.0003), wire(1, 2, 3, 4, 8, 9, 10, 11))
    found = checks(cut_plan(mended=8), events)
    assert found["parity"].held, found["parity"]
    assert found["parity"].numbers["lost"] == 3


def test_a_queue_that_stays_dead_has_no_excuse() -> None:
    """Lines a tenth of a second apart: what the console shows after the link is back is long after it."""
    cut, back = done(1, 4, "down", 0.0007, pace=0.1), done(2, 8, "up", 0.0003, pace=0.1)
    found = checks(cut_plan(mended=8), crash(cut, back, wire(1, 2, 3, 4, pace=0.1), pace=0.1))
    assert not found["parity"].held
    assert "lost though the link was up: lost: lines 9-11 of 11" in found["parity"].why


NOT_REACHED: dict[str, tuple[dict[str, Any], list[Event], str]] = {
    "the panic has fewer lines": ({"line": 30}, crash(wire(*range(1, 12))), "the panic has 11 lines on the console, so line 30 never came"),
    "nothing was done": ({}, crash(wire(*range(1, 12))), "line 4 came at 10.003 s, but nothing was done"),
    "too late": ({}, crash(done(1, 4, "down", late=0.5), wire(*range(1, 12))), "the panic was over"),
    "fewer frames": ({"seen": "wire", "line": 5}, crash(wire(1, 2)), "the panic has 2 lines on the wire of n0"),
}  # fmt: skip


@pytest.mark.parametrize(("how", "events", "words"), NOT_REACHED.values(), ids=NOT_REACHED)
@pytest.mark.parametrize("excused", [True, False])
def test_a_moment_that_never_came_is_inconclusive(
    how: dict[str, Any], events: list[Event], words: str, excused: bool
) -> None:
    verdict = judge(cut_plan(**how, excused=excused), events)
    assert verdict.word == "INCONCLUSIVE"
    assert words in verdict.why


def test_a_link_put_up_before_it_was_cut_is_no_mended_link() -> None:
    events = crash(done(2, 4, "up", 0.0003), done(1, 6, "down", 0.0003), wire(1, 2, 3, 4, 5, 6))
    verdict = judge(cut_plan(line=6, mended=4), events)
    assert (verdict.word, verdict.why) == ("INCONCLUSIVE", "timed: the link of n0 was up already")


def test_nothing_lost_means_that_nothing_was_sent_without_a_link() -> None:
    found = checks(cut_plan(), crash(done(1, 4, "down", late=0.0007), wire(*range(1, 12))))
    assert not found["parity"].reached


def test_without_the_excuse_a_cut_panic_is_not_complete() -> None:
    verdict = judge(cut_plan(excused=False), crash(done(1, 4, "down", late=0.0007), wire(1, 2, 3, 4)))
    assert verdict.word == "FAIL"
