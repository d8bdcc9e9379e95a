"""AF_PACKET with descriptor rings shared with the kernel: TPACKET_V2 through mmap (packet_mmap.rst).

In: frames as in af_packet. Out: the same operations without a copying system call for each frame. The one
rule: a descriptor belongs to whom its status word says: the kernel's while SEND_REQUEST, SENDING or
KERNEL, ours while AVAILABLE or USER. TX descriptors come back when the NIC's own driver has completed the
frame, so a NIC that hangs makes this ring run out, and the queue stop, as its own would.

hard_start_xmit writes a descriptor and rings the doorbell (an empty send()), which has the kernel walk the
ring. A frame that the kernel's driver refused (ENOBUFS) or that found no room (EAGAIN) stays in the ring;
if it is the one just written it is taken back, so that netpoll keeps it. With `tx_coalesce` > 1 the
doorbell rings only for every so many frames, when the ring is full, when anybody polls, and by the loop
when it is next in process context: faster, but the last frames then wait for one of these.
"""

from __future__ import annotations

import errno
import mmap
import socket
from array import array
from collections.abc import Callable
from struct import Struct

from guest.netpoll.drivers.af_packet import CSUM_KNOWN, SOL_PACKET, TP_STATUS_VLAN_VALID, AfPacketDevice, apply_status
from guest.netpoll.drivers.kernel_link import GONE
from guest.netpoll.napi import netif_receive_skb
from guest.netpoll.netdevice import (
    NETDEV_TX_BUSY,
    NETDEV_TX_OK,
    Net,
    NetdevTx,
    netif_stop_queue,
    netif_tx_lock,
    netif_tx_unlock,
    netif_wake_queue,
)
from guest.netpoll.skbuff import CHECKSUM_NONE, CHECKSUM_UNNECESSARY, PACKET_OUTGOING, SkBuff, kfree_skb
from guest.netpoll.wire.ethernet import ETH_P_IP

PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_TX_RING = 13
PACKET_LOSS = 14
TPACKET_V2 = 1
TP_STATUS_AVAILABLE = 0
TP_STATUS_SEND_REQUEST = 1
TP_STATUS_KERNEL = 0
TP_STATUS_USER = 1

ETH_HLEN = 14
VLAN_HLEN = 4
BLOCK_SIZE = 1 << 16
MAX_RING = 1 << 16  # descriptors
LOOK_AHEAD = 64
LOCK_PATIENCE = 1.0  # seconds for a CPU that may have died with xmit_lock
RX_ROOM = 128  # tpacket2_hdr, sockaddr_ll, alignment and headroom before a received frame
TX_DATA = 32  # TPACKET2_HDRLEN - sizeof(struct sockaddr_ll): where a frame to send starts

_REQUESTS = memoryview(array("I", [TP_STATUS_SEND_REQUEST] * MAX_RING))
_KERNELS = memoryview(array("I", [TP_STATUS_KERNEL] * MAX_RING))
_REQ = Struct("=IIII")  # tpacket_req: block size, block count, frame size, frame count
_RX = Struct("=IIIH20xHxxxxxxB").unpack_from  # status, len, snaplen, mac; of sockaddr_ll: protocol, packet type
_TAG = Struct("=HH").unpack_from  # vlan_tci, vlan_tpid
TAG_OFFSET = 24
_STATS = Struct("=II")
_LITTLE = _STATS.pack(1, 0)[0] == 1


def frame_size(mtu: int) -> int:
    """Octets of a descriptor: a power of two that holds a frame and what the kernel puts before it."""
    return max(2048, 1 << (mtu + ETH_HLEN + VLAN_HLEN + RX_ROOM - 1).bit_length())


