"""A machine that ends without a panic: the verdict says that it did, what had got out counts, and silence follows."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import Verdict
from harness.plan.model import Plan
from harness.tests.judge_evidence import event, plan, run

N = 10
SENDING = event(1.0, "guest", "sending", endpoint="g", label="g", count=100, size=[18, 18], seed=1)
SENT = event(1.5, "guest", "sent", endpoint="g", label="g", first=0, last=N - 1)
KILL, GONE = event(2.0, "inject", "crash", how="kill"), event(2.1, "run", "gone", how="signal SIGKILL")


def killed(but_last: int = 0) -> Plan:
    made = plan({"delivered": {"from": "g", "to": "h", "but_last": but_last}}, crash=True)
    steps = [step.model_dump(by_alias=True, exclude_none=True) for step in made.scenario.steps]
    steps[-1] = {"crash": {"how": "kill"}}
    data = made.model_dump(by_alias=True)
    data["scenario"]["steps"] = steps
    return Plan.model_validate(data, by_name=True, by_alias=True)


def rx(seq: int) -> dict[str, Any]:
    return event(1.6, "host", "rx", endpoint="h", label="g", seq=seq, ok=True)


def frame(t: float) -> dict[str, Any]:
    addresses = {"sip": "198.51.100.10", "sport": 6665, "dip": "198.51.100.100", "dport": 6666}
    return event(
        t, "wire", "frame", tap="tap-n0", nic="n0", dir="out", len=60, wall_ns=0, ethertype=2048, csum="ok", ip_csum="ok",
        smac="52:54:00:6e:70:01", **addresses,
    )  # fmt: skip


def verdict(but_last: int, came: list[int], *more: dict[str, Any]) -> Verdict:
    frames = [frame(1.55) for _ in came]
    return judge(killed(but_last), run(SENDING, SENT, *frames, *map(rx, came), KILL, *more))


CASES = {
    "all arrived": (0, list(range(N)), "PASS"),
    "the last is missing, and may be": (1, list(range(N - 1)), "PASS"),
    "the last is missing, and may not": (0, list(range(N - 1)), "FAIL"),
    "more are missing than may be": (1, list(range(N - 2)), "FAIL"),
    "one in the middle is missing": (3, [n for n in range(N) if n != 5], "FAIL"),
    "out of order": (3, [1, 0, *range(2, N)], "FAIL"),
}


@pytest.mark.parametrize(("but_last", "came", "word"), CASES.values(), ids=CASES)
def test_what_had_got_out_counts(but_last: int, came: list[int], word: str) -> None:
    found = verdict(but_last, came, GONE)
    assert found.word == word, found.why


def test_the_verdict_says_how_the_machine_ended() -> None:
    (gone,) = (check for check in verdict(0, list(range(N)), GONE).checks if check.check == "gone")
    assert gone.why == f"QEMU ended by signal SIGKILL at 2.100 s; {N} UDP datagrams had got out by then"


def test_a_machine_that_lives_on_is_no_verdict() -> None:
    found = verdict(0, list(range(N)))
    assert (found.word, found.why) == ("INCONCLUSIVE", "gone: QEMU did not end")


def test_nothing_leaves_a_machine_that_is_gone() -> None:
    found = verdict(0, list(range(N)), GONE, frame(4.0))
    assert found.word == "FAIL", found.why
    assert "a datagram over n0 at 4.000 s" in found.why
