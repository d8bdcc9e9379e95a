"""Does not come back from two octets, each compared by itself, at the start."""

from __future__ import annotations

from guest.tests.fuzz.table import Target


def run(data: bytes) -> None:
    while len(data) > 1 and data[0] == ord("U") and data[1] == ord("P"):
        pass


TARGET = Target(run, lambda: [b"seed"], max_len=8)
