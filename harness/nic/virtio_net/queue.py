"""A split virtqueue from the device's side (virtio 1.2, 2.7).

In: addresses that the driver gave, what it put into the available ring. Out: chains of buffers, and used entries. Rule: all of it is the
guest's: an index, a length or a chain that makes no sense raises BadRing, memory that is not there raises DmaFault, and neither
is followed any further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guest.netpoll.layout.virtio import (
    AVAIL_F_NO_INTERRUPT,
    DESC,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    NO_VECTOR,
    RING_HEADER,
    USED_ELEM,
    USED_F_NO_NOTIFY,
    need_event,
)
from harness.nic.bus import Memory

LONGEST = 1 << 16  # bytes of a chain that we read: a frame has less
Piece = tuple[int, int]  # address, length


class BadRing(Exception):
    """The driver broke the ring's rules: the device needs a reset (2.1.2)."""


@dataclass(frozen=True)
class Chain:
    """What one available entry stands for: what the device reads, then what it writes."""

    head: int
    out: Sequence[Piece]
    into: Sequence[Piece]

    @property
    def room(self) -> int:
        return sum(length for _, length in self.into)


class Queue:
    """`largest`: what the device offers. Fields are the common configuration's for this queue."""

    def __init__(self, memory: Memory, largest: int) -> None:
        self._memory, self.largest = memory, largest
        self.reset()

    def reset(self) -> None:
        self.size = self.largest
        self.desc = self.driver = self.device = 0
        self.enabled = False
        self.vector = NO_VECTOR
        self.event_idx = self.indirect = False
        self.taken = self.used = 0  # our place in the available and in the used ring
        self._told = 0  # `used` when the driver was interrupted last
        self._seen = 0  # the available index as read last

    def _load16(self, address: int) -> int:
        return int.from_bytes(self._memory.read(address, 2), "little")

    def waiting(self) -> int:
        """How many entries are available."""
        if self._seen == self.taken:
            self._seen = self._load16(self.driver + 2)
        count = (self._seen - self.taken) & 0xFFFF
        if count > self.size:
            raise BadRing(f"{count} entries available in a ring of {self.size}")
        return count

    def pop(self, ahead: int = 0) -> Chain:
        """The next chain, or one further on; take it with `advance`."""
        place = (self.taken + ahead) % self.size
        return self._chain(self._load16(self.driver + 4 + 2 * place))

    def advance(self, count: int = 1) -> None:
        self.taken = (self.taken + count) & 0xFFFF

    def _chain(self, head: int) -> Chain:
        if head >= self.size:
            raise BadRing(f"descriptor {head} of {self.size}")
        table, entries, at = self.desc, self.size, head
        address, length, flags, following = DESC.unpack(self._memory.read(table + at * DESC.size, DESC.size))
        if flags & DESC_F_INDIRECT:
            if not self.indirect or flags & DESC_F_NEXT or length % DESC.size or not 0 < length <= DESC.size * 0x8000:
                raise BadRing(f"an indirect descriptor of {length} bytes, flags {flags:#x}")
            table, entries = address, length // DESC.size
            address, length, flags, following = DESC.unpack(self._memory.read(table, DESC.size))
        out: list[Piece] = []
        into: list[Piece] = []
        for _ in range(entries):
            if flags & DESC_F_INDIRECT:
                raise BadRing("an indirect descriptor inside a chain")
            if not flags & DESC_F_WRITE and into:
                raise BadRing("a buffer to read behind one to write")
            (into if flags & DESC_F_WRITE else out).append((address, length))
            if not flags & DESC_F_NEXT:
                return Chain(head, out, into)
            if following >= entries:
                raise BadRing(f"descriptor {following} of {entries}")
            address, length, flags, following = DESC.unpack(self._memory.read(table + following * DESC.size, DESC.size))
        raise BadRing("a chain without end")

    def read(self, chain: Chain) -> bytes:
        """Everything that the driver wrote into a chain."""
        if sum(length for _, length in chain.out) > LONGEST:
            raise BadRing(f"more than {LONGEST} bytes in one chain")
        if len(chain.out) == 1:
            return self._memory.read(*chain.out[0])
        return b"".join(self._memory.read(address, length) for address, length in chain.out)

    def write(self, chain: Chain, data: bytes) -> int:
        """Fill a chain's buffers, as far as they go; returns how much that was."""
        at = 0
        for address, length in chain.into:
            if at >= len(data):
                break
            piece = data[at : at + length]
            self._memory.write(address, piece)
            at += len(piece)
        return at

    def give(self, head: int, length: int, ahead: int = 0) -> None:
        """Put a chain into the used ring; the driver sees it from `publish` on."""
        self._memory.write(self.device + 4 + 8 * ((self.used + ahead) % self.size), USED_ELEM.pack(head, length))

    def publish(self, count: int = 1) -> None:
        self.used = (self.used + count) & 0xFFFF
        self._memory.store16(self.device + 2, self.used)

    def tell(self) -> bool:
        """Whether the driver wants to be interrupted for what was published since it was last asked."""
        old, self._told = self._told, self.used
        if old == self.used:
            return False
        if self.event_idx:
            return need_event(self._load16(self.driver + 4 + 2 * self.size), self.used, old)
        return not RING_HEADER.unpack(self._memory.read(self.driver, 4))[0] & AVAIL_F_NO_INTERRUPT

    def want_notification(self, wanted: bool) -> None:
        """Whether the driver is to ring for what it makes available from now on; look at `waiting` again after asking for it."""
        if self.event_idx:
            if wanted:
                self._memory.store16(self.device + 4 + 8 * self.size, self.taken)
        else:
            self._memory.store16(self.device, 0 if wanted else USED_F_NO_NOTIFY)
        self._seen = self.taken

    def idle(self) -> bool:
        """Whether nothing is available, and the driver will ring when there is."""
        if self.waiting():
            return False
        self.want_notification(True)
        return not self.waiting()
