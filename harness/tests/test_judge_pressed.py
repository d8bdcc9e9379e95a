"""pressed: the console acknowledges the peer's keys, and nobody else's."""

from __future__ import annotations

import pytest

from harness.judge.judge import judge
from harness.judge.pressed import ANSWERS
from harness.judge.records import Event
from harness.tests.judge_evidence import console, event, frame, plan, run, stamped
from harness.tests.judge_strange import keys

HELP, MEMORY, PANIC = (f"sysrq: {ANSWERS[key]}" for key in "hmc")
FORGED = [*keys("c", 1.1, "ip"), *keys("c", 1.2, "port"), *keys("c", 1.3, "mac")]


def said(*lines: str) -> list[Event]:
    return console(stamped(lines), start=1.6)


CASES: dict[str, tuple[list[Event], bool, bool | None, str]] = {
    "held": (run(keys("hm", 1.0), said(HELP + " : loglevel(0-9)", "Mem-Info:", MEMORY)), True, True, "hm pressed"),
    "strangers-press-nothing": (
        run(keys("h", 1.0), FORGED, keys("m", 1.5), said(HELP, MEMORY)), True, True,
        "hm pressed; 3 datagrams of strangers pressed nothing"),
    "the-same-key-twice": (run(keys("hh", 1.0), said(HELP, HELP)), True, True, "hh pressed"),
    "the-last-one-crashes": (run(keys("h", 1.0), keys("c", 1.5), said(HELP, PANIC)), True, True, "hc pressed"),
    "not-acknowledged": (run(keys("hm", 1.0), said(HELP)), True, False, "not acknowledged: m"),
    "none-acknowledged": (run(keys("h", 1.0)), True, False, "not acknowledged: h"),
    "a-strangers-key": (
        run(FORGED, keys("h", 1.5), said(PANIC, HELP)), True, False, "nobody who may has pressed it: `[   20.000000] sysrq: Trig"),
    "pressed-twice": (run(keys("h", 1.0), said(HELP, HELP)), True, False, "nobody who may has pressed it"),
    "out-of-order": (run(keys("hm", 1.0), said(MEMORY, HELP)), True, False, "out of order"),
    "said-without-the-word": (run(keys("h", 1.0), said("HELP : loglevel(0-9)")), True, False, "not acknowledged: h"),
    "none-sent": (run(said(HELP)), False, None, "no key of the peer's came last"),
    "strangers-only": (run(FORGED), False, None, "no key of the peer's came last"),
    "strangers-last": (run(keys("h", 1.0), FORGED, said(HELP)), False, None, "no key of the peer's came last"),
    "never-captured": (run(keys("h", 1.0)[1:], said(HELP)), False, None, "the capture saw 0 and 0 go to g"),
    "forged-never-captured": (
        run(FORGED[1:], keys("h", 1.5), said(HELP)), False, None, "3 forged, the capture saw 1 and 2 go to g"),
    "captured-on-the-way-out": (run(frame(1.0), keys("h", 1.0)[1:], said(HELP)), False, None, "saw 0 and 0"),
    "sent-by-another": (
        run(frame(1.0, out=False), event(1.0, "host", "keys", endpoint="x", keys="h", forge=None), said(HELP)), False, None,
        "no key of the peer's"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "reached", "held", "words"), CASES.values(), ids=CASES)
def test_pressed(events: list[Event], reached: bool, held: bool | None, words: str) -> None:
    check = judge(plan({"pressed": {"at": "g"}}), events).checks[0]
    assert (check.reached, check.held) == (reached, held), check
    assert words in check.why


@pytest.mark.parametrize("key", ANSWERS)
def test_each_key_has_an_answer_of_its_own(key: str) -> None:
    others = "".join(other for other in ANSWERS if other != key)
    assert judge(plan({"pressed": {"at": "g"}}), run(keys(key, 1.0), said(f"sysrq: {ANSWERS[key]}"))).checks[0].held
    for other in others:
        events = run(keys(key, 1.0), said(f"sysrq: {ANSWERS[other]}"))
        assert judge(plan({"pressed": {"at": "g"}}), events).checks[0].held is False


def test_numbers_count_forged_datagrams() -> None:
    check = judge(plan({"pressed": {"at": "g"}}), run(FORGED, keys("hm", 1.5), said(HELP, MEMORY))).checks[0]
    assert check.numbers == {"keys": 2, "acknowledged": 2, "forged": 3}
