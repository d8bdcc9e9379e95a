"""event: QEMU reported it; and the checks that nobody has to ask for."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.tests.judge_evidence import (
    PANIC_LINES,
    console,
    crashed,
    datagrams,
    event,
    frame,
    plan,
    run,
    rx,
    send,
    stamped,
)

CRASH = event(9.9, "inject", "crash", how="sysrq-c")


def panicked(t: float, name: str = "GUEST_PANICKED") -> Event:
    return event(t, "qmp", "event", name=name, data={})


EVENTS: dict[str, tuple[str, list[Event], bool, bool | None, str]] = {
    "came": ("GUEST_PANICKED", crashed(PANIC_LINES), True, True, "GUEST_PANICKED came at 10.500 s"),
    "missing": (
        "GUEST_PANICKED", run(CRASH, console(PANIC_LINES)), True, False, "never came; QEMU reported no event at all"),
    "another-came": ("GUEST_CRASHLOADED", crashed(PANIC_LINES), True, False, "QEMU reported GUEST_PANICKED"),
    "no-panic": ("GUEST_PANICKED", run(CRASH), False, None, "the console shows no panic"),
    "too-early": (
        "GUEST_PANICKED", run(panicked(5.0), CRASH, console(PANIC_LINES)), True, False, "the guest panicked by itself"),
    "of-the-machine": ("NIC_RX_FILTER_CHANGED", run(panicked(1.0, "NIC_RX_FILTER_CHANGED")), True, True, "came at 1.000 s"),
    "of-the-machine-missing": ("NIC_RX_FILTER_CHANGED", run(), True, False, "never came"),
    "cut-short": ("NIC_RX_FILTER_CHANGED", run(end=False), False, None, "the run was cut short"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "events", "reached", "held", "words"), EVENTS.values(), ids=EVENTS)
def test_event(name: str, events: list[Event], reached: bool, held: bool | None, words: str) -> None:
    check = judge(plan({"event": {"name": name}}), events).checks[0]
    assert (check.reached, check.held) == (reached, held), check
    assert words in check.why


def invariant(name: str, events: list[Event], **options: Any) -> CheckResult | None:
    expect = {"event": {"name": "GUEST_PANICKED"}}
    return next((check for check in judge(plan(expect, **options), events).checks if check.check == name), None)


GOOD = run(send(10), rx(range(10)))

INVARIANTS: dict[str, tuple[str, list[Event], bool, bool | None, str]] = {
    "checksums-right": ("checksums", GOOD, True, True, "10 UDP datagrams, none with a bad checksum"),
    "checksums-left-out": ("checksums", run(send(1), [frame(1.0, csum="none")]), True, True, "1 UDP datagram"),
    "checksums-left-to-the-nic": ("checksums", run(send(1), [frame(1.0, csum="partial")]), True, True, "1 UDP datagram"),
    "udp-checksum-bad": (
        "checksums", run(send(1), [frame(1.0, csum="bad")]), True, False, "bad checksum over n0 at 1.000 s: UDP"),
    "ip-checksum-bad": ("checksums", run(send(1), [frame(1.0, ip_csum="bad")]), True, False, "IP, 198.51.100.10:6665"),
    "bad-in-any-flow": (
        "checksums", run(send(1), [frame(1.0, sport=68, dport=67, csum="bad")]), True, False, "198.51.100.10:68"),
    "bad-to-the-guest-is-not-the-guests": (
        "checksums", run(send(1), [frame(1.0)], [frame(1.1, out=False, csum="bad")]), True, True, "1 UDP datagram"),
    "no-datagram": ("checksums", run(send(1)), False, None, "the guest sent no UDP datagram"),
    "sources-known": ("sources", GOOD, True, True, "10 frames, all of known flows"),
    "other-ports-are-not-ours": ("sources", run(send(1), [frame(1.0, sport=68, dport=67)]), True, True, "0 frames"),
    "unknown-address": ("sources", run(send(1), [frame(1.0, sip="10.0.0.1")]), True, False, "is no flow of the testcase"),
    "unknown-source-port": ("sources", run(send(1), [frame(1.0, sport=9999)]), True, False, "is no flow of the testcase"),
    "unknown-mac": ("sources", run(send(1), [frame(1.0, smac="02:00:00:00:00:01")]), True, False, "the source MAC 02:00"),
    "over-the-wrong-nic": ("sources", run(send(1), [frame(1.0, "n1")]), True, False, "left over n1, which is not behind n0"),
    "kernel-content": ("kernel", run(console(stamped(["e1000: Link is Up"]))), True, True, "no complaint"),
    "kernel-warns": (
        "kernel", run(console(stamped(["WARNING: CPU: 0 PID: 1 at net/core/netpoll.c:370"]))), True, False, "WARNING: CPU: 0"),
    "kernel-warns-as-linux-7": (
        "kernel", run(console(stamped(["WARNING: kernel/dma/mapping.c:700 at dma_free_attrs+0x134/0x140, CPU#0: ethtool/138"]))), True, False,
        "WARNING: kernel/dma"),
    "kernel-panics-unasked": ("kernel", run(console(PANIC_LINES)), True, False, "Kernel panic"),
    "kernel-panics-when-asked": ("kernel", crashed(PANIC_LINES), True, True, "no complaint"),
    "slow-host-is-no-bug": ("kernel", run(console(stamped(["watchdog: BUG: soft lockup - CPU#0"]))), True, True, "no complaint"),
    "user-space-says-bug": ("kernel", run(console([*stamped(["up"]), "BUG: not the kernel's"])), True, True, "no complaint"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "events", "reached", "held", "words"), INVARIANTS.values(), ids=INVARIANTS)
def test_invariant(name: str, events: list[Event], reached: bool, held: bool | None, words: str) -> None:
    check = invariant(name, events)
    assert check is not None
    assert (check.reached, check.held) == (reached, held), check
    assert words in check.why


def test_over_a_bond_every_slave_is_right() -> None:
    check = invariant("sources", run(send(1), [frame(1.0, "n0"), frame(1.1, "n1")]), bond="balance-rr")
    assert check is not None
    assert check.held


def test_a_guest_that_only_receives_is_not_asked_for_datagrams() -> None:
    events = run(send(10, "h", "h"), rx(range(10), "g"))
    assert invariant("checksums", events, reverse=True) is None
    assert invariant("silence", events, reverse=True) is None


def test_a_crash_without_any_endpoint_that_speaks_is_not_asked_for_datagrams() -> None:
    """Our stack in a guest that panics has nothing to say: its user space is dead."""
    expect = {"event": {"name": "GUEST_PANICKED"}}
    verdict = judge(plan(expect, crash=True, reverse=True), run(CRASH, console(PANIC_LINES), panicked(10.5)))
    assert (verdict.word, [check.check for check in verdict.checks]) == ("PASS", ["event", "kernel"])


def test_a_broken_invariant_counts_what_it_does_not_say() -> None:
    check = invariant("checksums", run(send(3), [frame(1.0, csum="bad"), frame(1.1, csum="bad"), frame(1.2)]))
    assert check is not None
    assert check.why.endswith("198.51.100.100:6666 (and 1 more)")
    assert check.numbers == {"frames": 3, "csum_bad": 2, "csum_ok": 1}


SILENCE: dict[str, tuple[list[Event], bool, bool | None, str]] = {
    "silent": (crashed(PANIC_LINES), True, True, "silent since the panic ended at 10.010 s"),
    "more-on-both": (
        crashed([*PANIC_LINES, *stamped(["late"], 21.0)], [*PANIC_LINES, *stamped(["late"], 21.0)]), True, True, "silent"),
    "more-on-the-wire": (crashed([*PANIC_LINES, "[   21.000000] ghost"]), True, False, "g said `[   21.000000] ghost`"),
    "never-ended": (crashed(PANIC_LINES[:4], PANIC_LINES[:4]), False, None, "no end of a panic"),
    "nothing-sent": (run(CRASH, console(PANIC_LINES)), False, None, "sent no UDP datagram"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "reached", "held", "words"), SILENCE.values(), ids=SILENCE)
def test_silence(events: list[Event], reached: bool, held: bool | None, words: str) -> None:
    check = invariant("silence", events, stack="kernel", crash=True)
    assert check is not None
    assert (check.reached, check.held) == (reached, held), check
    assert words in check.why


def test_a_dead_guests_user_space_does_not_send() -> None:
    settled = run(CRASH, console(PANIC_LINES), [frame(10.5)])
    alive = run(CRASH, console(PANIC_LINES), [frame(10.5), frame(12.0)])
    for events, held in ((settled, True), (alive, False)):
        check = invariant("silence", events, crash=True)
        assert check is not None
        assert check.held == held


def test_a_testcase_without_a_crash_is_not_asked_for_silence() -> None:
    assert invariant("silence", run(send(10), datagrams(["hello"]))) is None
