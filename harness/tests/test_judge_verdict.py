"""From checks to a word: precedence, known bugs, errors of the testbed, evidence that proves nothing."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from harness.judge.judge import CHECKS, judge
from harness.judge.model import Verdict
from harness.judge.records import Event
from harness.scenario.model import Expect
from harness.tests.judge_evidence import (
    PANIC_LINES,
    console,
    crashed,
    event,
    frame,
    kmsg,
    link,
    plan,
    run,
    rx,
    send,
)

DELIVERED = {"delivered": {"from": "g", "to": "h"}}
EVENT = {"event": {"name": "GUEST_PANICKED"}}

GOOD = run(send(10), rx(range(10)))
LOSSY = run(send(10), rx(range(9)))
EMPTY = run()
BROKEN = event(1.05, "run", "error", what="QEMU ended by itself", hint="its last words are in case.log")

WORDS: dict[str, tuple[list[dict[str, Any]], list[Event], str, str]] = {
    "all-held": ([DELIVERED], GOOD, "PASS", "delivered: 10 of 10 messages arrived"),
    "one-did-not-hold": ([DELIVERED], LOSSY, "FAIL", "delivered: lost: 9 of g"),
    "not-reached": ([DELIVERED], EMPTY, "INCONCLUSIVE", "delivered: g handed over 0 messages"),
    "fail-before-inconclusive": ([EVENT, DELIVERED], LOSSY, "FAIL", "delivered: lost"),
    "inconclusive-before-pass": ([DELIVERED, EVENT], GOOD, "INCONCLUSIVE", "event: the console shows no panic"),
    "error-before-all": ([DELIVERED], run(send(10), rx(range(9)), BROKEN), "ERROR", "QEMU ended by itself (its last words"),
    "error-though-all-held": ([DELIVERED], run(send(10), rx(range(10)), BROKEN), "ERROR", "QEMU ended by itself"),
    "harness-was-killed": ([DELIVERED], GOOD[:-1], "ERROR", "without `run end`: the harness was killed"),
    "nothing-at-all": ([DELIVERED], [], "ERROR", "no `run start`"),
    "an-invariant-broke": ([DELIVERED], run(send(10), rx(range(10)), frame(1.0, sip="10.9.9.9")), "FAIL", "sources:"),
    "sent-messages-unnamed": (
        [DELIVERED], [each for each in GOOD if each["kind"] != "sent"], "ERROR", "but the evidence names 0: events are missing"),
    "kmsg-unnamed": ([DELIVERED], run(kmsg(10)[:1], kmsg(10)[2:]), "ERROR", "the send k of g reports 10 messages"),
    "not-injected": ([EVENT], run(console(PANIC_LINES)), "ERROR", "the testcase takes the link of n0 down, but"),
    "agent-failed-to-send": (
        [DELIVERED], run(send(10)[:-1], event(1.2, "guest", "done", count=-1, error="OSError: no buffer")), "ERROR",
        "a send failed in the agent: OSError: no buffer"),
}  # fmt: skip


@pytest.mark.parametrize(("expect", "events", "word", "why"), WORDS.values(), ids=WORDS)
def test_word(expect: list[dict[str, Any]], events: list[Event], word: str, why: str) -> None:
    cuts = ["down"] if "takes the link" in why else []
    verdict = judge(plan(*expect, cuts=cuts), events)
    assert verdict.word == word, verdict
    assert why in verdict.why


def stated(verdict: str) -> dict[str, Any]:
    return {"when": {"nic": "e1000"}, "verdict": verdict, "reason": "the driver drops the last frame"}


BUGS = {
    "as-stated": ("FAIL", LOSSY, "KNOWN_BUG", "FAIL as known: the driver drops the last frame; delivered: lost"),
    "gone": ("FAIL", GOOD, "FAIL", "known bug is gone: the driver drops the last frame"),
    "not-provoked": ("FAIL", EMPTY, "INCONCLUSIVE", "delivered: g handed over"),
    "error-is-not-the-bug": ("FAIL", run(send(10), rx(range(9)), BROKEN), "ERROR", "QEMU ended by itself"),
    "error-stated": ("ERROR", run(send(10), rx(range(9)), BROKEN), "KNOWN_BUG", "ERROR as known"),
    "inconclusive-stated": ("INCONCLUSIVE", EMPTY, "KNOWN_BUG", "INCONCLUSIVE as known"),
    "inconclusive-stated-but-fails": ("INCONCLUSIVE", LOSSY, "FAIL", "delivered: lost"),
    "inconclusive-stated-but-holds": ("INCONCLUSIVE", GOOD, "FAIL", "known bug is gone"),
}


@pytest.mark.parametrize(("bug", "events", "word", "why"), BUGS.values(), ids=BUGS)
def test_known_bug(bug: str, events: list[Event], word: str, why: str) -> None:
    verdict = judge(plan(DELIVERED, known_bug=stated(bug)), events)
    assert (verdict.word, verdict.known_bug) == (word, "the driver drops the last frame")
    assert why in verdict.why


TWICE = run(send(10), rx(range(9)), event(2.5, "console", "line", text="[    2.500000] BUG: scheduling while atomic"))
NAMED = {
    "as-named": (["delivered"], LOSSY, "KNOWN_BUG", "FAIL as known"),
    "another-fails-besides": (["delivered"], TWICE, "FAIL", "otherwise than known (the driver drops the last frame): kernel besides"),
    "both-named": (["delivered", "kernel"], TWICE, "KNOWN_BUG", "FAIL as known"),
    "one-of-two-holds": (["delivered", "kernel"], LOSSY, "FAIL", "not kernel"),
    "another-fails-instead": (["kernel"], LOSSY, "FAIL", "delivered besides and not kernel"),
}  # fmt: skip


@pytest.mark.parametrize(("checks", "events", "word", "why"), NAMED.values(), ids=NAMED)
def test_a_known_bug_hides_no_other_failure(checks: list[str], events: list[Event], word: str, why: str) -> None:
    verdict = judge(plan(DELIVERED, known_bug=stated("FAIL") | {"checks": checks}), events)
    assert verdict.word == word, verdict
    assert why in verdict.why


TOLD = {
    "told-and-fails": ("bit 7", LOSSY, "KNOWN_BUG", "FAIL as known"),
    "told-and-holds": ("bit 7", GOOD, "FAIL", "known bug is gone"),
    "not-told-and-fails": ("bit 8", LOSSY, "FAIL", "delivered: lost"),
    "not-told-and-holds": ("bit 8", GOOD, "PASS", "10 of 10"),
}


@pytest.mark.parametrize(("line", "events", "word", "why"), TOLD.values(), ids=TOLD)
def test_a_known_bug_of_chance_is_one_where_the_console_tells(
    line: str, events: list[Event], word: str, why: str
) -> None:
    told = [*events[:-1], event(2.5, "console", "line", text="[    2.500000] bit 7 is stuck"), events[-1]]
    verdict = judge(plan(DELIVERED, known_bug=stated("FAIL") | {"console": line}), told)
    assert verdict.word == word, verdict
    assert why in verdict.why
    assert (verdict.known_bug is None) == (line == "bit 8")


def queue(t: float, why: str) -> Event:
    return event(
        t, "qmp", "queue", nic="n0", state="stopped" if why else "woken", by="kernel", queue=0, why=why, since=0.0
    )


HELD_UP = {
    "stopped-and-fails": ([queue(2.5, "stack")], LOSSY, "KNOWN_BUG", "FAIL as known"),
    "by-both-and-fails": ([queue(2.5, "driver+stack")], LOSSY, "KNOWN_BUG", "FAIL as known"),
    "stopped-and-holds": ([queue(2.5, "stack")], GOOD, "FAIL", "known bug is gone"),
    "by-the-driver-and-fails": ([queue(2.5, "driver")], LOSSY, "FAIL", "delivered: lost"),
    "woken-again-and-fails": ([queue(2.5, "stack"), queue(2.6, "")], LOSSY, "FAIL", "delivered: lost"),
    "not-looked-at-and-fails": ([], LOSSY, "FAIL", "delivered: lost"),
    "not-looked-at-and-holds": ([], GOOD, "PASS", "10 of 10"),
}


@pytest.mark.parametrize("why", ["driver", "stack", ""])
def test_a_queue_may_be_stopped_by_any(why: str) -> None:
    bug = stated("FAIL") | {"checks": ["delivered"], "queue": "any"}
    verdict = judge(plan(DELIVERED, known_bug=bug), [*LOSSY[:-1], queue(2.5, why), LOSSY[-1]])
    assert verdict.word == ("KNOWN_BUG" if why else "FAIL")


@pytest.mark.parametrize(("looks", "events", "word", "why"), HELD_UP.values(), ids=HELD_UP)
def test_a_known_bug_of_chance_is_one_where_a_queue_is_stopped(
    looks: list[Event], events: list[Event], word: str, why: str
) -> None:
    bug = stated("FAIL") | {"checks": ["delivered"], "queue": "stack"}
    verdict = judge(plan(DELIVERED, known_bug=bug), [*events[:-1], *looks, events[-1]])
    assert verdict.word == word, verdict
    assert why in verdict.why
    assert verdict.by_chance


CHANCE = {
    "not-reached": (EMPTY, "KNOWN_BUG", "INCONCLUSIVE as known"),
    "reached-and-holds": (GOOD, "PASS", "10 of 10"),
    "reached-and-fails": (LOSSY, "FAIL", "delivered: lost"),
}


@pytest.mark.parametrize(("events", "word", "why"), CHANCE.values(), ids=CHANCE)
def test_what_chance_provokes_is_judged_where_it_is(events: list[Event], word: str, why: str) -> None:
    bug = stated("INCONCLUSIVE") | {"checks": ["delivered"], "by_chance": True}
    verdict = judge(plan(DELIVERED, known_bug=bug), events)
    assert verdict.word == word, verdict
    assert why in verdict.why


def test_a_known_inconclusive_names_what_is_not_reached() -> None:
    for checks, word in (
        (["delivered"], "KNOWN_BUG"),
        (["event"], "INCONCLUSIVE"),
        (["delivered", "event"], "INCONCLUSIVE"),
    ):
        bug = stated("INCONCLUSIVE") | {"checks": checks}
        assert judge(plan(DELIVERED, known_bug=bug), EMPTY).word == word


def test_numbers_of_a_run() -> None:
    spent = {"machine": 0.36, "case": 0.04, "others": 0.0}
    timing = event(3.0, "run", "timing", what="restore", seconds=0.16)
    verdict = judge(plan(DELIVERED), [*GOOD, timing, event(3.1, "run", "spent", **spent)])
    assert verdict.seconds == GOOD[-1]["t"]
    assert verdict.numbers == {"timings": {"restore": 0.16}, "processor": spent}


def test_a_verdict_survives_json() -> None:
    failover = {"failover": {"bond": "b0", "cut": "n0", "from": "g"}}
    never = run(send(400), link(3.0, "n0", up=False, seen=0.1), frame(2.0))
    for events in (GOOD, LOSSY, EMPTY, crashed(PANIC_LINES), never):
        verdict = judge(plan(DELIVERED, EVENT, failover, bond="active-backup"), events)
        assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_judging_changes_nothing_and_repeats_itself() -> None:
    events = crashed(PANIC_LINES[:-2])
    before = copy.deepcopy(events)
    planned = plan({"parity": {"to": "h"}}, EVENT, stack="kernel", crash=True)
    assert judge(planned, events) == judge(planned, iter(events)) == judge(planned, json.loads(json.dumps(events)))
    assert events == before


def test_every_expectation_has_a_check() -> None:
    assert set(CHECKS) == set(Expect.model_fields)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"t": 1.0, "src": "host", "kind": "rx", "endpoint": "h", "seq": "7", "ok": True}, "`seq` is '7', need a whole number"),
        ({"t": 1.0, "src": "host", "kind": "rx", "endpoint": "h", "seq": 7}, "`ok` is missing, need true or false"),
        ({"t": 1.0, "src": "wire", "kind": "frame", "nic": "n0", "dir": "sideways"}, "`dir` is 'sideways', need out or in"),
        ({"t": 1.0, "src": "guest", "kind": "sent", "endpoint": "g", "label": "g", "first": 5, "last": 3}, "need at least"),
        ({"t": 1.0, "src": "guest", "kind": "sent", "endpoint": "g", "label": "g", "first": 0, "last": 10**15},
         "`last` is 1000000000000000, need no more than 10000000 messages in a case"),
        ({"t": 1.0, "src": "guest", "kind": "frames", "endpoint": "g", "label": "g", "what": "arp-request", "count": 10**15},
         "`count` is 1000000000000000, need no more than 10000000 messages in a case"),
        ({"t": 1.0, "src": "guest", "kind": "carrier", "nic": "n0", "up": 1}, "`up` is 1, need true or false"),
        ({"t": 1.0, "src": "console", "kind": "line"}, "`text` is missing, need text"),
        ({"t": "1", "src": "console", "kind": "line", "text": ""}, "`t` is '1', need a number"),
        ({"t": 1.0, "src": "guest", "kind": "sending", "endpoint": "g", "label": "g", "count": 1, "size": [1], "seed": 1},
         "`size` is [1], need [lowest, highest]"),
    ],
)  # fmt: skip
def test_damaged_evidence_is_an_error_that_names_the_event(wrong: Event, words: str) -> None:
    verdict = judge(plan(DELIVERED), [*GOOD[:3], wrong, *GOOD[3:]])
    assert verdict.word == "ERROR"
    assert verdict.why.startswith("event 4 (")
    assert words in verdict.why


def test_kinds_that_no_check_needs_are_passed_over() -> None:
    strange = [event(1.0, "run", "garbage", text="?"), event(1.0, "moon", "phase", full=True)]
    assert judge(plan(DELIVERED), [*GOOD[:5], *strange, *GOOD[5:]]).word == "PASS"


def test_frames_that_are_no_udp_are_nobodys_flow() -> None:
    """ARP, LACP, neighbour discovery: captured beside the datagrams."""
    keys = {"tap": "tap-n0", "nic": "n0", "dir": "out", "len": 42, "wall_ns": 1, "ethertype": 0x0806}
    arp = [event(t, "wire", "frame", **keys) for t in (0.5, 1.05, 10.5)]
    assert judge(plan(DELIVERED), run(arp, send(10), rx(range(10)))).word == "PASS"
    panic = plan({"parity": {"to": "h"}}, stack="kernel", crash=True)
    assert judge(panic, [*arp, *crashed(PANIC_LINES)]).word == "PASS"


def test_a_crash_that_comes_unasked_fails_a_case_that_held() -> None:
    assert judge(plan(DELIVERED), run(send(10), rx(range(10)), console(PANIC_LINES))).word == "FAIL"
