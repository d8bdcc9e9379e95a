"""uninterrupted: what a crashed context's interrupts were set to, and whether one came."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.judge_evidence import event, plan, run, send


def look(t: float, told: int = 3, chip: bool = False, bus: bool = False, nic: str = "n0") -> Event:
    return event(t, "guest", "interrupts", nic=nic, chip=chip, bus=bus, told=told)


SENT = send(10, start=1.0)
CASES: dict[str, tuple[list[Event], bool, bool | None, str]] = {
    "none": ([look(0.5), *SENT, look(3.0)], True, True, "10 messages sent, and of n0 no interrupt was enabled, and none came"),
    "one came": ([look(0.5), *SENT, look(3.0, told=4)], True, False, "1 interrupt of n0 came between 0.500 s and 3.000 s"),
    "enabled at the chip": ([look(0.5), *SENT, look(3.0, chip=True)], True, False, "enabled at the chip at 3.000 s"),
    "enabled at the bus": ([look(0.5, bus=True), *SENT, look(3.0)], True, False, "enabled at the bus at 0.500 s"),
    "at both": ([look(0.5), *SENT, look(3.0, chip=True, bus=True)], True, False, "enabled at the chip and the bus"),
    "in between": ([look(0.5), *SENT, look(2.0, chip=True), look(3.0)], True, False, "at the chip at 2.000 s"),
    "never read": (SENT, False, None, "the interrupts of n0 were not read before and after"),
    "read once": ([look(0.5), *SENT], False, None, "not read before and after"),
    "another NIC's": ([look(0.5, nic="n1"), *SENT, look(3.0, nic="n1")], False, None, "of n0 were not read"),
    "nothing sent": ([look(2.0), *SENT, look(3.0)], False, None, "g sent nothing while"),
    "a count that never counted": ([look(0.5, told=0), *SENT, look(3.0, told=0)], False, None, "its count says nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "reached", "held", "said"), CASES.values(), ids=CASES)
def test_uninterrupted(events: list[Event], reached: bool, held: bool | None, said: str) -> None:
    check = judge(plan({"uninterrupted": {"by": "g"}}, stack="pmd"), run(events)).checks[0]
    assert (check.check, check.reached, check.held) == ("uninterrupted", reached, held), check
    assert said in check.why


def test_of_a_bond_each_slave_counts() -> None:
    looks = [look(0.5), look(0.5, nic="n1"), *SENT, look(3.0), look(3.0, nic="n1", told=5)]
    check = judge(plan({"uninterrupted": {"by": "g"}}, stack="pmd", bond="balance-rr"), run(looks)).checks[0]
    assert (check.reached, check.held) == (True, False)
    assert check.why == "2 interrupts of n1 came between 0.500 s and 3.000 s"
    assert check.numbers == {"sent": 10, "came": 2}


@pytest.mark.parametrize("wrong", [{"chip": 0}, {"bus": None}, {"told": "3"}, {"told": True}], ids=str)
def test_what_is_no_look_is_an_error(wrong: dict[str, Any]) -> None:
    verdict = judge(plan({"uninterrupted": {"by": "g"}}, stack="pmd"), run({**look(0.5), **wrong}))
    assert verdict.word == "ERROR"
