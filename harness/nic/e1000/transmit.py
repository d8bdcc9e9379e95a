"""The transmit engine: descriptors to frames (manual, 3.3 to 3.5).

In: TDT. Out: frames, TDH, DD in descriptors that asked for it, causes. Rule: a frame whose memory is not there is lost with its
descriptors, a ring that is not there with all that it holds; a frame that grows beyond `LONGEST` is thrown away, since a driver could build one without end.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from guest.netpoll.layout.e1000 import (
    DTYP_CONTEXT,
    DTYP_DATA,
    TUCMD_TCP,
    TX_CMD_OFFSET,
    TX_CMD_SHIFT,
    TX_CONTEXT,
    TX_DTYP_SHIFT,
    TX_LENGTH_MASK,
    TX_SIZE,
    TX_STA_OFFSET,
    Ctrl,
    Int,
    Popts,
    Reg,
    TxCmd,
)
from guest.netpoll.wire.checksum import checksum
from harness.nic import offload
from harness.nic.bus import Bus
from harness.nic.e1000.interrupts import Interrupts
from harness.nic.faults import Faults
from harness.vfio_user.errors import DmaFault

MINIMUM = 60  # bytes; the MAC pads (TCTL.PSP)
LONGEST = 1 << 16  # bytes of one frame or of one to be segmented, which the 20 bits of PAYLEN could exceed
BURST = 512  # descriptors of a doorbell before others get their turn
_EOP, _RS, _DEXT, _TSE, _VLE, _IC = (
    int(bit) for bit in (TxCmd.EOP, TxCmd.RS, TxCmd.DEXT, TxCmd.IC, TxCmd.VLE, TxCmd.IC)
)
_IXSM, _TXSM = int(Popts.IXSM), int(Popts.TXSM)


@dataclass
class Context:
    """What the last context descriptor said; it holds until the next."""

    ip_start: int = 0
    ip_at: int = 0
    ip_end: int = 0
    l4_start: int = 0
    l4_at: int = 0
    l4_end: int = 0
    payload: int = 0
    command: int = 0
    header: int = 0
    mss: int = 0


class Transmit:
    """`values()`: the register file. `out(frame)` puts one frame on the wire. `tell(name, count)` counts."""

    def __init__(
        self,
        values: Callable[[], array[int]],
        bus: Bus,
        interrupts: Interrupts,
        faults: Faults,
        out: Callable[[bytes], None],
        tell: Callable[[str, int], None],
    ) -> None:
        self._values, self._bus, self._interrupts, self._faults = values, bus, interrupts, faults
        self._out, self._tell = out, tell
        self.reset()

    def reset(self) -> None:
        self._context = Context()
        self._pieces: list[bytes] = []
        self._size = 0
        self._lost = False
        self._first = (0, 0, 0)  # command, options and VLAN tag of the frame's first descriptor
        self._held: list[int] = []  # descriptors whose DD a fault keeps back

    def run(self) -> bool:
        """Send what lies between head and tail; True if some is left for another turn."""
        values = self._values()
        count = values[Reg.TDLEN >> 2] // TX_SIZE
        base = values[Reg.TDBAH >> 2] << 32 | values[Reg.TDBAL >> 2] & ~0xF
        head, tail = values[Reg.TDH >> 2] & 0xFFFF, values[Reg.TDT >> 2] & 0xFFFF
        if count == 0 or head >= count or tail >= count:
            return False
        completed = 0
        for _ in range(BURST):
            if head == tail:
                break
            try:
                completed += self._descriptor(base + head * TX_SIZE)
            except DmaFault:  # a ring that is not there: all of it is passed over
                self._tell("dma_faults", 1)
                self._lost = True
                head = tail
                break
            head = (head + 1) % count
        values[Reg.TDH >> 2] = head
        self._tell("tx_completed", completed)
        if head == tail:
            self._interrupts.mark(Int.TXQE)
        return head != tail

    def _descriptor(self, at: int) -> int:
        """One descriptor; returns how many frames it ended."""
        raw = self._bus.memory.read(at, TX_SIZE)
        command = raw[TX_CMD_OFFSET]
        kind = struct.unpack_from("<I", raw, 8)[0] >> TX_DTYP_SHIFT & 0xF if command & _DEXT else -1
        if kind == DTYP_CONTEXT:
            self._take_context(raw)
            self._write_back(at, command)
            return 0
        if kind not in (-1, DTYP_DATA):
            self._tell("tx_malformed", 1)
            return 0
        address, word = struct.unpack_from("<QI", raw)
        length = word & (TX_LENGTH_MASK if kind == DTYP_DATA else 0xFFFF)
        if not self._pieces and not self._lost:
            self._first = (command, raw[13] if kind == DTYP_DATA else 0, struct.unpack_from("<H", raw, 14)[0])
            self._legacy = (raw[10], raw[13]) if kind == -1 and command & _IC else None
        self._size += length
        if self._size > LONGEST:
            self._lost = True
        try:
            if not self._lost:
                self._pieces.append(self._bus.memory.read(address, length))
        except DmaFault:
            self._tell("dma_faults", 1)
            self._lost = True
        if not command & _EOP:
            self._write_back(at, command)
            return 0
        self._end(kind == DTYP_DATA)
        self._write_back(at, command)
        return 1

    def _take_context(self, raw: bytes) -> None:
        ip_start, ip_at, ip_end, l4_start, l4_at, l4_end, word, _, header, mss = TX_CONTEXT.unpack(raw)
        self._context = Context(
            ip_start, ip_at, ip_end, l4_start, l4_at, l4_end, word & TX_LENGTH_MASK, word >> TX_CMD_SHIFT, header, mss
        )

    def _write_back(self, at: int, command: int) -> None:
        """3.3.3.2: DD, if the descriptor asked for it."""
        if not command & _RS:
            return
        if self._faults.strikes("no-completions"):
            self._held.append(at)
            return
        self._bus.memory.write(at + TX_STA_OFFSET, b"\x01")
        self._interrupts.mark(Int.TXDW)

    def release(self) -> None:
        """`no-completions` has ended."""
        held, self._held = self._held, []
        for at in held:
            try:
                self._write_back(at, _RS)
            except DmaFault:
                self._tell("dma_faults", 1)

    def _end(self, data: bool) -> None:
        """A frame is whole."""
        frame, lost = b"".join(self._pieces), self._lost
        self._pieces, self._size, self._lost = [], 0, False
        if lost or len(frame) < offload.ETH:
            self._tell("tx_malformed", 1)
            return
        command, options, tci = self._first
        pieces: Iterable[bytes] = (frame,)
        if data:
            pieces = self._offloaded(frame, command, options)
        elif self._legacy is not None:
            offset, start = self._legacy
            pieces = (_summed(frame, start, offset, 0),)
        vlan = command & _VLE and self._values()[Reg.CTRL >> 2] & Ctrl.VME
        for piece in pieces:
            whole = offload.tag(piece, tci) if vlan else piece
            self._out(whole if len(whole) >= MINIMUM else whole.ljust(MINIMUM, b"\0"))

    def _offloaded(self, frame: bytes, command: int, options: int) -> Iterable[bytes]:
        context = self._context
        if command & _TSE and context.command & TUCMD_TCP and context.mss:
            return offload.segment(frame, context.mss, context.header - offload.ETH)
        if options & _IXSM:
            frame = _summed(frame, context.ip_start, context.ip_at, context.ip_end)
        if options & _TXSM:
            frame = _summed(frame, context.l4_start, context.l4_at, context.l4_end)
        return (frame,)


def _summed(frame: bytes, start: int, at: int, end: int) -> bytes:
    """Store at `at` the checksum over `start` to `end`, the latter included; 0 is the frame's end (3.4.5)."""
    last = end + 1 if end else len(frame)
    if not start < last <= len(frame) or at + 2 > len(frame):
        return frame
    value = checksum(frame[start:last]) or 0xFFFF
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]
