"""Raises where three octets, each compared by itself, stand at the start."""

from __future__ import annotations

from guest.tests.fuzz.table import Target


def run(data: bytes) -> None:
    octets = data.ljust(3, b"\0")
    if octets[0] == ord("N"):  # noqa: SIM102  # a line a step, for distil
        if octets[1] == ord("E"):  # noqa: SIM102
            if octets[2] == ord("T"):
                raise IndexError("the planted fault")


TARGET = Target(run, lambda: [b"seed"], max_len=8)
