"""What layers have counted, side by side: a frame swallowed between two of them shows as a difference."""

from __future__ import annotations

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.tests.judge_evidence import event, frame, plan, run


def agree(guest: int | None, tap: int, frames: int = 50, **keys: int) -> CheckResult:
    planned = plan({"counters_agree": {"of": "n0", **keys}})
    told = [] if guest is None else [event(5.0, "guest", "ifstats", nic="n0", values={"tx_packets": guest})]
    told.append(event(5.1, "host", "ifstats", nic="n0", values={"rx_packets": tap}))
    return judge(planned, run([frame(1.0 + number / 100) for number in range(frames)], told)).checks[0]


CASES = {
    "the same": (50, 50, True, "50 frames out of n0 at every layer"),
    "not reclaimed yet": (48, 50, True, "48 frames"),
    "swallowed behind the NIC": (60, 50, False, "the guest counted 60 frames out of n0, the captures 50"),
    "more than the guest knows of": (30, 50, False, "the guest counted 30 frames"),
    "missed by the capture": (50, 53, False, "the tap of n0 counted 53 frames by 5.100 s, its capture 50"),
}


@pytest.mark.parametrize(("guest", "tap", "held", "words"), CASES.values(), ids=CASES)
def test_counters(guest: int, tap: int, held: bool, words: str) -> None:
    check = agree(guest, tap)
    assert (check.reached, check.held) == (True, held), check
    assert words in check.why


def test_without_enough_frames_or_without_a_reading_nothing_is_shown() -> None:
    assert not agree(50, 50, at_least=51).reached
    assert not agree(None, 50).reached
