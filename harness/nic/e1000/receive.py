"""The receive engine: frames into buffers (manual, 3.2).

In: frames that the filter has passed. Out: buffers, descriptors, RDH, causes. Rule: a frame goes into as many descriptors as it
needs or, if there are too few, is not taken; length, status and errors of a descriptor are stored together.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable

from guest.netpoll.layout.e1000 import (
    BSIZE_SHIFT,
    BUFFER_SIZES,
    FCS,
    RDMTS_SHIFT,
    RX_SIZE,
    Ctrl,
    Int,
    Rctl,
    Reg,
    Rxcsum,
    RxError,
    RxStatus,
)
from harness.nic import offload
from harness.nic.bus import Bus
from harness.nic.e1000.interrupts import Interrupts
from harness.vfio_user.errors import DmaFault

MINIMUM = 60
_REST = struct.Struct("<HHBBH")  # length, packet checksum, status, errors, special: the second half of a descriptor
_DD, _EOP, _IXSM, _VP = int(RxStatus.DD), int(RxStatus.EOP), int(RxStatus.IXSM), int(RxStatus.VP)
_TCPCS, _IPCS, _PIF = int(RxStatus.TCPCS), int(RxStatus.IPCS), int(RxStatus.PIF)


class Receive:
    """`values()`: the register file. `tell(name, count)` counts."""

    def __init__(
        self, values: Callable[[], array[int]], bus: Bus, interrupts: Interrupts, tell: Callable[[str, int], None]
    ) -> None:
        self._values, self._bus, self._interrupts, self._tell = values, bus, interrupts, tell

    def _ring(self) -> tuple[int, int, int, int]:
        """Address, size, head and tail; a size of 0 is a ring that cannot be used."""
        values = self._values()
        count = values[Reg.RDLEN >> 2] // RX_SIZE
        head, tail = values[Reg.RDH >> 2] & 0xFFFF, values[Reg.RDT >> 2] & 0xFFFF
        base = values[Reg.RDBAH >> 2] << 32 | values[Reg.RDBAL >> 2] & ~0xF
        return base, 0 if head >= count or tail >= count else count, head, tail

    def _buffer(self) -> int:
        control = self._values()[Reg.RCTL >> 2]
        size = BUFFER_SIZES[(control & Rctl.BSIZE) >> BSIZE_SHIFT]
        return size * 16 if control & Rctl.BSEX and control & Rctl.BSIZE else size

    def room(self, size: int) -> bool:
        """Whether a frame of `size` octets can be taken."""
        _, count, head, tail = self._ring()
        if not count:
            return False
        return (tail - head) % count * self._buffer() >= size + FCS

    def take(self, frame: bytes, exact: bool) -> None:
        """Put a frame into the next descriptors; there is room."""
        values = self._values()
        frame, tci = offload.untag(frame) if values[Reg.CTRL >> 2] & Ctrl.VME else (frame, None)
        frame = frame.ljust(MINIMUM, b"\0")
        status, errors, total = self._checked(frame)
        status |= (0 if exact else _PIF) | (_VP if tci is not None else 0)
        if not values[Reg.RCTL >> 2] & Rctl.SECRC:
            frame += zlib.crc32(frame).to_bytes(FCS, "little")
        base, count, head, tail = self._ring()
        size = self._buffer()
        for at in range(0, len(frame), size):
            piece = frame[at : at + size]
            last = _EOP if at + size >= len(frame) else 0
            try:
                self._write(
                    base + head * RX_SIZE, piece, _REST.pack(len(piece), total, status | _DD | last, errors, tci or 0)
                )
            except DmaFault:
                self._tell("dma_faults", 1)
            head = (head + 1) % count
        values[Reg.RDH >> 2] = head
        self._interrupts.mark(Int.RXT0)
        if (tail - head) % count <= count >> (1 + (values[Reg.RCTL >> 2] >> RDMTS_SHIFT & 3)):
            self._interrupts.mark(Int.RXDMT0)

    def _write(self, at: int, piece: bytes, rest: bytes) -> None:
        address = int.from_bytes(self._bus.memory.read(at, 8), "little")
        self._bus.memory.write(address, piece)
        self._bus.memory.write(at + 8, rest)

    def _checked(self, frame: bytes) -> tuple[int, int, int]:
        """Status and error bits for checksums, and the packet checksum from RXCSUM.PCSS on (3.2.9)."""
        control = self._values()[Reg.RXCSUM >> 2]
        if not control & (Rxcsum.IPOFL | Rxcsum.TUOFL):
            return _IXSM, 0, 0
        status = errors = 0
        if control & Rxcsum.IPOFL and frame[12:14] == b"\x08\x00" and len(frame) >= 34:
            status |= _IPCS
            errors |= 0 if offload.ip_sum(frame) == 0xFFFF else RxError.IPE
        found = offload.received_sums(frame) if control & Rxcsum.TUOFL else None
        if found is not None and found[0] == 4:
            status |= _TCPCS
            errors |= 0 if found[2] == 0xFFFF else RxError.TCPE
        return status or _IXSM, int(errors), 0
