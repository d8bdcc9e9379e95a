"""The table of `bench tg3`: ratios, and goals that are met or missed."""

from __future__ import annotations

from harness.bench import tg3


def test_the_table_tells_ratios_and_goals() -> None:
    result = {
        "frames": {
            "ping": {"tg3": [100.0, 200.0, 300.0], "e1000": [100.0]},
            "pktgen, 60 B": {"tg3": [10.0], "e1000": [20.0]},
            "RX, bursts of 64": {"tg3": [30.0], "e1000": [24.0]},
            "register read": {"tg3": [90.0], "e1000": [9.0]},
        },
        "idle": {"boot": {"with": [5.0], "without": [5.1]}},
    }
    ping, pktgen, bursts, register, boot = (line for line in tg3.table(result) if "x as fast" in line)
    assert "0.50x as fast   (goal 1x: MISSED)" in ping
    assert "2.00x as fast   (goal 1x: met)" in pktgen
    assert "0.80x as fast   (goal 1x: MISSED)" in bursts
    assert register.endswith("0.10x as fast")
    assert boot.endswith("1.02x as fast   (goal 0.95x: met)")


def test_every_row_with_a_goal_is_one_that_both_drivers_are_measured_in() -> None:
    sent, received = (
        {"pktgen, 60 B", "pktgen, 1514 B", "UDP sendto, 100 B"},
        {"RX, 64 to 128 on their way", "RX, bursts of 64"},
    )
    assert set(tg3.BOUND) == sent | received | {"ping"}
    assert set(tg3.ID_REGISTERS) == {nic.model for nic in tg3.NICS}
