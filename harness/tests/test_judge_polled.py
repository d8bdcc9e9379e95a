"""polled: the queue stopped, netpoll polled and tried again, and nothing was dropped for it."""

from __future__ import annotations

from typing import Any

import pytest

from guest.netpoll.skbuff import DropReason
from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.judge_evidence import event, plan, run, rx, send
from harness.tests.judge_strange import counters

SENT = [send(30), rx(range(30))]
STOPPED = counters(sent=30, retried=5, polled=7, dropped=0, dev_tx_stopped=5, dev_tx_woken=5)


def given(kind: str, why: DropReason, seq: int = 7) -> Event:
    return event(1.05, "guest", kind, endpoint="g", label="g", seq=seq, why=why.value)


CASES: dict[str, tuple[list[Event], bool, bool | None, str]] = {
    "held": (run(*SENT, STOPPED), True, True, "stopped 5 times; 5 messages left after 7 polls"),
    "at-the-limit": (run(*SENT, counters(sent=30, retried=3, polled=3, dev_tx_stopped=1)), True, True, "3 messages left"),
    "never-stopped": (run(*SENT, counters(sent=30, retried=0, polled=0)), False, None, "never stopped in 30 sends"),
    "never-stopped-though-polled": (
        run(*SENT, counters(sent=30, retried=9, polled=9, dev_tx_stopped=0)), False, None, "never stopped"),
    "too-few": (
        run(*SENT, counters(sent=30, retried=2, polled=9, dev_tx_stopped=2)), False, None, "2 sends of g polled and tried"),
    "retried-and-never-polled": (
        run(*SENT, counters(sent=30, retried=9, polled=0, dev_tx_stopped=2)), False, None, "0 sends of g polled"),
    "never-told": (run(*SENT), False, None, "counters of g were never told"),
    "told-of-another": (run(*SENT, counters(endpoint="h", sent=9, retried=9, polled=9, dev_tx_stopped=9)), False, None,
                        "counters of g were never told"),
    "the-last-word-counts": (
        run(*SENT, counters(1.0, sent=3, retried=0, polled=0), STOPPED), True, True, "stopped 5 times"),
    "dropped-for-it": (
        run(send(30), rx([*range(7), *range(8, 30)]), given("dropped", DropReason.RETRIES), STOPPED), True, False,
        "stayed stopped through all retries: 7 of g"),
    "queued-for-it": (
        run(*SENT, given("queued", DropReason.RETRIES), STOPPED), True, False, "stayed stopped through all retries: 7 of g"),
    "queued-for-another-reason": (run(*SENT, given("queued", DropReason.RECURSION), STOPPED), True, True, "stopped 5 times"),
    "lost-without-a-word": (
        run(send(30), rx([*range(7), *range(8, 30)]), STOPPED), True, False, "lost although the queue was polled open: 7 of g"),
    "damaged-on-the-way": (
        run(*SENT[:1], rx(range(29)), event(1.3, "host", "rx", endpoint="h", seq=29, ok=False, why="corrupt"), STOPPED),
        True, False, "lost although the queue was polled open: 29 of g"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "reached", "held", "words"), CASES.values(), ids=CASES)
def test_polled(events: list[Event], reached: bool, held: bool | None, words: str) -> None:
    check = judge(plan({"polled": {"by": "g", "at_least": 3}}), events).checks[0]
    assert (check.reached, check.held) == (reached, held), check
    assert words in check.why


def test_findings_name_what_was_given_up_and_what_was_lost() -> None:
    events = run(send(30), rx(range(20)), given("dropped", DropReason.RETRIES, 25), STOPPED)
    check = judge(plan({"polled": {"by": "g"}}), events).checks[0]
    assert check.findings == (
        "dropped because the queue stayed stopped: 25 of g",
        "sent and never arrived: 20-29 of g",
    )
    assert (check.numbers["given_up"], check.numbers["lost"], check.numbers["polled"]) == (1, 10, 7)


@pytest.mark.parametrize("values", [None, 7, {"sent": "many"}, {"sent": True}, {"sent": 1.5}])
def test_counters_that_are_no_numbers_are_no_evidence(values: Any) -> None:
    events = run(*SENT, event(9.0, "guest", "counters", endpoint="g", values=values))
    verdict = judge(plan({"polled": {"by": "g"}}), events)
    assert verdict.word == "ERROR"
    assert "whole numbers by name" in verdict.why
