"""The send engine: descriptors of the send ring to frames on the wire.

In: the producer mailbox. Out: frames, and the consumer index in the status block. Rule: a frame's descriptors are given back when all of
it has been read; a frame whose memory is not there is lost, with its descriptors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from guest.netpoll.layout.bcm5787 import TX_BD, TX_HEADER_SHIFT, TX_MSS, TX_RING, TxFlag
from harness.nic import offload
from harness.nic.bus import Bus
from harness.nic.tg3.status import HostCoalescing
from harness.vfio_user.errors import DmaFault

MINIMUM = 60  # bytes; the MAC pads
# Plain numbers: an IntFlag's `&` costs as much as a DMA read.
_END, _VLAN, _IP_CSUM, _L4_CSUM = int(TxFlag.END), int(TxFlag.VLAN), int(TxFlag.IP_CSUM), int(TxFlag.TCPUDP_CSUM)
_SEGMENT = int(TxFlag.CPU_PRE_DMA | TxFlag.CPU_POST_DMA)
_OFFLOAD = _VLAN | _IP_CSUM | _L4_CSUM | _SEGMENT
_NOT_PLAIN = _END | _OFFLOAD


class Transmit:
    """`ring()`: the ring's address. `out(frames)` puts frames on the wire. `tell(name, count)` counts."""

    def __init__(
        self,
        ring: Callable[[], int],
        bus: Bus,
        status: HostCoalescing,
        out: Callable[[Sequence[bytes]], None],
        tell: Callable[[str, int], None],
    ) -> None:
        self._ring, self._bus, self._status, self._out, self._tell = ring, bus, status, out, tell
        self.reset()

    def reset(self) -> None:
        self.producer = 0
        self._fetched = 0  # descriptors up to here are in `_pieces`, in `_ready` or done
        self._pieces: list[bytes] = []  # of a frame whose last descriptor is still to come
        self._ready: list[bytes] = []  # frames whose descriptors are not given back yet
        self._whole = 0  # descriptors up to here are of frames that are complete

    def run(self) -> None:
        """Send what lies between consumer and producer, and give descriptors back as often as the driver has asked for."""
        producer = self.producer % TX_RING
        if producer == self._fetched:
            return
        try:
            descriptors = self._fetch(producer)
        except DmaFault:
            self._tell("dma_faults", 1)
            self._fetched = producer
            return
        frames, due = 0, self._status.due()
        for high, low, len_flags, vlan_tag in descriptors:
            self._take(high << 32 | low, len_flags, vlan_tag)
            if len_flags & _END:
                self._whole = self._fetched
                frames += 1
                if frames == due:
                    self._give_back(frames)
                    frames, due = 0, self._status.due()
        self._give_back(frames)

    def _take(self, address: int, len_flags: int, vlan_tag: int) -> None:
        """One descriptor."""
        self._fetched = (self._fetched + 1) % TX_RING
        try:
            piece = self._bus.memory.read(address, len_flags >> 16)
        except DmaFault:
            self._tell("dma_faults", 1)
            piece = b""
        if len_flags & _NOT_PLAIN == _END and len(piece) >= MINIMUM and not self._pieces:
            self._ready.append(piece)
            return
        self._pieces.append(piece)
        if len_flags & _END:
            self._finish(len_flags, vlan_tag)

    def _give_back(self, frames: int) -> None:
        """What is ready leaves; then the driver may hear that `frames` descriptors' frames have left."""
        if not frames:
            return
        ready, self._ready = self._ready, []
        if ready:
            self._out(ready)
        self._status.tx_consumer = self._whole
        self._tell("tx_completed", frames)
        self._status.sent(frames)

    def _fetch(self, producer: int) -> Iterable[tuple[int, ...]]:
        """Descriptors from where we are to `producer`, in one read or two."""
        base, first = self._ring(), self._fetched
        last = producer if producer > first else TX_RING
        data = self._bus.memory.read(base + first * TX_BD.size, (last - first) * TX_BD.size)
        if producer <= first and producer:
            data += self._bus.memory.read(base, producer * TX_BD.size)
        return TX_BD.iter_unpack(data)

    def _finish(self, flags: int, vlan_tag: int) -> None:
        """A frame of several pieces, a short one, or one with work for the chip is complete."""
        pieces, self._pieces = self._pieces, []
        frame = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if b"" in pieces or len(frame) < offload.ETH:
            return
        for piece in _offloaded(frame, flags, vlan_tag >> 16) if flags & _OFFLOAD else (frame,):
            whole = offload.tag(piece, vlan_tag & 0xFFFF) if flags & _VLAN else piece
            self._ready.append(whole if len(whole) >= MINIMUM else whole.ljust(MINIMUM, b"\0"))


def _offloaded(frame: bytes, flags: int, mss: int) -> Iterable[bytes]:
    if mss & TX_MSS and flags & _SEGMENT:
        return offload.segment(frame, mss & TX_MSS, mss >> TX_HEADER_SHIFT << 2)
    if flags & _IP_CSUM:
        frame = offload.fill_ip_checksum(frame)
    if flags & _L4_CSUM:
        frame = offload.fill_checksum(frame)
    return (frame,)
