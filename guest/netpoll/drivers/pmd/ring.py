"""A descriptor ring's bookkeeping: two counters, and a buffer in DMA memory for each descriptor.

In: a bus, how many descriptors, how large a buffer. Out: which slot is next. The one rule: `next_to_use` and
`next_to_clean` count up for ever and are masked where a slot is meant, so that their difference is what is in
flight, and a full ring is not mistaken for an empty one.

Who fills moves `next_to_use`, who cleans moves `next_to_clean`: they may be two CPUs without a lock.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from guest.netpoll.drivers.pmd.bus import PciDevice
from guest.netpoll.frame import Stamp

BUFFER = 2048  # bytes: a frame of 1518, a header before it, and no buffer crosses a page


class Ring:
    """`count`: descriptors, a power of two. `usable`: how many of them may be in flight. `headroom`: bytes before each frame
    that `addresses` count in and `buffers` do not."""

    __slots__ = (
        "addresses", "buffers", "count", "mask", "memory", "next_to_clean", "next_to_use", "room", "stamps", "usable",
    )  # fmt: skip

    def __init__(self, bus: PciDevice, count: int, usable: int | None = None, headroom: int = 0) -> None:
        self.count, self.mask, self.usable = count, count - 1, count if usable is None else usable
        memory = bus.dma_alloc(count * BUFFER, 4096)
        self.memory = memory.view
        self.buffers = [memory.view[at + headroom : at + BUFFER] for at in range(0, count * BUFFER, BUFFER)]
        self.addresses = [memory.address + at for at in range(0, count * BUFFER, BUFFER)]
        self.next_to_use = self.next_to_clean = 0
        self.room = 0  # see direct.py; transmit rings only
        self.stamps: list[Stamp] = [None] * count  # what descriptor and buffer of each slot hold

    def free(self) -> int:
        """How many descriptors can still be filled."""
        return self.usable - (self.next_to_use - self.next_to_clean)

    def in_flight(self) -> int:
        """How many the device has."""
        return self.next_to_use - self.next_to_clean

    def reset(self) -> None:
        """As after a reset of the device: it has none."""
        self.next_to_use = self.next_to_clean = self.room = 0
        self.stamps[:] = [None] * self.count


def quads(values: Sequence[int]) -> memoryview:
    """A column of 64-bit fields, for one store into a strided view: struct makes it in half the time that array takes."""
    return memoryview(struct.pack(f"@{len(values)}Q", *values)).cast("Q")
