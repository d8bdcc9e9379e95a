"""dumped: every way to lose a dump is named, and only what was provoked counts."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.judge_evidence import event, frame, plan, run

PANIC = "[   48.105831] Kernel panic - not syncing: sysrq triggered crash"
SECOND = "[    2.500000] Kernel panic - not syncing: sysrq triggered crash"


def line(t: float, text: str) -> Event:
    return event(t, "console", "line", text=text)


def told(t: float, what: str, **keys: Any) -> Event:
    return event(t, "host", "dump", what=what, **keys)


def file(**changes: Any) -> Event:
    log = {"lines": 400, "panics": [PANIC], "refused": None}
    found = {"file": "a/vmcore", "complete": True, "size": 26 << 20, "format": "kdump-compressed", "pages": 20000, "equal": 20000, "zero": 6, "different": 0, "outside": 0, "named": [], "log": log, "seconds": 0.5, "error": None}  # fmt: skip
    return event(9.5, "host", "vmcore", **{**found, **changes})


CRASH = [event(1.0, "inject", "crash", how="sysrq-c"), line(1.1, PANIC)]
BEGAN = [*CRASH, line(3.0, "capture: 2.100 began"), frame(4.0)]
SENT = [*BEGAN, told(4.5, "data", bytes=464), told(6.0, "progress", bytes=9 << 20)]
WHOLE = [*SENT, line(8.9, "netdump: sent, 25.1 MiB in 4.1 s, 6.12 MiB/s, 39 resent, {}"), told(9.0, "complete", bytes=26 << 20), told(9.1, "ended", counts={}, wire={"rx_drop": 30, "tx_reorder": 4, "rx_lost": 9})]  # fmt: skip
SECOND_PANIC = [*SENT, line(7.0, SECOND), line(7.1, "[    2.6] ---[ end Kernel panic - not syncing: sysrq ]---")]
PARTIAL = event(9.5, "host", "vmcore", file="a/vmcore-incomplete", complete=False, size=9 << 20)

NMI = [event for event in WHOLE if event.get("text") != PANIC]
CPU = line(1.2, "[   48.106] CPU: 0 PID: 121 Comm: python3 Not tainted 6.1.0-50-amd64 #1  Debian 6.1.176-1")

CASES: dict[str, tuple[dict[str, Any], list[Event], bool, bool | None, str]] = {
    "held": ({}, [*WHOLE, file()], True, True, "20000 pages equal RAM (kdump-compressed, 26.0 MiB); first datagram 2.90 s and whole 7.90 s after the panic, 39 datagrams sent again"),
    "no-crash": ({}, [], False, None, "the console shows neither a panic nor a capture kernel"),
    "no-capture-kernel": ({}, CRASH, True, False, "no capture kernel began; the console's last line is"),
    "client-gave-up": ({}, [*BEGAN, line(5.0, "capture: 4.1 ended with 1")], True, False, "the client said at last: `capture: 4.1 ended with 1`"),
    "partial": ({}, [*SENT, told(7.0, "partial", bytes=9 << 20, why="No space left on device"), PARTIAL], True, False, "the server: partial No space left on device"),
    "capture-kernel-panics": ({}, [*SECOND_PANIC, PARTIAL], True, False, "the capture kernel itself panicked at 7.0"),
    "no-dump-at-all": ({}, [*WHOLE, file(error="BadDump: it begins with 00, neither ELF nor KDUMP")], True, False, "cannot be read: BadDump"),
    "pages-differ": ({}, [*WHOLE, file(different=2, named=[0x1234, 0x1235])], True, False, "2 pages of 20000 differ from RAM: 0x1234, 0x1235"),
    "pages-of-no-memory": ({}, [*WHOLE, file(outside=1)], True, False, "memory that the machine does not have"),
    "log-refused": ({}, [*WHOLE, file(log={"lines": 0, "panics": [], "refused": "makedumpfile --dump-dmesg ended with 1: no"})], True, False, "ended with 1: no"),
    "another-panic": ({}, [*WHOLE, file(log={"lines": 9, "panics": [SECOND.replace("sysrq", "other")], "refused": None})], True, False, "does not show the panic"),
    "in-an-nmi": ({}, [*NMI, file()], True, True, "first datagram 3.00 s and whole 8.00 s after the panic"),
    "in-an-nmi-without-a-word": ({}, [*NMI, file(log={"lines": 400, "panics": [], "refused": None})], True, False, "shows no panic"),
    "tasks": ({}, [*WHOLE, CPU, file(tasks={"list": [[0, "swapper/0"], [121, "python3"]]})], True, True, "26.0 MiB, 2 tasks)"),
    "not-the-task-that-ran": ({}, [*WHOLE, CPU, file(tasks={"list": [[0, "swapper/0"], [121, "sh"]]})], True, False, "121 python3, is not among the 2 of the dump"),
    "tasks-nobody-looked-for": ({}, [*WHOLE, CPU, file(tasks={"absent": "drgn is not installed"})], True, True, "26.0 MiB); first"),
    "tasks-refused": ({}, [*WHOLE, CPU, file(tasks={"refused": "drgn ended with 1: no"})], True, False, "tasks cannot be read: drgn ended with 1"),
    "too-few-pages": ({"at_least": 20001}, [*WHOLE, file()], False, None, "the dump has 20000 pages, at least 20001"),
    "nothing-struck": ({"struck": 35}, [*WHOLE, file()], False, None, "34 frames were struck, at least 35"),
    "struck": ({"struck": 34}, [*WHOLE, file()], True, True, "pages equal RAM"),
    "nothing-sent-again": ({"resent": 40}, [*WHOLE, file()], False, None, "39 datagrams sent again, at least 40"),
    "in-time": ({"within": 8, "first_packet": 3}, [*WHOLE, file()], True, True, "pages equal RAM"),
    "too-late": ({"within": 7}, [*WHOLE, file()], True, False, "the dump took 7.90 s from the panic on, longer than 7 s"),
    "first-packet-too-late": ({"first_packet": 2}, [*WHOLE, file()], True, False, "the first datagram came after 2.90 s"),
    "kept": ({"complete": False}, [*SECOND_PANIC, PARTIAL], True, True, "kept are a/vmcore-incomplete (9.0 MiB)"),
    "not-kept": ({"complete": False}, SECOND_PANIC, True, False, "nothing of the dump was kept"),
    "called-complete": ({"complete": False}, [*SECOND_PANIC, file()], True, False, "is called complete, though its sender died"),
    "did-not-die": ({"complete": False}, [*SENT, PARTIAL], False, None, "the capture kernel did not panic"),
    "died-too-soon": ({"complete": False}, [*BEGAN, line(7.0, SECOND)], False, None, "nothing of the dump had come"),
}  # fmt: skip


@pytest.mark.parametrize(("expect", "events", "reached", "held", "words"), CASES.values(), ids=CASES)
def test_dumped(expect: dict[str, Any], events: list[Event], reached: bool, held: bool | None, words: str) -> None:
    check = judge(plan({"dumped": expect}), run(events)).checks[0]
    assert (check.reached, check.held) == (reached, held), check
    assert words in check.why


def test_a_server_that_fails_is_the_testbed_s_error() -> None:
    verdict = judge(plan({"dumped": {}}), run(CRASH, [told(2.0, "failed", why="it ended with -9: (it said nothing)")]))
    assert verdict.word == "ERROR"
    assert "the dump's server failed: it ended with -9" in verdict.why


def test_numbers_say_how_long_and_how_often() -> None:
    numbers = judge(plan({"dumped": {}}), run([*WHOLE, file()])).checks[0].numbers
    assert numbers == {
        "bytes": 26 << 20, "resent": 39, "struck": 34, "size": 26 << 20, "pages": 20000, "equal": 20000, "zero": 6, "different": 0,
        "began": 1.9, "first_packet": 2.9, "data": 3.4, "seconds": 7.9,
    }  # fmt: skip
