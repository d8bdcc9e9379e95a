"""The counters (manual, 13.7). In: frames as they are on the wire. Out: registers 0x4000 to 0x40ff, which a read clears.

Rule: octets count the frame with its FCS; a counter stops at its top; those of 64 bits are cleared by reading the upper half.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from guest.netpoll.layout.e1000 import FCS, Reg

_TOP = 0xFFFF_FFFF
_SIZES = (64, 127, 255, 511, 1023)  # upper ends of PRC64, PRC127, ...
WIDE = {Reg.GORCL: Reg.GORCH, Reg.GOTCL: Reg.GOTCH, Reg.TORL: Reg.TORH, Reg.TOTL: Reg.TOTH}


class Statistics:
    def __init__(self, values: Callable[[], array[int]]) -> None:
        self._values = values

    def add(self, register: int, count: int = 1) -> None:
        values, at = self._values(), register >> 2
        values[at] = min(values[at] + count, _TOP)

    def _add_wide(self, register: int, count: int) -> None:
        values, at = self._values(), register >> 2
        total = (values[at + 1] << 32 | values[at]) + count
        values[at], values[at + 1] = total & _TOP, total >> 32 & _TOP

    def clear_on_read(self, register: int) -> Callable[[int], int] | None:
        """The `read` of a counter's row; None for a lower half, which stays until the upper is read."""
        if register in WIDE:
            return None
        lower = next((low for low, high in WIDE.items() if high == register), None)

        def read(value: int) -> int:
            values = self._values()
            values[register >> 2] = 0
            if lower is not None:
                values[lower >> 2] = 0
            return value

        return read

    def sent(self, frame: bytes) -> None:
        self._count(frame, Reg.PTC64, (Reg.GPTC, Reg.TPT), (Reg.GOTCL, Reg.TOTL), Reg.MPTC, Reg.BPTC)

    def received(self, frame: bytes) -> None:
        self._count(frame, Reg.PRC64, (Reg.GPRC, Reg.TPR), (Reg.GORCL, Reg.TORL), Reg.MPRC, Reg.BPRC)

    def _count(
        self, frame: bytes, sizes: int, frames: tuple[int, int], octets: tuple[int, int], multicast: int, broadcast: int
    ) -> None:
        size = len(frame) + FCS
        self.add(sizes + 4 * next((n for n, end in enumerate(_SIZES) if size <= end), len(_SIZES)))
        for register in frames:
            self.add(register)
        for register in octets:
            self._add_wide(register, size)
        if frame[0] & 1:
            self.add(broadcast if frame[:6] == b"\xff" * 6 else multicast)
