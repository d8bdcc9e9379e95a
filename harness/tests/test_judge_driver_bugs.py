"""What a driver is known for explains a failure only with its own sign, and only what that costs."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.plan.drivers import DRIVER_BUGS, driver_bugs
from harness.tests.judge_evidence import PANIC_LINES, console, crashed, event, frame, kmsg, numbered, plan

PARITY = {"parity": {"to": "h"}}
POLLS = [
    "__ioapic_read_entry+0x34",
    "__synchronize_hardirq+0x7c",
    "synchronize_irq+0x35",
    "__disable_irq_nosync+0x60",
    "cp_poll_controller+0x1e [8139cp]",
    "netpoll_poll_dev+0xb8",
]
OTHER = [
    "__ioapic_read_entry+0x34",
    "netpoll_poll_dev+0xb8",
    "cp_poll_controller+0x1e [8139cp]",
    "synchronize_irq+0x35",
]


def look(stack: list[str], where: str = "native_io_apic_read+0x2d") -> Event:
    keys: dict[str, Any] = {"cpu": 0, "rip": "0x1", "halted": False}
    return event(13.0, "qmp", "stuck", why="no line", sample=4, where=where, stack=stack, **keys)


def queue(why: str) -> Event:
    return event(13.0, "qmp", "queue", nic="n0", state="stopped", by="kernel", queue=0, why=why, since=0.0)


def cut_short(*told: Event) -> list[Event]:
    """A panic whose lines end in the middle, on the console and on the wire."""
    return [*crashed(PANIC_LINES[:3], PANIC_LINES[:4])[:-1], *told, event(20.0, "run", "end")]


@pytest.mark.parametrize(
    ("model", "events", "word"),
    [
        pytest.param("rtl8139", cut_short(look(POLLS)), "KNOWN_BUG", id="hangs in the driver's poll_controller"),
        pytest.param("tulip", cut_short(look(POLLS)), "FAIL", id="of another driver"),
        pytest.param("rtl8139", cut_short(look(OTHER)), "FAIL", id="leftovers on the stack"),
        pytest.param("rtl8139", cut_short(), "FAIL", id="nobody saw where"),
        pytest.param("usb-net", cut_short(queue("driver")), "KNOWN_BUG", id="the ring stays full"),
        pytest.param("usb-net", cut_short(queue("stack")), "FAIL", id="byte queue limits"),
        pytest.param("e1000", cut_short(look(POLLS), queue("driver")), "FAIL", id="a driver that nothing is known of"),
        pytest.param(
            "rtl8139", cut_short(look(POLLS), frame(10.0, sip="10.9.9.9")), "FAIL", id="a stranger's frame besides"
        ),
    ],
)
def test_a_failure_in_a_panic(model: str, events: list[Event], word: str) -> None:
    made = plan(PARITY, stack="kernel", crash=True).model_copy(update={"driver_bugs": driver_bugs([model])})
    assert judge(made, events).word == word


def test_what_holds_is_not_touched() -> None:
    made = plan(PARITY, stack="kernel", crash=True).model_copy(update={"driver_bugs": DRIVER_BUGS})
    told = crashed(PANIC_LINES)
    assert judge(made, [*told[:-1], look(POLLS), told[-1]]).word == "PASS"


def test_a_message_that_was_lost_before_the_panic_is_news() -> None:
    expect = {"delivered": {"from": "g", "to": "h"}}
    made = plan(PARITY, expect, stack="kernel", crash=True).model_copy(update={"driver_bugs": DRIVER_BUGS})
    lost = [*kmsg(10), *console(numbered(10), start=2.0)]
    first, *rest = cut_short(look(POLLS))
    verdict = judge(made, [first, *lost, *rest])
    assert verdict.word == "FAIL"
    assert {check.check for check in verdict.checks if check.held is False} == {"delivered", "parity"}
