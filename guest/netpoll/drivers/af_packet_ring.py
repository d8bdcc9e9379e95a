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
from struct import Struct

from guest.netpoll.drivers.af_packet import SOL_PACKET, AfPacketDevice, apply_status
from guest.netpoll.drivers.kernel_link import GONE
from guest.netpoll.napi import netif_receive_skb
from guest.netpoll.netdevice import Net, NetdevError, NetdevTx, netif_stop_queue, netif_wake_queue
from guest.netpoll.skbuff import PACKET_OUTGOING, SkBuff, kfree_skb

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
RX_ROOM = 128  # tpacket2_hdr, sockaddr_ll, alignment and headroom before a received frame
TX_DATA = 32  # TPACKET2_HDRLEN - sizeof(struct sockaddr_ll): where a frame to send starts

_REQ = Struct("=IIII")  # tpacket_req: block size, block count, frame size, frame count
_RX = Struct("=IIIHHIIHH4xHHiHB")  # tpacket2_hdr, then the start of sockaddr_ll, up to the packet type
_STATS = Struct("=II")
_LITTLE = _STATS.pack(1, 0)[0] == 1


def frame_size(mtu: int) -> int:
    """Octets of a descriptor: a power of two that holds a frame and what the kernel puts before it."""
    return max(2048, 1 << (mtu + ETH_HLEN + VLAN_HLEN + RX_ROOM - 1).bit_length())


class AfPacketRingDevice(AfPacketDevice):
    """Interface `name` through rings of `tx_ring` and `rx_ring` descriptors (rounded up to whole blocks)."""

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
    ) -> None:
        super().__init__(net, name, qdisc_bypass=qdisc_bypass, promisc=promisc)
        self.tx_ring, self.rx_ring = tx_ring, rx_ring
        self.tx_coalesce = tx_coalesce
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("I")
        self._size = self._tx_start = self._max_len = 0
        self._tx_next = self._rx_next = 0
        self._tx_unrung = 0  # written since the doorbell last rang
        self._fill = Struct("=I24x0s")

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

    def open(self) -> None:
        """As af_packet's, and the rings mapped; raises NetdevError (ENOMEM when they are too large)."""
        super().open()
        assert self._sock is not None
        try:
            self._map = mmap.mmap(self._sock.fileno(), (self.rx_ring + self.tx_ring) * self._size)
        except OSError as error:
            self.stop()
            raise NetdevError(error.errno or errno.EIO, f"{self.name}: rings: {error.strerror}") from error
        self._words = memoryview(self._map).cast("I")
        self._tx_start = self.rx_ring * self._size
        self._max_len = self.mtu + ETH_HLEN + VLAN_HLEN
        self._fill = Struct(f"=I24x{self._max_len}s")
        self._tx_next = self._rx_next = self._tx_unrung = 0

    def stop(self) -> None:
        """Unmap the rings and close; what the NIC has not sent yet is its own affair."""
        self._count_missed()
        self._words.release()
        if self._map is not None:
            self._map.close()
            self._map = None
        super().stop()

    def _count_missed(self) -> None:
        """Frames that found the RX ring full."""
        if self._sock is not None:
            _, drops = _STATS.unpack(self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATS.size)[:8])
            if drops:
                self.stats["rx_missed_errors"] += drops

    # -- transmit -------------------------------------------------------------------------------------

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Write the next descriptor, ring the doorbell unless it can wait; stop before the ring is full."""
        ring, words = self._map, self._words
        at = self._tx_start + self._tx_next * self._size
        if ring is None or words[at >> 2] != TP_STATUS_AVAILABLE:
            self.stop_for(room=True)
            return NetdevTx.BUSY
        size = len(skb.data)
        if size > self._max_len or size < ETH_HLEN:
            self.stats["tx_errors"] += 1
            kfree_skb(skb)
            return NetdevTx.OK
        self._fill.pack_into(ring, at + 4, size, skb.data)
        words[at >> 2] = TP_STATUS_SEND_REQUEST
        following = self._tx_next + 1
        self._tx_next = following = 0 if following == self.tx_ring else following
        self._tx_unrung += 1
        full = words[(self._tx_start + following * self._size) >> 2] != TP_STATUS_AVAILABLE
        if full or not (self.xmit_more or self._tx_unrung < self.tx_coalesce):
            if not self._ring_doorbell() and self._take_back(at):
                return NetdevTx.BUSY
            if full and words[(self._tx_start + following * self._size) >> 2] != TP_STATUS_AVAILABLE:
                self.stop_for(room=True)
        elif self._tx_unrung == 1 and not self.xmit_more:
            self.ctx.schedule_work(self.doorbell)
        skb.users = 0
        return NetdevTx.OK

    def doorbell(self) -> None:
        """Have the kernel send what was written and not rung for."""
        if self._tx_unrung:
            self._ring_doorbell()

    def _ring_doorbell(self) -> bool:
        """False if the kernel left frames in the ring; the queue is stopped then."""
        sock = self._sock
        if sock is None:
            return False
        try:
            sock.send(b"")
        except OSError as error:
            self._refused(error)
            return False
        self._tx_unrung = 0
        return True

    def _refused(self, error: OSError) -> None:
        if error.errno == errno.ENETDOWN or error.errno in GONE:
            netif_stop_queue(self)
            self.read_link_or_detach()
        else:  # EAGAIN and ENOBUFS: the descriptors are still requests, to be rung for again
            self.stop_for(room=False)

    def _take_back(self, at: int) -> bool:
        """Undo the descriptor just written, if the kernel has not touched it."""
        if self._words[at >> 2] != TP_STATUS_SEND_REQUEST:
            return False
        self._words[at >> 2] = TP_STATUS_AVAILABLE
        self._tx_next = (self._tx_next or self.tx_ring) - 1
        self._tx_unrung -= 1
        return True

    def clean_tx(self, timer: bool) -> None:
        """Ring for what waits; wake the queue if the next descriptor is free again."""
        if self._map is None or not self.running:
            return
        if self._tx_unrung and self.carrier and (timer or not self._retry_set or self.net.trapped):
            self._ring_doorbell()
        at = self._tx_start + self._tx_next * self._size
        if self.xoff and self.carrier and not self._tx_unrung and self._words[at >> 2] == TP_STATUS_AVAILABLE:
            self._wait_for_room = False
            netif_wake_queue(self)

    # -- receive --------------------------------------------------------------------------------------

    def receive(self, budget: int) -> int:
        """Pass on up to `budget` frames, giving each descriptor back before its frame is handled."""
        ring, words, size = self._map, self._words, self._size
        for done in range(budget):
            if ring is None or not self.running:
                return done
            at = self._rx_next * size
            status, full, length, mac, _, _, _, tci, tpid, _, protocol, _, _, kind = _RX.unpack_from(ring, at)
            if not status & TP_STATUS_USER:
                return done
            skb = SkBuff(ring[at + mac : at + mac + length], self, _swap(protocol))
            words[at >> 2] = TP_STATUS_KERNEL
            self._rx_next = 0 if self._rx_next + 1 == self.rx_ring else self._rx_next + 1
            skb.pkt_type = kind
            if status & ~TP_STATUS_USER:
                apply_status(skb, status, tci, tpid)
            if length < full or kind == PACKET_OUTGOING:
                self.stats["rx_errors"] += length < full
                continue
            netif_receive_skb(skb)
        return budget


def _swap(protocol: int) -> int:
    """sll_protocol is in network order."""
    return (protocol & 0xFF) << 8 | protocol >> 8 if _LITTLE else protocol
