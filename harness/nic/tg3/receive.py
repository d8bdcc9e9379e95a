"""The receive engine: frames from the wire into the standard ring's buffers, told by the return ring.

In: frames that passed the filter. Out: buffers and return descriptors in guest memory, and the producer index in the status block. Rule:
where no buffer or no place in the return ring is left, the frame is not taken, and whoever has it keeps it until `resume`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from guest.netpoll.layout.bcm5787 import FCS, RX_BD, RX_RETURN_RING, RX_STD_RING, Reg, RxFlag, RxMode
from harness.nic import offload
from harness.nic.bus import Bus, Memory
from harness.nic.tg3.status import HostCoalescing
from harness.vfio_user.errors import DmaFault

# Plain numbers: an IntFlag's `&` costs as much as a DMA read.
_KEEP_TAG, _IPV6 = int(RxMode.KEEP_VLAN_TAG), int(RxMode.IPV6_CSUM_ENABLE)
_END, _VLAN, _IP_CSUM = int(RxFlag.END), int(RxFlag.VLAN), int(RxFlag.IP_CSUM)
_L4_CSUM, _IS_TCP = int(RxFlag.TCPUDP_CSUM), int(RxFlag.IS_TCP)
_PLAIN_UDP, _PLAIN_TCP = _END | _IP_CSUM | _L4_CSUM, _END | _IP_CSUM | _L4_CSUM | _IS_TCP
_SIZE = RX_BD.size
_MODE = int(Reg.MAC_RX_MODE) >> 2
_STD_HIGH, _STD_LOW = int(Reg.RCVDBDI_STD_BD_HOST_ADDR_HIGH) >> 2, int(Reg.RCVDBDI_STD_BD_HOST_ADDR_LOW) >> 2


class Receive:
    """`ring()`: the return ring's address. `values()`: the register file."""

    def __init__(
        self,
        values: Callable[[], array[int]],
        ring: Callable[[], int],
        bus: Bus,
        status: HostCoalescing,
        tell: Callable[[str, int], None],
    ) -> None:
        self._values, self._ring, self._bus, self._status, self._tell = values, ring, bus, status, tell
        self.reset()

    def reset(self) -> None:
        self.std_producer = self._std_consumer = 0
        self._producer = self.return_consumer = 0

    def room(self) -> int:
        """How many more frames can be taken."""
        buffers = (self.std_producer - self._std_consumer) % RX_STD_RING
        places = (self.return_consumer - self._producer - 1) % RX_RETURN_RING
        return buffers if buffers < places else places

    def take(self, frames: Sequence[bytes]) -> None:
        """Put frames into the next buffers; there is room. The driver hears of them as often as it has asked for."""
        at = 0
        while at < len(frames):
            due, left = self._status.rx_due(), min(RX_STD_RING - self._std_consumer, RX_RETURN_RING - self._producer)
            piece = frames[at : at + (min(due, left) if due > 0 else left)]
            self._deliver(piece)
            at += len(piece)

    def _deliver(self, frames: Sequence[bytes]) -> None:
        """Frames whose descriptors lie side by side in either ring. Those behind a fault of DMA are lost."""
        values, memory = self._values(), self._bus.memory
        mode = values[_MODE]
        base = (values[_STD_HIGH] << 32 | values[_STD_LOW]) + self._std_consumer * _SIZE
        done: list[bytes] = []
        try:
            buffers = RX_BD.iter_unpack(memory.read(base, len(frames) * _SIZE))
            for frame, buffer in zip(frames, buffers, strict=True):
                done.append(_fill(memory, mode, frame, buffer))
        except DmaFault:
            self._tell("dma_faults", 1)
        try:
            memory.write(self._ring() + self._producer * _SIZE, b"".join(done))
        except DmaFault:
            self._tell("dma_faults", 1)
            return
        self._std_consumer = (self._std_consumer + len(done)) % RX_STD_RING
        self._producer = (self._producer + len(done)) % RX_RETURN_RING
        self._status.rx_std_consumer, self._status.rx_producer = self._std_consumer, self._producer
        self._status.received(len(done))


def _fill(memory: Memory, mode: int, frame: bytes, buffer: tuple[int, ...]) -> bytes:
    """Put a frame into a buffer; returns the return descriptor. Raises DmaFault."""
    high, low, idx_len, _, _, _, _, opaque = buffer
    if (plain := offload.plain_sums(frame)) is not None:  # most are, and have no tag
        memory.write(high << 32 | low, frame[: idx_len & 0xFFFF])
        flags = _PLAIN_TCP if plain[0] == offload.TCP else _PLAIN_UDP
        return RX_BD.pack(
            high, low, idx_len & ~0xFFFF | len(frame) + FCS, flags, plain[1] << 16 | plain[2], 0, 0, opaque
        )
    frame, tci = (frame, None) if mode & _KEEP_TAG else offload.untag(frame)
    memory.write(high << 32 | low, frame[: idx_len & 0xFFFF])
    flags, sums = _checked(frame, bool(mode & _IPV6))
    flags |= _END if tci is None else _END | _VLAN
    return RX_BD.pack(high, low, idx_len & ~0xFFFF | len(frame) + FCS, flags, sums, tci or 0, 0, opaque)


def _checked(frame: bytes, ipv6: bool) -> tuple[int, int]:
    """Checksum flags and the word of sums of a return descriptor, of any frame without a tag."""
    flags = sums = 0
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
        flags, sums = _IP_CSUM, offload.ip_sum(frame) << 16
    found = offload.received_sums(frame)
    if found is None or (found[0] == 6 and not ipv6):
        return flags, sums
    flags |= _L4_CSUM | (_IS_TCP if found[1] == offload.TCP else 0)
    return flags, sums | found[2]
