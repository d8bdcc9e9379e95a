"""The MAC's counters. In: frames as they are on the wire. Out: registers 0x800 to 0x8b8, which a read clears.

Rule: octets count the frame with its FCS, as the MAC does; a frame is unicast, multicast or broadcast. Counters stop at their top
until somebody reads them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from guest.netpoll.layout.bcm5787 import FCS, Reg

_TOP, _ALL = 0xFFFF_FFFF, b"\xff" * 6
_Registers = tuple[int, int, int, int]  # octets, unicast, multicast, broadcast
_TX: _Registers = (
    int(Reg.MAC_TX_STATS_OCTETS), int(Reg.MAC_TX_STATS_UCAST), int(Reg.MAC_TX_STATS_MCAST), int(Reg.MAC_TX_STATS_BCAST)
)  # fmt: skip
_RX: _Registers = (
    int(Reg.MAC_RX_STATS_OCTETS), int(Reg.MAC_RX_STATS_UCAST), int(Reg.MAC_RX_STATS_MCAST), int(Reg.MAC_RX_STATS_BCAST)
)  # fmt: skip


class Statistics:
    def __init__(self, values: Callable[[], array[int]]) -> None:
        self._values = values

    def add(self, register: int, count: int = 1) -> None:
        values, at = self._values(), register >> 2
        total = values[at] + count
        values[at] = total if total <= _TOP else _TOP

    def clear_on_read(self, register: int) -> Callable[[int], int]:
        """The `read` of a counter's row."""

        def read(value: int) -> int:
            self._values()[register >> 2] = 0
            return value

        return read

    def sent(self, frames: Sequence[bytes]) -> None:
        self._count(_TX, frames)

    def received(self, frames: Sequence[bytes]) -> None:
        self._count(_RX, frames)

    def _count(self, registers: _Registers, frames: Sequence[bytes]) -> None:
        octets, unicast, multicast, broadcast = registers
        self.add(octets, sum(map(len, frames)) + FCS * len(frames))
        groups = [frame for frame in frames if frame[0] & 1]
        if groups:
            to_all = sum(frame[:6] == _ALL for frame in groups)
            self.add(broadcast, to_all)
            self.add(multicast, len(groups) - to_all)
        self.add(unicast, len(frames) - len(groups))
