"""What layers have counted, side by side: a frame swallowed between two of them shows as a difference."""

from __future__ import annotations

import pytest

from harness.judge.counters_agree import RARP
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


LAYERS: dict[str, tuple[dict[str, int], int, bool, str]] = {
    "e1000's own": ({"ethtool_tx_packets": 50, "ethtool_tx_bytes": 1}, 50, True, "driver of n0 among them"),
    "virtio_net's, over its queues": ({"ethtool_tx_queue_0_packets": 20, "ethtool_tx_queue_1_packets": 30}, 50, True, "driver of n0"),
    "virtio_net's, as it is called today": ({"ethtool_tx0_packets": 50, "ethtool_rx0_packets": 7}, 50, True, "driver of n0"),
    "tg3's, by kinds": ({"ethtool_tx_ucast_packets": 40, "ethtool_tx_mcast_packets": 9, "ethtool_tx_bcast_packets": 1}, 50, True, "driver"),
    "a driver that counts more than left": ({"ethtool_tx_packets": 60}, 60, False, "driver of n0 counted 60 frames out of n0, the captures 50"),
    "a driver that lost count": ({"ethtool_tx_packets": 40}, 40, False, "driver of n0 counted 40"),
    "a driver without such a counter": ({"ethtool_rx_packets": 4}, 0, True, "50 frames out of n0 at every layer"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "count", "held", "words"), LAYERS.values(), ids=LAYERS)
def test_a_driver_counts_too(values: dict[str, int], count: int, held: bool, words: str) -> None:
    planned = plan({"counters_agree": {"of": "n0"}}, stack="kernel")
    told = event(5.0, "guest", "ifstats", nic="n0", values={"tx_packets": 50, **values})
    host = event(5.1, "host", "ifstats", nic="n0", values={"rx_packets": 50})
    check = judge(planned, run([frame(1.0 + number / 100) for number in range(50)], told, host)).checks[0]
    assert check.held is held, check
    assert words in check.why
    assert check.numbers.get("driver_of_n0", 0) == count


@pytest.mark.parametrize(("sent", "late", "held"), [(50, 0, True), (44, 6, True), (50, 1, False), (49, 0, False)])
def test_our_stack_counts_too(sent: int, late: int, held: bool) -> None:
    planned = plan({"counters_agree": {"of": "n0"}})
    told = event(5.0, "guest", "ifstats", nic="n0", values={"tx_packets": 50})
    ours = event(5.01, "guest", "counters", endpoint="g", values={"sent": sent, "late": late})
    host = event(5.1, "host", "ifstats", nic="n0", values={"rx_packets": 50})
    check = judge(planned, run([frame(1.0 + number / 100) for number in range(50)], told, ours, host)).checks[0]
    assert check.held is held, check
    assert check.numbers["our_stack_at_g"] == sent + late


@pytest.mark.parametrize(("seconds", "held"), [(0.3, True), (0.0, False)], ids=["while they were read", "before"])
def test_frames_that_leave_while_the_counters_are_read_may_count_or_not(seconds: float, held: bool) -> None:
    """The driver was asked first: six frames later the kernel is."""
    planned = plan({"counters_agree": {"of": "n0"}}, stack="kernel")
    values = {"tx_packets": 56, "ethtool_tx_packets": 50}
    told = event(5.0, "guest", "ifstats", nic="n0", values=values, **({"seconds": seconds} if seconds else {}))
    host = event(5.1, "host", "ifstats", nic="n0", values={"rx_packets": 56})
    frames = [frame(1.0 + number / 100) for number in range(50)] + [frame(4.8 + number / 100) for number in range(6)]
    check = judge(planned, run(frames, told, host)).checks[0]
    assert check.held is held, check


def test_what_qemu_announces_is_not_the_guests() -> None:
    planned = plan({"counters_agree": {"of": "n0"}})
    told = event(5.0, "guest", "ifstats", nic="n0", values={"tx_packets": 47})
    host = event(5.1, "host", "ifstats", nic="n0", values={"rx_packets": 55})
    frames = [frame(0.2 + number / 10, ethertype=RARP) for number in range(5)] + [
        frame(1.0 + number / 100) for number in range(50)
    ]
    check = judge(planned, run(frames, told, host)).checks[0]
    assert (check.held, check.numbers["captured"]) == (True, 50), check