class AfPacketRingDevice(AfPacketDevice):
    """Interface `name` through rings of `tx_ring` and `rx_ring` descriptors (rounded up to whole blocks)."""

    batches = 0  # its own doorbell does that

    def __init__(
        self,
        net: Net,
        name: str,
        *,
        tx_ring: int = 256,
        rx_ring: int = 1024,
        tx_coalesce: int = 1,
        qdisc_bypass: bool = True,
        promisc: bool = False,
        gso: bool = False,
    ) -> None:
        super().__init__(net, name, qdisc_bypass=qdisc_bypass, promisc=promisc, gso=gso)
        self.tx_ring, self.rx_ring = tx_ring, rx_ring
        self.tx_coalesce = tx_coalesce
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("I")
        self._size = self._max_len = self._rx_at = 0
        self._tx_start = self._tx_end = self._tx_at = 0  # octets into the map; _tx_at: the next to write
        self._tx_free = 0  # descriptors from _tx_at on that are known to be free
        self._tx_unrung = 0  # written since the doorbell last rang
        self._tx_refused = False  # the kernel left some of those that it was given
        self._fill: Callable[..., None] = Struct("=I").pack_into

    def set_options(self, sock: socket.socket) -> None:
        """Rings before bind(), so that no frame arrives outside of them."""
        super().set_options(sock)
        self._size = frame_size(self.mtu)
        block = max(BLOCK_SIZE, self._size)
        per_block = block // self._size
        self.rx_ring = -(-self.rx_ring // per_block) * per_block
        self.tx_ring = -(-self.tx_ring // per_block) * per_block
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        sock.setsockopt(SOL_PACKET, PACKET_LOSS, 1)  # a malformed frame is skipped, it does not block the ring
        for option, count in ((PACKET_RX_RING, self.rx_ring), (PACKET_TX_RING, self.tx_ring)):
            sock.setsockopt(SOL_PACKET, option, _REQ.pack(block, count // per_block, self._size, count))

    def open_socket(self) -> socket.socket:
        """As af_packet's, and its rings mapped; raises OSError (ENOMEM when they are too large)."""
        sock = super().open_socket()
        try:
            octets = (self.rx_ring + self.tx_ring) * self._size
            ring = mmap.mmap(sock.fileno(), octets, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            sock.close()
            raise
        self._words = memoryview(ring).cast("I")
        self._tx_at = self._tx_start = self.rx_ring * self._size
        self._tx_end = self._tx_start + self.tx_ring * self._size
        self._max_len = self.mtu + ETH_HLEN + VLAN_HLEN
        self._fill = Struct(f"=I24x{self._max_len}s").pack_into
        self._rx_at = self._tx_unrung = 0
        self._tx_refused = False
        self._look_for_free()
        self._map = ring  # last: who polls meanwhile finds no rings rather than half of them
        return sock

    def stop(self) -> None:
        """Ring for what waits, unmap the rings, close; what the NIC has not sent yet is its own affair."""
        if self._map is not None and self.present:
            self.flush_xmit()
        self._count_missed()
        ring, self._map = self._map, None
        self._words.release()
        if ring is not None:
            ring.close()
        super().stop()

    def _count_missed(self) -> None:
        """Frames that found the RX ring full."""
        if self._sock is not None:
            _, drops = _STATS.unpack(self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATS.size)[:8])
            if drops:
                self.stats["rx_missed_errors"] += drops

    # -- transmit -------------------------------------------------------------------------------------

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Write a descriptor, ring the doorbell unless it can wait; after the last free one stop the queue.

        The queue being open says that the descriptor at _tx_at is free.
        """
        if skb.gso_size:
            return self.xmit_gso(skb)
        data, at, fill = skb.data, self._tx_at, self._fill
        size = len(data)
        if not ETH_HLEN <= size <= self._max_len:
            self.stats["tx_errors"] += 1
            kfree_skb(skb)
            return NETDEV_TX_OK
        fill(self._map, at + 4, size, data)
        following = at + self._size
        self._tx_at = following if following < self._tx_end else self._tx_start
        self._tx_free = free = self._tx_free - 1
        self._tx_unrung = unrung = self._tx_unrung + 1
        if not free:
            free = self._look_for_free()
        if not free or (unrung >= self.tx_coalesce and not self.xmit_more):
            if not self._ring_doorbell() and self._take_back(at):
                return NETDEV_TX_BUSY
            if not (self._tx_free or self._look_for_free()):
                self.stop_for(room=True)
        elif unrung == 1 and not self.xmit_more:
            self.ctx.schedule_work(self.doorbell)
        skb.users = 0
        return NETDEV_TX_OK

    def tx_status(self) -> list[int]:
        """Each TX descriptor's status word: 0 AVAILABLE, 1 SEND_REQUEST, 2 SENDING."""
        return self._status(self._tx_start, self._tx_end)

    def _status(self, start: int, end: int) -> list[int]:
        return self._words[start >> 2 : end >> 2 : self._size >> 2].tolist()

    def _look_for_free(self) -> int:
        """Count the free descriptors from _tx_at on, as far as LOOK_AHEAD or the end of the ring."""
        end = min(self._tx_at + LOOK_AHEAD * self._size, self._tx_end)
        unrung = self._tx_at - self._tx_unrung * self._size  # written, but their status words do not say so yet
        if unrung < self._tx_start:
            end = min(end, unrung + self._tx_end - self._tx_start)
        status = self._status(self._tx_at, end)
        taken = next((at for at, word in enumerate(status) if word != TP_STATUS_AVAILABLE), len(status))
        self._tx_free = taken
        return taken

    def doorbell(self) -> None:
        """Have the kernel send what was written and not rung for."""
        if (self._tx_unrung or self._tx_refused) and netif_tx_lock(self, LOCK_PATIENCE):
            try:
                self.flush_xmit()
            finally:
                netif_tx_unlock(self)

    def flush_xmit(self) -> None:
        """The same, xmit_lock held."""
        if self._map is not None and (self._tx_unrung or self._tx_refused):
            self._ring_doorbell()

    def _ring_doorbell(self) -> bool:
        """Hand the written descriptors over; False if the kernel left frames in the ring."""
        self._publish()
        send = self._send
        try:
            send(b"")
        except OSError as error:
            self._refused(error)
            return False
        self._tx_refused = False
        return True

    def _publish(self) -> None:
        """Give the last _tx_unrung descriptors to the kernel: their status words become SEND_REQUEST."""
        count, self._tx_unrung = self._tx_unrung, 0
        step, words = self._size >> 2, self._words
        end = self._tx_at >> 2
        first = end - count * step
        if first < self._tx_start >> 2:  # some of them are at the end of the ring
            last = self._tx_end >> 2
            wrapped = ((self._tx_start >> 2) - first) // step
            words[last - wrapped * step : last : step] = _REQUESTS[:wrapped]
            first, count = self._tx_start >> 2, count - wrapped
        if count:
            words[first:end:step] = _REQUESTS[:count]

    def _refused(self, error: OSError) -> None:
        self._tx_refused = True
        if error.errno == errno.ENETDOWN or error.errno in GONE:
            netif_stop_queue(self)
            self.read_link_or_detach()
        else:  # EAGAIN and ENOBUFS: the descriptors are still requests, to be rung for again
            self.stop_for(room=False)

    def _take_back(self, at: int) -> bool:
        """Undo the descriptor written last, if the kernel has not touched it."""
        if self._words[at >> 2] != TP_STATUS_SEND_REQUEST:
            return False
        self._words[at >> 2] = TP_STATUS_AVAILABLE
        self._tx_at = at
        self._tx_free += 1
        before = (at if at > self._tx_start else self._tx_end) - self._size
        self._tx_refused = self._words[before >> 2] == TP_STATUS_SEND_REQUEST
        return True

    def clean_tx(self, timer: bool) -> None:
        """Ring for what waits; wake the queue if the next descriptor is free again.

        A CPU that transmits meanwhile does the first by itself, and comes here again if it is stopped.
        """
        if not (self.xoff or self._tx_unrung) or not self.carrier or not netif_tx_lock(self, 0):
            return
        wake = False
        try:
            if self._map is None:
                return
            if timer or not self._retry_set or self.net.trapped:
                self.flush_xmit()
            wake = self.xoff and self.running and not self._tx_refused and self._look_for_free() > 0
        finally:
            netif_tx_unlock(self)
        if wake:
            self._wait_for_room = False
            netif_wake_queue(self)

    # -- receive --------------------------------------------------------------------------------------

    def receive(self, budget: int) -> int:
        """Pass on up to `budget` frames, over the ring's end if need be."""
        done = self._receive_run(budget)
        if 0 < done < budget and self._rx_at == 0:
            done += self._receive_run(budget - done)
        return done

    def _receive_run(self, budget: int) -> int:
        """Pass on up to `budget` frames, but none from beyond the ring's end; their descriptors go back to the kernel together, at the end.

        An skb that came back freed serves for the next frame, as drivers had it with skb_recycle_check().
        """
        at, size, ring = self._rx_at, self._size, self._map
        if ring is None:
            return 0
        budget = min(budget, (self._tx_start - at) // size)
        skb = SkBuff(b"", self)
        done = 0
        try:
            while done < budget and self.running:
                status, full, length, mac, protocol, kind = _RX(ring, at)
                if not status & TP_STATUS_USER:
                    break
                if skb.users:
                    skb = SkBuff(b"", self)
                start = at + mac
                skb.dev = self
                skb.users = length == full and kind != PACKET_OUTGOING
                skb.data = ring[start : start + length]
                skb.protocol = ETH_P_IP if protocol == _RAW_IP else _swap(protocol)
                skb.pkt_type = kind
                skb.ip_summed = CHECKSUM_UNNECESSARY if status & CSUM_KNOWN else CHECKSUM_NONE
                if status & TP_STATUS_VLAN_VALID:
                    apply_status(skb, status, *_TAG(ring, at + TAG_OFFSET))
                at += size
                done += 1
                if skb.users:
                    netif_receive_skb(skb)
                elif length < full:
                    self.stats["rx_errors"] += 1  # longer than a descriptor
        finally:
            self._give_back(done)
        return done

    def _give_back(self, count: int) -> None:
        """The next `count` RX descriptors, which do not reach beyond the ring's end, are the kernel's again."""
        end = self._rx_at + count * self._size
        if self._map is not None and count:
            self._words[self._rx_at >> 2 : end >> 2 : self._size >> 2] = _KERNELS[:count]
        self._rx_at = end if end < self._tx_start else 0


def _swap(protocol: int) -> int:
    """sll_protocol is in network order."""
    return (protocol & 0xFF) << 8 | protocol >> 8 if _LITTLE else protocol


_RAW_IP = _swap(ETH_P_IP)
