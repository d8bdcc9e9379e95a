"""not_received, arp_answered and echoed: what a client takes, leaves alone, answers and sends back."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.judge.records import Event
from harness.tests.judge_evidence import event, frame, plan, run, rx, send
from harness.tests.judge_strange import LOOKS, answers, captured, counters, echoes, passed, strange, told

SENT = send(10, "h", "h")
AFTER = [*SENT, *rx(range(10), "g", label="h")]
PORTS = strange("wrong-port")
Case = tuple[list[Event], bool, bool | None, str]


def check_of(expect: dict[str, Any], events: list[Event]) -> CheckResult:
    return judge(plan(expect, reverse=True), events).checks[0]


def judged(expect: dict[str, Any], case: Case) -> None:
    events, reached, held, words = case
    check = check_of(expect, events)
    assert (check.reached, check.held) == (reached, held), check
    assert any(words in each for each in (check.why, *check.findings)), check


def leak(seq: int = 2) -> Event:
    return event(0.5, "guest", "rx", endpoint="g", label="wrong-port", seq=seq, ok=True, why="ok")


PASSED_ON: dict[str, Case] = {
    "held": (run(PORTS, AFTER), True, True, "5 strange frames, each passed on once; the hook got none"),
    **{f"held-{what}": (run(strange(what), AFTER), True, True, "5 strange frames") for what in LOOKS},
    "held-arp-request": (run(strange("arp-request"), AFTER), True, True, "5 strange frames"),
    "in-the-hook": (run(PORTS, leak(), AFTER), True, False, "reached the rx_hook: 2 of wrong-port"),
    "not-passed-on": (
        run(captured("wrong-port", 5, 0.5), told("wrong-port", 5), passed("wrong-port", [0, 1, 4]), AFTER), True, False,
        "not passed on: 2-3 of wrong-port"),
    "passed-on-twice": (run(PORTS, passed("wrong-port", [3]), AFTER), True, False, "passed on more than once: 3 of wrong-port"),
    "passed-on-damaged": (
        run(captured("wrong-port", 5, 0.5), told("wrong-port", 5), passed("wrong-port", range(4)),
            passed("wrong-port", [4], ok=False, why="corrupt"), AFTER), True, False, "passed on, but not as sent: 1 frame"),
    "passed-on-elsewhere": (
        run(captured("wrong-port", 5, 0.5), told("wrong-port", 5), passed("wrong-port", range(5), endpoint="h"), AFTER),
        True, False, "not passed on: 0-4 of wrong-port"),
    "arp-answered": (run(strange("arp-request"), answers(1), AFTER), True, False, "1 answer to ARP requests"),
    "good-ones-lost": (run(PORTS, SENT, rx(range(9), "g", label="h")), True, False, "sent properly and lost: 9 of h"),
    "too-few": (run(strange("wrong-port", 3), AFTER), False, None, "3 strange frames were sent to g, need 4"),
    "none": (run(AFTER), False, None, "0 strange frames were sent to g"),
    "never-captured": (
        run(captured("wrong-port", 4, 0.5), told("wrong-port", 5), passed("wrong-port", range(5)), AFTER), False, None,
        "of 5 frames wrong-port the capture saw 4 go to g"),
    "captured-on-the-way-out": (
        run([frame(0.5, dport=40000)] * 5, told("wrong-port", 5), passed("wrong-port", range(5)), AFTER), False, None, "saw 0"),
    "captured-over-another-nic": (
        run([frame(0.5, "n1", out=False, dport=40000)] * 5, told("wrong-port", 5), AFTER), False, None, "saw 0 go to g"),
    "captured-as-another-kind": (
        run(captured("wrong-address", 5, 0.5), told("wrong-port", 5), passed("wrong-port", range(5)), AFTER), False, None,
        "saw 0"),
    "deaf": (run(PORTS), False, None, "g may have been deaf"),
    "deaf-afterwards": (run(strange("wrong-port", t=5.0), AFTER), False, None, "g may have been deaf"),
    "sent-after-and-lost": (run(PORTS, SENT), False, None, "g may have been deaf"),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSED_ON.values(), ids=PASSED_ON)
def test_not_received_but_passed_on(case: Case) -> None:
    judged({"not_received": {"at": "g", "at_least": 4}}, case)


SWALLOWED = [*captured("wrong-port", 5, 0.5), told("wrong-port", 5)]
ASKED = [*captured("arp-request", 5, 0.5), told("arp-request", 5)]
EATEN: dict[str, Case] = {
    "held": (run(SWALLOWED, AFTER, counters(dev_rx_trapped=5)), True, True, "5 strange frames, each eaten"),
    "with-others": (run(SWALLOWED, AFTER, counters(dev_rx_trapped=9)), True, True, "each eaten"),
    "arp-is-answered-instead": (run(SWALLOWED, ASKED, answers(5), AFTER, counters(dev_rx_trapped=5)), True, True, "10 strange"),
    "passed-on": (
        run(SWALLOWED, passed("wrong-port", [1]), AFTER, counters(dev_rx_trapped=5)), True, False,
        "passed on instead of eaten: 1 of wrong-port"),
    "in-the-hook": (run(SWALLOWED, leak(), AFTER, counters(dev_rx_trapped=5)), True, False, "reached the rx_hook"),
    "not-counted": (run(SWALLOWED, AFTER, counters(dev_rx_trapped=4)), True, False, "the device counted 4"),
    "counters-never-told": (run(SWALLOWED, AFTER), True, False, "the device counted 0"),
    "deaf": (run(SWALLOWED, counters(dev_rx_trapped=5)), False, None, "may have been deaf"),
}  # fmt: skip


@pytest.mark.parametrize("case", EATEN.values(), ids=EATEN)
def test_not_received_but_eaten(case: Case) -> None:
    judged({"not_received": {"at": "g", "fate": "eaten", "at_least": 4}}, case)


ANSWERED: dict[str, Case] = {
    "held": (run(ASKED, answers(5)), True, True, "5 requests and as many answers from g"),
    "none": (run(ASKED), True, False, "5 ARP requests for 198.51.100.10, 0 answers"),
    "one-too-few": (run(ASKED, answers(4)), True, False, "5 ARP requests for 198.51.100.10, 4 answers"),
    "one-twice": (run(ASKED, answers(6)), True, False, "5 ARP requests for 198.51.100.10, 6 answers"),
    "by-somebody-else": (run(ASKED, answers(4), answers(1, mac="52:54:00:00:00:66")), True, False, "52:54:00:00:00:66 says"),
    "to-somebody-else": (run(ASKED, answers(4), answers(1, to="52:54:00:00:00:66")), True, False, "says to 52:54:00:00:00:66"),
    "for-somebody-else": (run(ASKED, answers(4), answers(1, ip="10.0.0.1")), True, False, "that it has 10.0.0.1"),
    "never-on-the-wire": (
        run(ASKED, answers(4), answers(1)[1:]), True, False, "5 answers were heard, but 4 ARP frames left the guest"),
    "never-asked": (run(PORTS), False, None, "0 ARP requests were sent"),
    "too-few-asked": (
        run(captured("arp-request", 3, 0.5), told("arp-request", 3), answers(3)), False, None, "3 ARP requests were sent"),
    "requests-never-captured": (run(told("arp-request", 5), answers(5)), False, None, "the capture saw 0"),
    "somebody-elses-requests": (
        run([{**each, "smac": "52:54:00:00:00:66"} for each in captured("arp-request", 5, 0.5)], told("arp-request", 5)),
        False, None, "the capture saw 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERED.values(), ids=ANSWERED)
def test_arp_answered(case: Case) -> None:
    judged({"arp_answered": {"by": "g", "at_least": 4}}, case)


def back(*seqs: int) -> list[Event]:
    """Echoes as they arrive at the host."""
    return rx(list(seqs), "h", start=1.003, label="h")


CORRUPT = event(1.2, "host", "rx", endpoint="h", label="h", seq=9, ok=False, why="corrupt")
ECHOED: dict[str, Case] = {
    "held": (run(AFTER, echoes(range(10)), back(*range(10))), True, True, "10 datagrams came back, 10 sent inside"),
    "one-queued": (
        run(AFTER, echoes(range(9)), echoes([9], sent=False), back(*range(10))), True, True, "9 sent inside"),
    "never-back": (
        run(AFTER, echoes(range(10)), back(*range(9))), True, False, "given to the rx_hook and never came back: 9 of h"),
    "never-there": (
        run(SENT, rx(range(9), "g", label="h"), echoes(range(9)), back(*range(9))), True, False, "never reached g: 9 of h"),
    "twice": (run(AFTER, echoes(range(10)), back(*range(10), 9)), True, False, "came back more than once: 9 of h"),
    "overtaken": (run(AFTER, echoes(range(10)), back(0, 1, 2, 4, 5, 6, 7, 8, 9), rx([3], start=1.1, label="h")), True, False,
                  "came back out of order: 3 of h"),
    "damaged": (run(AFTER, echoes(range(10)), back(*range(9)), CORRUPT), True, False, "1 datagram damaged on the way"),
    "outside": (
        run(AFTER, echoes(range(10), inside=False), back(*range(10))), False, None, "0 datagrams to send inside the receive path"),
    "not-sent": (run(AFTER, echoes(range(10), sent=False)), True, False, "refused in the receive path: 10 of 10"),
    "all-queued": (
        run(AFTER, echoes(range(10), sent=False), back(*range(10))), True, False, "refused in the receive path: 10 of 10"),
    "by-another": (run(AFTER, echoes(range(10), endpoint="h"), back(*range(10))), False, None, "0 datagrams to send inside"),
    "nothing-sent": (run(), False, None, "0 datagrams to send inside"),
}  # fmt: skip


@pytest.mark.parametrize("case", ECHOED.values(), ids=ECHOED)
def test_echoed(case: Case) -> None:
    judged({"echoed": {"by": "g", "at_least": 5}}, case)


def test_echoed_without_an_order() -> None:
    judged({"echoed": {"by": "g", "in_order": False}}, (*ECHOED["overtaken"][:2], True, "10 datagrams came back"))


def test_frames_that_the_testcase_damaged_itself_are_no_bad_checksums_of_the_sender() -> None:
    expect = {"delivered": {"from": "h", "to": "g"}}
    own = strange("bad-udp-checksum")
    assert check_of(expect, run(own, AFTER)).held
    one_more = check_of(expect, run(own, frame(0.6, out=False, csum="bad"), AFTER))
    assert one_more.held is False
    assert "bad checksum" in one_more.why


HOSTILE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an unknown kind of frames": ("host", "frames", {"endpoint": "h", "label": "x", "what": "odd", "count": 1}),
    "frames without end": ("host", "frames", {"endpoint": "h", "label": "x", "what": "fragment", "count": 10**12}),
    "passed on without a label": ("guest", "passed", {"endpoint": "g", "label": None, "seq": 1, "ok": True}),
    "passed on with a name for a number": (
        "guest",
        "passed",
        {"endpoint": "g", "label": "x", "seq": "one", "ok": True},
    ),
    "an answer without a MAC": ("host", "arp", {"endpoint": "h", "ip": "10.0.0.1", "mac": None, "to": ""}),
    "an echo that may have been sent": (
        "guest",
        "echo",
        {"endpoint": "g", "label": "h", "seq": 1, "sent": 1, "inside": True},
    ),
    "keys that are a number": ("host", "keys", {"endpoint": "h", "keys": 7, "forge": None}),
    "a key that is a list": ("guest", "key", {"endpoint": "g", "key": ["h"]}),
}


@pytest.mark.parametrize(("source", "kind", "keys"), HOSTILE.values(), ids=HOSTILE)
def test_what_the_catalogue_does_not_allow_is_an_error_and_no_exception(
    source: str, kind: str, keys: dict[str, Any]
) -> None:
    for expect in ({"not_received": {"at": "g"}}, {"echoed": {"by": "g"}}, {"pressed": {"at": "g"}}):
        verdict = judge(plan(expect, reverse=True), run(PORTS, AFTER, event(0.7, source, kind, **keys)))
        assert verdict.word == "ERROR"
        assert f"({source} {kind})" in verdict.why
