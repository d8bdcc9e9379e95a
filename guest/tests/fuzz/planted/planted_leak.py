"""Keeps a hundred megabytes for each input that begins with two octets, each compared by itself."""

from __future__ import annotations

from guest.tests.fuzz.table import Target

_KEPT: list[bytearray] = []


def run(data: bytes) -> None:
    if len(data) > 1 and data[0] == ord("M") and data[1] == ord("B"):
        _KEPT.append(bytearray(b"\1") * (100 << 20))


TARGET = Target(run, lambda: [b"seed"], max_len=8)
