"""queue_stopped: what was seen of a TX queue, and whether it was woken again."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.judge_evidence import event, plan, run


def queue(*changes: tuple[float, str], src: str = "qmp", by: str = "kernel", nic: str = "n0") -> list[Event]:
    return [event(t, src, "queue", nic=nic, state=state, by=by, why="driver") for t, state in changes]


S, W = "stopped", "woken"
CASES: dict[str, tuple[dict[str, Any], list[Event], bool, bool | None, str]] = {
    "seen": ({}, queue((1.0, S), (1.5, W)), True, True, "it stops 1 time, first at 1.000 s"),
    "never": ({}, [], False, None, "was seen stopped 0 times, need 1"),
    "too few": ({"at_least": 2}, queue((1.0, S), (1.5, W)), False, None, "was seen stopped 1 time, need 2"),
    "not woken, nobody asks": ({}, queue((1.0, S)), True, True, "after the last time is never woken"),
    "not woken": ({"woken": True}, queue((1.0, S), (1.2, W), (1.5, S)), True, False, "is never woken"),
    "woken": ({"woken": True}, queue((1.0, S), (1.2, W)), True, True, "is woken at 1.200 s"),
    "another NIC's": ({}, queue((1.0, S), nic="n1"), False, None, "0 times"),
    "our stack's, where the kernel's is asked for": ({}, queue((1.0, S), src="guest", by="netpoll"), False, None, "0 times"),
    "our stack's": ({"by": "netpoll"}, queue((1.0, S), src="guest", by="netpoll"), True, True, "our stack's device"),
    "our stack's at the host": ({"by": "netpoll"}, queue((1.0, S), src="host", by="netpoll"), False, None, "0 times"),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "events", "reached", "held", "said"), CASES.values(), ids=CASES)
def test_queue_stopped(keys: dict[str, Any], events: list[Event], reached: bool, held: bool | None, said: str) -> None:
    check = judge(plan({"queue_stopped": {"nic": "n0", **keys}}), run(events)).checks[0]
    assert (check.check, check.reached, check.held) == ("queue_stopped", reached, held), check
    assert said in f"{check.why} {check.about}"


def test_how_long_it_stopped_is_a_number() -> None:
    check = judge(plan({"queue_stopped": {"nic": "n0"}}), run(queue((1.0, S), (1.25, W), (2.0, S), (2.1, W)))).checks[0]
    assert check.numbers == {"stops": 2, "longest_ms": 250.0}
    assert check.findings[0] == "stopped at 1.000 s (driver)"


@pytest.mark.parametrize("state", ["", None, "half"])
def test_a_state_of_no_kind_is_an_error(state: object) -> None:
    verdict = judge(
        plan({"queue_stopped": {"nic": "n0"}}), run(event(1.0, "qmp", "queue", nic="n0", state=state, by="kernel"))
    )
    assert verdict.word == "ERROR"
    assert "state" in verdict.why
