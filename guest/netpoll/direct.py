"""Messages straight into a NIC's ring: netpoll_send_udp() without a frame, an sk_buff and a call of the driver for each.

In: a message of a client over IPv4 on a device that tells of its ring (NetDevice.direct_tx). Out: the frame in the next descriptor's buffer and
the doorbell rung, or False. The one rule: False means that nothing was done, and netpoll_send_skb() and hard_start_xmit() decide. So the way is
open only while nothing is to be decided: xmit_lock free, queue open, nothing queued, a descriptor besides the last one, which stops the queue.

A descriptor and its buffer keep what does not change from message to message: address, length and flags, MAC addresses. `stamps` says for which
client and length; whoever else uses them takes the stamp away. What remains is one store: the headers' other fields, checksums, the message.

Nobody is called here with xmit_lock held who might send, but by flush() and by what a driver tells of: then this CPU is noted as the lock's owner,
as it is for hard_start_xmit().
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from guest.netpoll.context import smp_processor_id
from guest.netpoll.frame import TOT_LEN, FrameV4, Message, Shape, Stamp
from guest.netpoll.netdevice import NetDevice
from guest.netpoll.txq import flush

if TYPE_CHECKING:
    from guest.netpoll.core import Netpoll, NetpollInfo

_from_bytes = int.from_bytes
_NO_EVENTS = memoryview(b"")


class Store(Protocol):
    """Registers or memory of one width, by number: a memoryview, or a model's registers."""

    def __setitem__(self, number: int, value: int, /) -> None: ...


class TxRing(Protocol):
    """What is read and moved of a transmit ring (drivers.pmd.ring.Ring). `room`: how far `next_to_use` may go before it is looked after."""

    mask: int
    memory: memoryview
    next_to_use: int
    room: int
    stamps: list[Stamp]


@dataclass(frozen=True, slots=True)
class Bell:
    """`store[at] = value` wakes a NIC that reads the index in memory, when `events[event_at]` is the index of before (virtio 1.2, 2.7.10)."""

    store: Store
    at: int
    value: int
    events: memoryview
    event_at: int


@dataclass(frozen=True, slots=True)
class DirectTx:
    """A NIC's transmit ring. `index[at] = next_to_use & wrap` gives the NIC all frames before that, and tells it so unless there is a `bell`.

    places                   where in ring.memory the frame of each slot begins, `headroom` octets of the NIC's own behind where the slot does
    fill(slot, size)         frames of `size` octets, headroom included, into the descriptor
    begin(slot, header)      how the slot's frames begin, into the buffer
    make_room()              look how much room there is; False if it is not more than one descriptor. xmit_lock is held
    """

    ring: TxRing
    places: list[int]
    headroom: int
    index: Store
    at: int
    wrap: int
    fill: Callable[[int, int], None]
    begin: Callable[[int, bytes], None]
    make_room: Callable[[], bool]
    bell: Bell | None = None


DirectXmit = Callable[[Message], bool]


def direct_xmit(np: Netpoll, dev: NetDevice, npinfo: NetpollInfo) -> DirectXmit | None:
    """The function that sends np's messages directly; None where each needs netpoll_send_skb()."""
    tx, template = dev.direct_tx(), np.template
    if tx is None or not isinstance(template, FrameV4) or dev.net.era_recursion:
        return None
    return _make(np, dev, npinfo, tx, template)


def _make(np: Netpoll, dev: NetDevice, npinfo: NetpollInfo, tx: DirectTx, template: FrameV4) -> DirectXmit:
    """A closure, in one piece: of the time that a message takes, calls and attributes are the larger part."""
    ring, memory, mask, stamps = tx.ring, tx.ring.memory, tx.ring.mask, tx.ring.stamps
    places = [at + TOT_LEN for at in tx.places]
    index, at, wrap, bell, fill, begin = tx.index, tx.at, tx.wrap, tx.bell, tx.fill, tx.begin
    events, event_at = (bell.events, bell.event_at) if bell else (_NO_EVENTS, 0)
    stats, txq, longest = np.stats, npinfo.txq, np.max_payload
    mid, tail, header = template.mid, template.tail, template.header()
    around = len(header) + tx.headroom
    shapes: list[Shape | None] = [None] * (longest + 1)

    def shape_of(size: int) -> Shape:
        shape = shapes[size] = template.shape(size)
        return shape

    def xmit(msg: Message) -> bool:
        size, lock = len(msg), dev.xmit_lock
        if size > longest or not lock.acquire(False):
            return False
        try:
            use = ring.next_to_use
            if dev.xoff or txq or (use >= ring.room and not _as_owner(dev, tx.make_room)):
                return False
            shape, slot = shapes[size] or shape_of(size), use & mask
            before = stamps[slot]
            if before is not shape:
                if before is None or before[0] is not template:
                    begin(slot, header)
                fill(slot, size + around)
                stamps[slot] = shape
            _, pack_into, tot_len, ip_base, udp_len, udp_base, odd = shape
            payload, ident, after = _from_bytes(msg), template.ident + 1 & 0xFFFF, use + 1
            if odd:
                payload <<= 8
            ip_check, udp_check = (ip_base - ident) % 65535, (udp_base - payload) % 65535 or 65535
            pack_into(memory, places[slot], tot_len, ident, mid, ip_check, tail, udp_len, udp_check, msg)
            template.ident, ring.next_to_use = ident, after
            index[at] = after & wrap
            if txq:
                _as_owner(dev, lambda: flush(npinfo))
        except (MemoryError, struct.error):  # there is the pool, then; struct takes no memoryview
            return False
        finally:
            lock.release()  # a locked exchange: the index is there before the event is looked at
        if bell is not None and events[event_at] == use & wrap:
            bell.store[bell.at] = bell.value
        stats.sent += 1
        npinfo.tries = npinfo.max_retries
        return True

    return xmit


def _as_owner(dev: NetDevice, work: Callable[[], bool]) -> bool:
    """Where somebody may be told who then sends: he is to find that this CPU has xmit_lock. False, too, if the queue stopped."""
    dev.xmit_lock_owner = smp_processor_id()
    try:
        return work() and not dev.xoff
    finally:
        dev.xmit_lock_owner = 0
