"""A guest whose agent falls silent before its time: a kernel that hangs is a failure with a place, all else the testbed's error."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.judge_evidence import PANIC_LINES, console, crashed, event, plan, run, rx, send

SPIN = "native_queued_spin_lock_slowpath+0x30"
STACK = ["_raw_spin_lock_irqsave+0x39", "cp_start_xmit+0x2d [8139cp]", "netpoll_send_skb+0x178"]
SILENT = event(20.0, "run", "silent", what="the guest's agent did not answer `kmsg_send` within 15 s")


def looks(*where: str | None, cpu: int = 0, halted: bool = False) -> list[Event]:
    """One look each tenth of a second, the stack with the last."""
    keys: dict[str, Any] = {"why": "the agent is silent", "cpu": cpu, "rip": "0x7f0000001000", "halted": halted}
    return [
        event(20.1 + n / 10, "qmp", "stuck", sample=n, **keys, where=name, stack=STACK if n == len(where) - 1 else [])
        for n, name in enumerate(where)
    ]


WORDS: dict[str, tuple[list[Event], str]] = {
    "spins-in-the-kernel": (looks(SPIN, SPIN, SPIN), "FAIL"),
    "loops-in-the-kernel": (looks(SPIN, "native_io_apic_read+0x2f", SPIN), "FAIL"),
    "one-of-two-cpus-spins": (looks(SPIN, SPIN) + looks("default_idle+0xf", "default_idle+0xf", cpu=1, halted=True), "FAIL"),
    "idles": (looks("default_idle+0xf", "default_idle+0xf", halted=True), "ERROR"),
    "agent-works-in-user-space": (looks(SPIN, None, SPIN), "ERROR"),
    "looked-at-once": (looks(SPIN), "ERROR"),
    "never-looked-at": ([], "ERROR"),
    "still-prints": (console(["a line, not long ago"], start=18.5) + looks(SPIN, SPIN), "ERROR"),
    "fell-silent-long-ago": (console(["eth0: link down"], start=17.0) + looks(SPIN, SPIN), "FAIL"),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "word"), WORDS.values(), ids=WORDS)
def test_whose_fault_a_silence_is(seen: list[Event], word: str) -> None:
    delivered = {"delivered": {"from": "g", "to": "h"}}
    verdict = judge(plan(delivered, cuts=["down"]), run(SILENT, seen))
    assert verdict.word == word
    if word == "ERROR":
        assert verdict.why == SILENT["what"]


def test_a_hang_is_named_by_function() -> None:
    verdict = judge(
        plan({"delivered": {"from": "g", "to": "h"}}), run(send(10), rx(range(10)), SILENT, looks(SPIN, SPIN))
    )
    assert verdict.why == (
        "alive: the guest hangs since 20.000 s: the guest's agent did not answer `kmsg_send` within 15 s; CPU 0 was at "
        f"{SPIN} each of 2 times; called from {' <- '.join(STACK)}"
    )


def test_an_error_of_the_testbed_counts_more_than_a_hang() -> None:
    broken = event(21.0, "run", "error", what="QEMU ended by itself", hint="")
    assert judge(plan({"delivered": {"from": "g", "to": "h"}}), run(SILENT, looks(SPIN, SPIN), broken)).word == "ERROR"


def test_a_console_that_hangs_after_the_serial_one_is_told_with_its_place() -> None:
    """As consoles with a thread of their own do: the serial line is complete, the wire is not."""
    before_end = [each for each in crashed(PANIC_LINES[:4]) if each["kind"] != "end"]
    verdict = judge(
        plan({"parity": {"to": "h"}}, stack="kernel", crash=True),
        [*before_end, *looks(SPIN, SPIN), event(30, "run", "end")],
    )
    (check,) = [check for check in verdict.checks if check.check == "parity"]
    assert verdict.word == "FAIL"
    assert any(f"CPU 0 was at {SPIN} each of 2 times" in finding for finding in check.findings)
