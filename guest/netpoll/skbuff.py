"""sk_buff and its emergency pool.

In: a frame, from its Ethernet header on, and the device that it goes to or came from. Out: the same.
The one rule: an skb has one owner. Who takes it (a driver that returned OK, a drop routine, netif_rx)
frees it or hands it on; who was refused (BUSY, LOCKED) keeps it. kfree_skb() ends a life exactly once.

Left out against the kernel: headroom, fragments and the header pointers. `data` always is the whole
frame, and where a protocol starts follows from `protocol`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest.netpoll.netdevice import NetDevice, NetpollSender

MAX_UDP_CHUNK = 1460
MAX_SKBS = 32
MAX_SKB_SIZE = MAX_UDP_CHUNK + 14 + 20 + 8  # netpoll.c: what a pool skb has room for
NET_IP_ALIGN = 2

# skb.pkt_type (linux/if_packet.h)
PACKET_HOST = 0
PACKET_BROADCAST = 1
PACKET_MULTICAST = 2
PACKET_OTHERHOST = 3
PACKET_OUTGOING = 4

# skb.ip_summed (linux/skbuff.h)
CHECKSUM_NONE = 0  # nobody looked: verify in software
CHECKSUM_PARTIAL = 3  # to send: the device fills it in
CHECKSUM_UNNECESSARY = 1  # the device verified it, or the sender was local and never filled it in


class DropReason(enum.Enum):
    """Why an skb did not leave. Set on the skb before a drop routine sees it."""

    NOT_RUNNING = "device is down or gone"
    RECURSION = "sent from inside its own driver"
    RETRIES = "queue stayed stopped through all retries"
    LOCKED = "another CPU kept xmit_lock through all retries"
    QUEUE_FULL = "netpoll_queue holds its full depth already"
    FLUSHED = "netpoll was cleaned up before process context came"


@dataclass(slots=True)  # not frozen: that takes 4 us more to make
class FrameRun:
    """Frames of one length that need no sk_buff each, as NetDevice.xmit_run() takes them: frame n is the `size` octets from
    `first` + n * `stride` on, and the device's `needed_headroom` octets before it are zeros."""

    octets: bytearray
    first: int
    size: int
    stride: int
    count: int

    def frame(self, number: int) -> bytes:
        """One of them, for a way that needs it by itself."""
        at = self.first + number * self.stride
        return bytes(self.octets[at : at + self.size])

    def rest(self, done: int) -> FrameRun:
        """Without the first `done`."""
        return FrameRun(self.octets, self.first + done * self.stride, self.size, self.stride, self.count - done)


class SkbError(RuntimeError):
    """An skb used against its ownership rule: our bug, not the peer's."""


class SkBuff:
    """One frame. `data` is bytes where it was allocated at need, a memoryview of the pool's where not."""

    __slots__ = (
        "data",
        "dev",
        "drop_reason",
        "gso_size",
        "ip_summed",
        "np",
        "pkt_type",
        "priority",
        "protocol",
        "users",
    )

    def __init__(self, data: bytes | bytearray | memoryview, dev: NetDevice | None = None, protocol: int = 0) -> None:
        self.data = data
        self.dev = dev
        self.protocol = protocol
        self.pkt_type = PACKET_HOST
        self.ip_summed = CHECKSUM_NONE
        self.gso_size = 0  # octets of each message, where the device is to cut the frame into several
        self.priority = 0
        self.users = 1
        self.np: NetpollSender | None = None  # the client that made it, for its counters
        self.drop_reason: DropReason | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        name = self.dev.name if self.dev else "-"
        return f"<SkBuff {len(self.data)} octets, {name}, protocol {self.protocol:#06x}, users {self.users}>"


def skb_get(skb: SkBuff) -> SkBuff:
    """Take another reference; skb_shared() is true until it is given back."""
    skb.users += 1
    return skb


def skb_shared(skb: SkBuff) -> bool:
    """True if somebody else holds a reference: netpoll_rx() leaves such frames alone."""
    return skb.users != 1


def skb_clone(skb: SkBuff) -> SkBuff:
    """A second skb over the same octets, owned on its own (bonding's broadcast mode)."""
    clone = SkBuff(skb.data, skb.dev, skb.protocol)
    clone.pkt_type = skb.pkt_type
    clone.ip_summed = skb.ip_summed
    clone.priority = skb.priority
    return clone


def kfree_skb(skb: SkBuff) -> None:
    """Give back one reference; raises SkbError if there was none left."""
    if skb.users <= 0:
        raise SkbError(f"{skb!r} freed twice")
    skb.users -= 1


def eth_type_trans(skb: SkBuff, dev: NetDevice) -> int:
    """Set dev, pkt_type and protocol from the frame's header; return the protocol (0 if there is none)."""
    data = skb.data
    skb.dev = dev
    if data[:6] != dev.dev_addr:
        skb.pkt_type = PACKET_OTHERHOST
        if data and data[0] & 1:
            skb.pkt_type = PACKET_BROADCAST if data[:6] == b"\xff" * 6 else PACKET_MULTICAST
    skb.protocol = int.from_bytes(data[12:14], "big")
    return skb.protocol


class SkbPool:
    """MAX_SKBS skbs set aside for when memory runs out (netpoll.c: skbs, refill_skbs, find_skb).

    `alloc(data, dev)` is where skbs come from, GFP_ATOMIC's stand-in: it raises MemoryError when there
    is none. A test that starves the stack replaces it.
    """

    def __init__(self, alloc: Callable[..., SkBuff] = SkBuff, size: int = MAX_SKBS) -> None:
        self.alloc = alloc
        self.size = size
        self.used = 0
        self._spare: list[SkBuff] = []

    def __len__(self) -> int:
        return len(self._spare)

    def refill_skbs(self) -> int:
        """Top the pool up as far as memory allows; return how many skbs it now holds."""
        spare = self._spare
        while len(spare) < self.size:
            try:
                spare.append(self.alloc(bytearray(MAX_SKB_SIZE)))
            except MemoryError:
                break
        return len(spare)

    def find_skb(self, size: int) -> SkBuff | None:
        """A writable skb of `size` octets: fresh, else from the pool, else None."""
        try:
            return self.alloc(bytearray(size))
        except MemoryError:
            return self.take(size)

    def take(self, size: int) -> SkBuff | None:
        """A pool skb cut to `size` octets; None if the pool is empty or its skbs are too small."""
        if size > MAX_SKB_SIZE or not self._spare:
            return None
        skb = self._spare.pop()
        skb.data = memoryview(skb.data)[:size]
        self.used += 1
        return skb
