"""What `bench stack` makes of its figures: a goal that is missed, or was not measured, is no success."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from guest.netpoll.bench import Row
from harness.bench import stack

ROWS = [
    Row("socket.sendto", 10.0, "socket.sendto", 1.0),
    Row("netpoll_send_udp, rings", 5.0, "socket.sendto", 2.0, 1.0),
    Row("netpoll_send_udp, rings", 5.0, "scapy.sendp", 9.0, 5.0),
    Row("layer: sk_buff", 0.5),
]
FLAT = [[n * 100_000, 30 << 20] for n in range(1, 101)]


def figures(rows: list[Row] | None = None, memory: list[list[int]] | None = None) -> dict[str, Any]:
    return {"rows": [dataclasses.asdict(row) for row in rows or ROWS], "memory": FLAT if memory is None else memory}


def grown(octets: int, at: int) -> list[list[int]]:
    """Flat, but for so much more at one sample."""
    return [[frames, size + (octets if number == at else 0)] for number, (frames, size) in enumerate(FLAT)]


RESULTS = {
    "all met": (figures(), True, "(goal 5x: met)"),
    "a ratio missed": (figures([*ROWS, Row("rx_hook", 9.0, "socket.recvfrom", 0.99, 1.0)]), False, "(goal 1x: MISSED)"),
    "no scapy": (figures([row for row in ROWS if row.against != "scapy.sendp"]), False, "scapy is not installed"),
    "memory grown at the end": (figures(memory=grown(1 << 20, 99)), False, "+1024 KiB since frame 1,100,000"),
    "memory grown in between": (figures(memory=grown(1 << 20, 50)), False, "(goal at most 256 KiB: MISSED)"),
    "memory grown while warming up": (figures(memory=grown(1 << 20, 3)), True, "(goal at most 256 KiB: met)"),
    "memory not watched": (figures(memory=[]), True, "memory: not watched"),
}


@pytest.mark.parametrize(("result", "held", "said"), RESULTS.values(), ids=RESULTS)
def test_met_and_said(result: dict[str, Any], held: bool, said: str) -> None:
    assert stack.met(result) is held
    assert any(said in line for line in stack.table(result)), stack.table(result)
