"""delivered: every message arrives once, byte-exact, in order, with right checksums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.tests.judge_evidence import (
    console,
    datagrams,
    event,
    frame,
    kmsg,
    link,
    numbered,
    plan,
    run,
    rx,
    send,
)

N = 30


def delivered(events: list[Event], *, stack: str = "netpoll", reverse: bool = False, **options: Any) -> CheckResult:
    ends = {"from": "h", "to": "g"} if reverse else {"from": "g", "to": "h"}
    return judge(plan({"delivered": {**ends, **options}}, stack=stack, reverse=reverse), events).checks[0]


def drop(seqs: Iterable[int], queued: bool = False, why: str = "carrier lost") -> list[Event]:
    keys = {"endpoint": "g", "label": "g"}
    found = [event(1.0 + seq * 0.01, "guest", "dropped", **keys, seq=seq, why=why) for seq in seqs]
    return found + [event(each["t"], "guest", "queued", **keys, seq=each["seq"]) for each in found if queued]


def bad(seq: int | None, why: str, **keys: Any) -> Event:
    return event(1.5, "host", "rx", endpoint="h", seq=seq, ok=False, why=why, **keys)


ALL = list(range(N))
FEW = [seq for seq in ALL if seq not in (5, 6, 7, 20)]

HELD: dict[str, tuple[list[Event], dict[str, Any]]] = {
    "all": (run(send(N), rx(ALL)), {}),
    "with-labels": (run(send(N), rx(ALL, label="g")), {}),
    "out-of-order-where-allowed": (run(send(N), rx([0, 2, 1, *ALL[3:]])), {"in_order": False}),
    "dropped-where-allowed": (run(send(N), drop([5, 6, 7, 20]), rx(FEW)), {"except_dropped": True}),
    "lost-before-the-cut-was-noticed": (
        run(send(N), link(1.05, "n0", up=False, seen=0.03), rx([0, 1, 2, 3, 4, *ALL[8:]])),
        {"except_cut": "n0"},
    ),
    "before-it-was-noticed-and-dropped-then": (
        run(send(N), link(1.05, "n0", up=False, seen=0.02), drop(ALL[8:]), rx(ALL[:5])),
        {"except_cut": "n0", "except_dropped": True},
    ),
    "queued-and-late": (run(send(N), drop([5], queued=True), rx([*ALL[:5], *ALL[6:], 5])), {"in_order": False}),
    "two-sends-interleaved": (
        run(send(N, "a"), send(N, "b"), *([*rx([n], label="a"), *rx([n], label="b")] for n in ALL)),
        {},
    ),
    "two-sends-without-labels": (run(send(N, "a"), send(N, "b", start=3.0), rx(ALL), rx(ALL, start=3.0)), {}),
    "cut-short-by-a-crash": (
        run(send(N)[:-1], event(1.4, "inject", "crash", how="nmi"), rx(ALL)),
        {},
    ),
    "sent-but-not-told-before-the-crash": (
        run(send(N)[:-2], event(1.4, "inject", "crash", how="nmi"), rx(ALL)),
        {},
    ),
}


@pytest.mark.parametrize(("events", "options"), HELD.values(), ids=HELD)
def test_held(events: list[Event], options: dict[str, Any]) -> None:
    check = delivered(events, **options)
    assert (check.reached, check.held) == (True, True), check


NOT_HELD: dict[str, tuple[list[Event], dict[str, Any], str]] = {
    "lost": (run(send(N), rx(FEW)), {}, "lost: 5-7, 20 of g (4 messages)"),
    "last-lost": (run(send(N), rx(ALL[:-1])), {}, "lost: 29 of g (1 message)"),
    "nothing-came": (run(send(N)), {}, "lost: 0-29 of g (30 messages)"),
    "swapped": (run(send(N), rx([0, 2, 1, *ALL[3:]])), {}, "arrived out of order: 2 of g"),
    "twice": (run(send(N), rx([*ALL, 7])), {}, "arrived more than once: 7 of g"),
    "corrupt": (run(send(N), rx(FEW), bad(5, "corrupt")), {}, "damaged: message 5 of g at 1.500 s: corrupt"),
    "foreign": (run(send(N), rx(ALL), bad(None, "foreign")), {}, "damaged: a datagram at 1.500 s: foreign"),
    "text-among-numbers": (run(send(N), rx(ALL), datagrams(["hello"])), {}, "damaged: a datagram"),
    "dropped-not-allowed": (run(send(N), drop([5, 6, 7, 20]), rx(FEW)), {}, "lost: 5-7, 20"),
    "dropped-and-lost-others": (run(send(N), drop([5]), rx(FEW)), {"except_dropped": True}, "lost: 6-7, 20"),
    "dropped-but-arrived": (run(send(N), drop([5]), rx(ALL)), {"except_dropped": True}, "arrived all the same: 5 of g"),
    "after-the-cut-was-noticed": (
        run(send(N), link(1.05, "n0", up=False, seen=0.02), rx([*ALL[:5], *ALL[29:]])),
        {"except_cut": "n0"},
        "lost: 10-28 of g",
    ),
    "in-a-cut-of-another": (run(send(N), link(1.05, "n1", up=False, seen=0.02), rx(FEW)), {"except_cut": "n0"}, "lost: 5-7, 20"),
    "long-before-the-cut": (
        run(send(N), link(1.2, "n0", up=False, seen=0.01), rx([0, *ALL[2:]])), {"except_cut": "n0"}, "lost: 1 of g"),
    "queued-but-never-left": (run(send(N), drop([5], queued=True), rx([*ALL[:5], *ALL[6:]])), {"except_dropped": True}, "lost: 5"),
    "bad-checksum": (run(send(N), rx(ALL), frame(1.0, csum="bad")), {}, "bad checksum in a frame over n0 at 1.000 s"),
    "bad-ip-checksum": (run(send(N), rx(ALL), frame(1.0, ip_csum="bad")), {}, "bad checksum in a frame"),
    "sender-stopped": (run(send(N)[:-2], rx(ALL[:20])), {}, "the sender stopped: 20 of 30 messages of g"),
    "one-label-of-two-lost": (
        run(send(N, "a"), send(N, "b"), rx(ALL, label="a")), {}, "lost: 0-29 of b (30 messages)"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "options", "finding"), NOT_HELD.values(), ids=NOT_HELD)
def test_not_held(events: list[Event], options: dict[str, Any], finding: str) -> None:
    check = delivered(events, **options)
    assert (check.reached, check.held) == (True, False), check
    assert any(finding in each for each in check.findings), check.findings


@pytest.mark.parametrize(
    ("events", "options", "words"),
    [
        (run(), {}, "handed over 0 messages, need 1; no send began"),
        (run(send(N), rx(ALL)), {"at_least_sent": 31}, "handed over 30 messages, need 31"),
    ],
)
def test_not_reached(events: list[Event], options: dict[str, Any], words: str) -> None:
    check = delivered(events, **options)
    assert (check.reached, check.held) == (False, None)
    assert words in check.why


def test_from_host_to_guest() -> None:
    events = run(send(N, "h", "h"), rx(ALL, "g"))
    assert delivered(events, reverse=True).held
    lost = run(send(N, "h", "h"), rx(FEW, "g"))
    assert delivered(lost, reverse=True).findings[0] == "lost: 5-7, 20 of h (4 messages)"


def test_dropped_messages_are_named_with_their_reason() -> None:
    check = delivered(run(send(N), drop([5, 6, 7, 20]), rx(FEW)), except_dropped=True)
    assert "given to the drop routine (carrier lost): 5-7, 20 of g" in check.findings
    assert check.numbers["dropped"] == 4


def test_a_loss_is_told_with_what_the_link_was_doing() -> None:
    check = delivered(run(send(N), link(1.04, "n0", up=False, seen=0.01), rx(FEW)))
    assert any("n0 link down since 1.040 s, carrier down" in each for each in check.findings)


def test_what_a_cut_took_before_it_was_noticed_is_told() -> None:
    check = delivered(
        run(send(N), link(1.05, "n0", up=False, seen=0.03), rx([0, 1, 2, 3, 4, *ALL[8:]])), except_cut="n0"
    )
    assert check.why == "27 of 30 messages arrived, 3 lost before the guest noticed the cut"
    assert check.findings[0] == "lost in a cut that the guest had not noticed: 5-7 of g"


def test_numbers() -> None:
    events = run(send(N), drop([5, 6, 7, 20]), rx([*FEW, 8, 3]), frame(1.0, csum="bad"), bad(None, "foreign"))
    numbers = delivered(events).numbers
    assert {name: value for name, value in numbers.items() if not name.endswith("_ms")} == {
        "sent": 30,
        "received": 26,
        "lost": 4,
        "dropped": 4,
        "duplicated": 2,
        "reordered": 0,
        "damaged": 1,
        "frames": 29,
        "bad_checksums": 1,
    }


def test_why_counts_what_it_does_not_say() -> None:
    check = delivered(run(send(N), rx([*ALL[:-1], 3])))
    assert check.why == f"lost: 29 of g (1 message) (and {len(check.findings) - 1} further findings)"


# -- the kernel's netconsole


def kernel(wire: list[str], shown: list[str], **options: Any) -> CheckResult:
    return delivered(run(kmsg(20), console(shown, 2.0, 0.01), datagrams(wire, 2.0, 0.01)), stack="kernel", **options)


LINES = numbered(20)


def without(*places: int) -> list[str]:
    return [line for place, line in enumerate(LINES) if place not in places]


@pytest.mark.parametrize(
    ("wire", "shown"),
    [
        (LINES, LINES),
        ([*LINES[:5], "[    5.004500] e1000: n0 NIC Link is Up", *LINES[5:]], LINES),
        (LINES, without(3)),  # the console missed one that the wire has
    ],
    ids=["all", "other-messages-between", "console-missed-one"],
)
def test_kernel_held(wire: list[str], shown: list[str]) -> None:
    check = kernel(wire, shown, at_least_sent=20)
    assert (check.reached, check.held) == (True, True), check


KERNEL_NOT_HELD = {
    "lost": (without(3, 4), LINES, "lost: 3-4 of k (2 messages)"),
    "last-lost": (LINES[:-1], LINES, "lost: 19 of k"),
    "swapped": ([LINES[1], LINES[0], *LINES[2:]], LINES, "arrived out of order"),
    "twice": ([*LINES, LINES[4]], LINES, "arrived more than once: 4 of k"),
    "one-wrong-letter": ([LINES[0][:-1] + "q", *LINES[1:]], LINES, "damaged: message 0 of k"),
    "cut-short": ([LINES[0][:-3], *LINES[1:]], LINES, "damaged: message 0 of k"),
    "unlike-the-console": ([LINES[0].replace("5.0", "6.0"), *LINES[1:]], LINES, "unlike the console's line"),
    "never-sent": ([*LINES, LINES[0].replace("npt k 0", "npt k 77")], LINES, "the numbers end at 19"),
    "never-printed": (without(3), without(3), "never printed, the serial console has not got them either: 3 of k"),
}


@pytest.mark.parametrize(("wire", "shown", "finding"), KERNEL_NOT_HELD.values(), ids=KERNEL_NOT_HELD)
def test_kernel_not_held(wire: list[str], shown: list[str], finding: str) -> None:
    check = kernel(wire, shown)
    assert (check.reached, check.held) == (True, False), check
    assert any(finding in each for each in check.findings), check.findings


def test_kernel_not_reached() -> None:
    check = kernel(LINES, LINES, at_least_sent=21)
    assert (check.reached, check.held) == (False, None)
