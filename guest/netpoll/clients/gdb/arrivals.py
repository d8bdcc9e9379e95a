"""Which datagrams are new: RSP numbers nothing, so the IPv4 identification of the frames is looked at.

In: identifications in the order of arrival. Out: NEW (and how many before it have not come), OLD (a copy, or late), UNKNOWN.
The rule it keeps: only numbers that go up in small steps are believed; for any other sender everything is UNKNOWN.

Linux counts the identification per connected UDP socket, and gdb's is connected (net/ipv4: ip_select_ident_segs()). Others
may send zero or random numbers with DF (RFC 6864), and IPv6 has none; then only content and time are left to the caller.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

WINDOW = 64  # steps forwards or back that still belong to the same count


class Order(enum.Enum):
    """What is known of a datagram's place among those before it."""

    NEW = "new"
    OLD = "old"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Arrival:
    """`missing`: datagrams between this and the newest before it which have not come. 0 if that is not known."""

    order: Order
    missing: int = 0


class Arrivals:
    """The newest identification so far, and what follows from it for the next."""

    def __init__(self) -> None:
        self._newest: int | None = None

    def judge(self, ident: int | None) -> Arrival:
        """`ident`: 16 bits, or None where the packet has none."""
        if not ident:  # zero: the sender does not count
            return Arrival(Order.UNKNOWN)
        before, step = self._newest, 0 if self._newest is None else (ident - self._newest) & 0xFFFF
        if before is not None and (step == 0 or step >= 0x10000 - WINDOW):
            return Arrival(Order.OLD)
        self._newest = ident
        if before is None:
            return Arrival(Order.NEW)
        return Arrival(Order.NEW, step - 1) if step <= WINDOW else Arrival(Order.UNKNOWN)
