"""parity: what the serial console shows from the crash on is what the wire shows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judge.comparison import compare
from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.judge.seen import look
from harness.plan.model import Plan
from harness.tests.judge_evidence import (
    PANIC,
    PANIC_LINES,
    console,
    crashed,
    datagrams,
    event,
    link,
    plan,
    run,
    stamped,
)

PLAN = plan({"parity": {"to": "h"}}, stack="kernel", crash=True)
EXTENDED = plan({"parity": {"to": "h"}}, stack="kernel", crash=True, extended=True)
CRASH = event(9.9, "inject", "crash", how="sysrq-c")


def parity(events: list[Event], planned: Plan = PLAN) -> CheckResult:
    return judge(planned, events).checks[0]


def extended(lines: list[str], first: int = 500) -> list[str]:
    """Extended packets of stamped console lines."""
    return [
        f"6,{first + n},{line[1:13].strip().replace('.', '').lstrip('0')},-;{line[15:]}" for n, line in enumerate(lines)
    ]


def changed(change: Callable[[list[str]], object]) -> list[str]:
    lines = list(PANIC_LINES)
    change(lines)
    return lines


def swap(lines: list[str], a: int, b: int) -> None:
    lines[a], lines[b] = lines[b], lines[a]


LAST = PANIC_LINES[-1]

HELD = {
    "as-printed": (PANIC_LINES, PANIC_LINES),
    "user-space-on-the-console": (PANIC_LINES, [PANIC_LINES[0], "(agent is busy)", *PANIC_LINES[1:]]),
    "user-space-in-the-same-line": (PANIC_LINES, [PANIC_LINES[0], f"# {PANIC_LINES[1]}", *PANIC_LINES[2:]]),
    "console-goes-on-after-until": (PANIC_LINES, [*PANIC_LINES, *stamped(["drm_kms_helper: panic occurred"], 21.0)]),
    "earlier-lines-on-the-wire": ([*stamped(["netpoll: setup"], 3.0), *PANIC_LINES], PANIC_LINES),
    "two-lines-in-one-packet": (["\n".join(PANIC_LINES[:2]), *PANIC_LINES[2:]], PANIC_LINES),
    "serial-console-skipped": ([*PANIC_LINES[:3], *stamped(["secret"], 20.0025), *PANIC_LINES[3:]],
                               [*PANIC_LINES[:3], "** 1 printk messages dropped **", *PANIC_LINES[3:]]),
}  # fmt: skip


@pytest.mark.parametrize(("wire", "shown"), HELD.values(), ids=HELD)
def test_held(wire: list[str], shown: list[str]) -> None:
    before = console(stamped(["netpoll: setup"], 3.0), start=1.0)
    check = parity([*before, *crashed(wire, shown)])
    assert (check.reached, check.held) == (True, True), check


#   wire, the number that must say so, a finding that names it
NOT_HELD = {
    "last-line-lost": (PANIC_LINES[:-1], {"lost": 1}, "lost: line 11 of 11"),
    "first-line-lost": (PANIC_LINES[1:], {"lost": 1}, "lost: line 1 of 11"),
    "a-run-lost": (PANIC_LINES[:3] + PANIC_LINES[6:], {"lost": 3}, "lost: lines 4-6 of 11"),
    "all-lost": ([], {"lost": 11}, "lost: lines 1-11 of 11"),
    "two-swapped": (changed(lambda x: swap(x, 3, 4)), {"reordered": 1}, "out of order: line"),
    "one-again": (changed(lambda x: x.insert(6, x[5])), {"duplicated": 1}, "repeated: line 6 came again"),
    "one-wrong-byte": (changed(lambda x: x.__setitem__(7, x[7].replace("panic", "pamic"))), {"garbled": 1}, "damaged: line 8"),
    "wrong-byte-in-the-stamp": (changed(lambda x: x.__setitem__(7, x[7].replace("20.0", "28.0"))), {"garbled": 1}, "damaged"),
    "cut-short": (changed(lambda x: x.__setitem__(7, x[7][:20])), {"garbled": 1}, "cut off after 20 of"),
    "never-printed": (changed(lambda x: x.insert(4, "[   20.003500] who said this?")), {"extra": 1}, "not on the console"),
    "after-the-end": ([*PANIC_LINES, "[   20.500000] not dead yet"], {"extra": 1}, "not on the console"),
    "two-lines-glued": (changed(lambda x: x.__setitem__(slice(3, 5), [x[3] + x[4]])), {"garbled": 1, "lost": 1}, "damaged: line 4"),
}  # fmt: skip


RIGHT = ("lines", "received", "p50_ms", "p99_ms", "max_ms")  # numbers that say of nothing wrong


@pytest.mark.parametrize(("wire", "numbers", "finding"), NOT_HELD.values(), ids=NOT_HELD)
def test_not_held(wire: list[str], numbers: dict[str, int], finding: str) -> None:
    check = parity(crashed(wire))
    assert (check.reached, check.held) == (True, False), check
    wrong = {name: count for name, count in check.numbers.items() if name not in RIGHT and count}
    assert wrong == numbers
    assert any(finding in each for each in check.findings), check.findings


RECORDS = {
    name: wire for name, (wire, _, _) in NOT_HELD.items() if name != "two-lines-glued"
}  # records cannot be glued


@pytest.mark.parametrize("wire", RECORDS.values(), ids=RECORDS)
def test_not_held_extended(wire: list[str]) -> None:
    check = parity(crashed(extended(wire)), EXTENDED)
    assert (check.reached, check.held) == (True, False), check


def test_held_extended() -> None:
    assert parity(crashed(extended(PANIC_LINES)), EXTENDED).held


def test_without_printk_time() -> None:
    assert parity(crashed(list(PANIC), list(PANIC))).held
    assert parity(crashed(list(PANIC[:-1]), list(PANIC))).numbers["lost"] == 1


def test_until_may_be_another_line() -> None:
    planned = plan({"parity": {"to": "h", "until": "Call Trace"}}, stack="kernel", crash=True)
    assert parity(crashed(PANIC_LINES[:5]), planned).held
    assert not parity(crashed(PANIC_LINES[:4]), planned).held


def test_a_nul_byte_in_place_of_a_letter_is_damage() -> None:
    wire = [line.encode() + b"\n" for line in PANIC_LINES]
    wire[4] = wire[4].replace(b"Call", b"C\0ll")
    assert parity(crashed(wire)).numbers["garbled"] == 1


def test_a_guest_that_falls_silent_fails() -> None:
    """It went down, but its last words never came: no crash that was not provoked."""
    check = parity(crashed(PANIC_LINES[:4], PANIC_LINES[:4]))
    assert (check.reached, check.held) == (True, False)
    assert "stopped printing after line 4" in check.findings[0]
    assert PANIC_LINES[3][:40] in check.findings[0]


def test_patience_that_ran_out_is_told() -> None:
    keys = {"what": "panic", "of": "end Kernel panic", "state": None, "count": 1, "within": 30.0, "seen": "count 0"}
    gone = event(40.0, "await", "timeout", **keys)
    for shown, where in ((PANIC_LINES[:4], "findings"), ([], "why")):
        check = parity([*crashed(shown, shown)[:-1], gone, event(40.1, "run", "end")])
        assert "(30 s were waited for `end Kernel panic`)" in str(getattr(check, where))


def test_a_guest_that_hangs_before_the_word_panic_fails() -> None:
    """netconsole spins in the first line of the crash: the sysrq is on the console, the panic is not."""
    check = parity(crashed([], PANIC_LINES[:1]))
    assert (check.reached, check.held) == (True, False)
    assert "stopped printing after 1 line" in check.why


def test_a_console_that_ends_inside_a_line_asks_for_no_more_than_it_shows() -> None:
    shown = [*PANIC_LINES[:4], PANIC_LINES[4][:20]]
    check = parity(crashed(PANIC_LINES[:5], shown))
    wrong = {name for name, count in check.numbers.items() if name not in RIGHT and count}
    assert (wrong, check.numbers["received"], check.held) == (set(), 5, False)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (run(console(stamped(["all is well"]))), "no crash was asked for"),
        (run(CRASH), "the console shows no panic; it is empty"),
        (run(CRASH, console(stamped(["Uhhuh. NMI received", "Dazed and confused"]))), "shows no panic"),
    ],
)
def test_not_reached(events: list[Event], words: str) -> None:
    check = parity(events)
    assert (check.reached, check.held) == (False, None)
    assert words in check.why


def test_a_loss_is_told_with_what_the_link_was_doing() -> None:
    cut = link(9.95, "n0", up=False, seen=0.02)
    check = parity(run(CRASH, cut, console(PANIC_LINES), datagrams(PANIC_LINES[:4])))
    assert "n0 link down since 9.950 s, carrier down" in check.findings[0]


def test_a_loss_behind_a_stopped_queue_is_told() -> None:
    def seen(state: str) -> Event:
        return event(2.9, "qmp", "queue", nic="n0", state=state, by="kernel", why="stack")

    def said(wire: list[str], *more: Event) -> str:
        return " ".join(parity(run(CRASH, console(PANIC_LINES), datagrams(wire), *more)).findings)

    lost = PANIC_LINES[:4]
    told = "the TX queue of n0 was stopped (stack) when last looked at"
    assert told in said(lost, seen("stopped"))
    assert told not in said(lost, seen("stopped"), seen("woken"))
    assert told not in said(PANIC_LINES, seen("stopped"))


def test_the_kernels_own_notice_on_the_wire_is_no_line() -> None:
    wire = [*PANIC_LINES[:3], "** 2 printk messages dropped **", *PANIC_LINES[5:]]
    check = parity(crashed(wire))
    assert (check.numbers["lost"], check.numbers["extra"]) == (2, 0)
    assert "the kernel itself says that netconsole skipped 2 records" in check.findings


def test_a_datagram_that_our_side_lost_is_not_the_kernels_fault() -> None:
    events = crashed(PANIC_LINES)
    events.remove(next(each for each in events if each["kind"] == "rx" and "Call Trace" in each["text"]))
    assert judge(PLAN, events).word == "ERROR"


@given(st.data(), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_random_loss_repetition_and_disorder_are_found_exactly(data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(1, 60))
    rng = random.Random(seed)
    lines = stamped([PANIC[1], *(f"line {n} {rng.randbytes(4).hex()}" for n in range(count)), PANIC[-1]])
    kept = [line for line in lines if rng.random() > 0.2]
    copies = [line for line in kept for _ in range(1 + (rng.random() < 0.15))]
    for _ in range(data.draw(st.integers(0, 4))):
        if copies:
            copies.insert(rng.randrange(len(copies)), copies.pop(rng.randrange(len(copies))))
    found = compare(look(PLAN, run(CRASH, console(lines), datagrams(copies))), "h", "end Kernel panic")
    assert found is not None
    assert found.complete
    assert [lines[place] for place in found.lost] == [line for line in lines if line not in kept]
    repeated = Counter(found.console[place].text for _, place in found.alignment.duplicated)
    assert repeated == Counter(copies) - Counter(set(copies))
    assert not found.extra
    assert not found.garbled
    assert len(found.alignment.reordered) == _least_moves(lines, copies)


def _least_moves(lines: list[str], copies: list[str]) -> int:
    """How many lines have no copy that fits in order, the slow way: distinct lines minus a longest ascending run."""
    places = [lines.index(line) for line in copies]
    best: list[int] = []
    for at, place in enumerate(places):
        best.append(1 + max((best[before] for before in range(at) if places[before] < place), default=0))
    return len(set(places)) - max(best, default=0)


FAILOVER = "[    9.500000] bond0: (slave eth1): making interface the new active one"
BEHIND = plan({"parity": {"to": "h", "behind": "new active one"}}, stack="kernel", crash=True)
WAITED = {
    "held-back-and-lost": (True, None, [], False, f"of {len(PANIC_LINES)} console lines: {len(PANIC_LINES)} lost"),
    "held-back-and-complete": (True, None, PANIC_LINES, True, "came once"),
    "came-with-the-panic": (True, 10.2, PANIC_LINES, True, "came once"),
    "had-left-before": (True, 9.6, [], None, "was on the wire at 9.600 s, before the panic began at 10.000 s"),
    "never-said": (False, None, [], None, "the console shows no line like /new active one/ before the panic"),
}


@pytest.mark.parametrize(("said", "came", "wire", "held", "why"), WAITED.values(), ids=WAITED)
def test_a_panic_behind_a_message_is_one_while_that_waits(
    said: bool, came: float | None, wire: list[str], held: bool | None, why: str
) -> None:
    before = console([FAILOVER], start=9.5) if said else []
    early = datagrams([FAILOVER], start=came - 0.0005) if came else []
    events = sorted([CRASH, *before, *console(PANIC_LINES), *early, *datagrams(wire)], key=lambda each: each["t"])
    check = parity(run(events), BEHIND)
    assert (check.reached, check.held) == (held is not None, held), check
    assert why in check.why
