"""AF_PACKET: a NIC, bond, tap or veth of the kernel we run on, through a packet socket, one call a frame.

In: frames from and for the socket (packet(7)). Out: the NetDevice operations. The one rule: a frame that
hard_start_xmit() reports OK has been taken by the kernel's driver - or, with qdisc_bypass=False, by its
queueing discipline, which may still lose it without a word when the link goes.

What stops the queue: no carrier; a full socket buffer (EAGAIN: woken by writability); ENOBUFS, the
driver's own "busy" (woken by the next poll, or a timer). Readiness of the socket is the interrupt; NAPI
masks it by leaving the loop. The kernel keeps VLAN tags aside and leaves checksums of local senders
empty: both are put right here, so that upper layers see what would be on a wire.

Bypassing the queueing discipline also bypasses other packet sockets: a capture running on the very same
interface does not see these frames (one at the other end of the veth, or in the guest, does).
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from struct import Struct

from guest.netpoll.drivers.kernel_link import GONE, KernelLink
from guest.netpoll.napi import disable_irq, enable_irq, netif_receive_skb, netif_rx_complete, netif_rx_schedule
from guest.netpoll.netdevice import (
    NETDEV_TX_BUSY,
    NETDEV_TX_OK,
    NETIF_F_GSO_UDP_L4,
    NETIF_F_HW_CSUM,
    NETIF_F_XMIT_MANY,
    Net,
    NetdevError,
    NetdevTx,
    netif_stop_queue,
    netif_wake_queue,
)
from guest.netpoll.skbuff import CHECKSUM_UNNECESSARY, PACKET_OUTGOING, SkBuff, kfree_skb
from guest.netpoll.wire import vlan
from guest.netpoll.wire.ethernet import ETH_P_IP

SOL_PACKET = 263
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h: beyond net.core.*mem_max, for CAP_NET_ADMIN
PACKET_AUXDATA = 8
PACKET_VNET_HDR = 15
PACKET_QDISC_BYPASS = 20
PACKET_IGNORE_OUTGOING = 23
PACKET_MR_PROMISC = 1
PACKET_MR_ALLMULTI = 2
PACKET_ADD_MEMBERSHIP = 1
ETH_P_ALL = 0x0003
TP_STATUS_CSUMNOTREADY = 1 << 3
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6
TP_STATUS_CSUM_VALID = 1 << 7
CSUM_KNOWN = TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID
MAX_FRAME = 65536 + 18
BUSY_RETRY = 0.01  # seconds until ENOBUFS is tried again, where nobody polls

_AUXDATA = Struct("=IIIHHHH")  # tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_MREQ = Struct("=iHH8s")
VNET_HDR = Struct("=BBHHHH")  # virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
VNET_NEEDS_CSUM = 1
VNET_GSO_UDP_L4 = 5


class AfPacketDevice(KernelLink):
    """Interface `name` as a NetDevice. `sndbuf`/`rcvbuf` in octets, 0 for the kernel's default.

    `gso`: batches of messages of one length cross into the kernel as one frame, which the kernel cuts up -
    at the latest before the NIC's driver. On a veth it may stay whole up to the peer's socket: not for a
    peer that is a packet socket itself. `csum`: UDP checksums of batches are the NIC's to compute, or its driver's, which is
    faster than here.
    """

    weight = 64
    batches = NETIF_F_XMIT_MANY  # feature of a device without gso

    def __init__(
        self,
        net: Net,
        name: str,
        *,
        qdisc_bypass: bool = True,
        promisc: bool = False,
        sndbuf: int = 0,
        rcvbuf: int = 0,
        gso: bool = False,
        csum: bool = False,
    ) -> None:
        super().__init__(net, name)
        self.gso = gso
        self.csum = csum
        self._gso_sock: socket.socket | None = None
        self._csum_sock: socket.socket | None = None
        self.qdisc_bypass = qdisc_bypass
        self.promisc = promisc
        self.sndbuf = sndbuf
        self.rcvbuf = rcvbuf
        self._sock: socket.socket | None = None
        self._send: Callable[[bytes | bytearray | memoryview], int] = _closed
        self._wait_for_room = False  # EAGAIN: writability says when to go on
        self._retry_set = False  # ENOBUFS: a timer does
        self._buffer = bytearray(MAX_FRAME)

    def open(self) -> None:
        """Open the socket on the interface, which is brought up; raises NetdevError."""
        self.open_link()
        try:
            self._sock = self.open_socket()
        except OSError as error:
            self.close_link()
            raise NetdevError(error.errno or errno.EIO, f"{self.name}: {error.strerror}") from error
        self._send = self._sock.send
        self._gso_sock = self._open_vnet_socket() if self.gso else None
        self._csum_sock = self._open_vnet_socket() if self.csum else None
        self.features = NETIF_F_GSO_UDP_L4 if self._gso_sock is not None else self.batches
        if self._csum_sock is not None:
            self.features |= NETIF_F_HW_CSUM
        self.irq_masked = self.rx_sched = False
        self._wait_for_room = False
        self.xoff = not self.carrier

    def open_socket(self) -> socket.socket:
        """Bound last, so that no frame of another interface is ever queued."""
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.set_options(sock)
            sock.bind((self.name, ETH_P_ALL))
        except BaseException:
            sock.close()
            raise
        return sock

    def _open_vnet_socket(self) -> socket.socket | None:
        """A second socket, only to send: each frame after a virtio_net_hdr that says how to cut it up, or what to add up."""
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            sock.bind((self.name, 0))
        except OSError:
            sock.close()
            return None
        return sock

    def set_options(self, sock: socket.socket) -> None:
        """Socket options; those that older kernels do not know are done without."""
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        if self.sndbuf:
            _set_buffer(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF, self.sndbuf)
        if self.rcvbuf:
            _set_buffer(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF, self.rcvbuf)
        for option, wanted in ((PACKET_QDISC_BYPASS, self.qdisc_bypass), (PACKET_IGNORE_OUTGOING, True)):
            if wanted:
                _set_if_known(sock, option)
        mode = PACKET_MR_PROMISC if self.promisc else PACKET_MR_ALLMULTI  # neighbour discovery and LACP are multicast
        sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, _MREQ.pack(self.ifindex, mode, 0, b""))

    def stop(self) -> None:
        """Close the socket; the interface stays as it is."""
        netif_stop_queue(self)
        self.close_link()
        self._send = _closed
        for sock in (self._sock, self._gso_sock, self._csum_sock):
            if sock is not None:
                sock.close()
        self._sock = self._gso_sock = self._csum_sock = None

    def irq_fds(self) -> Sequence[tuple[int, int]]:
        """The socket, for writing too while the queue waits for room, and the link monitor."""
        if self._sock is None:
            return ()
        events = select.EPOLLIN | (select.EPOLLOUT if self.xoff and self._wait_for_room else 0)
        return ((self._sock.fileno(), events), (self.monitor_fd, select.EPOLLIN))

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """One send(); a full buffer or a busy driver stops the queue, anything else loses the frame."""
        if skb.gso_size:
            return self.xmit_gso(skb)
        send = self._send
        try:
            send(skb.data)
        except OSError as error:
            return self.send_failed(skb, error)
        skb.users = 0
        return NETDEV_TX_OK

    def xmit_many(self, frames: Sequence[bytes]) -> int:
        """One send() each; the frame that is refused, and those after it, come again one by one."""
        left = iter(frames)
        sending = map(self._send, left)
        if self._csum_sock is not None and frames:
            offset = 34 if frames[0][12:14] == b"\x08\x00" else 54
            header = VNET_HDR.pack(VNET_NEEDS_CSUM, 0, offset + 8, 0, offset, 6)
            gather = self._csum_sock.sendmsg
            sending = map(gather, zip(repeat(header), left))
        try:
            deque(sending, maxlen=0)
        except OSError:
            return len(frames) - 1 - sum(1 for _ in left)
        return len(frames)

    def xmit_gso(self, skb: SkBuff) -> NetdevTx:
        """Hand over a frame to be cut up. Refused, it is the caller's to send in pieces; the queue stays open.

        A kernel before 6.2 does not know how (EINVAL): then nobody is told again that this device can.
        """
        self.flush_xmit()
        sock, offset = self._gso_sock, 34 if skb.protocol == ETH_P_IP else 54
        if sock is None:
            return NETDEV_TX_BUSY
        fields = (VNET_NEEDS_CSUM, VNET_GSO_UDP_L4, offset + 8, skb.gso_size, offset, 6)
        try:
            sock.send(VNET_HDR.pack(*fields) + skb.data)
        except OSError as error:
            if error.errno == errno.EINVAL:
                self.features &= ~NETIF_F_GSO_UDP_L4
            return NETDEV_TX_BUSY
        skb.users = 0
        return NETDEV_TX_OK

    def flush_xmit(self) -> None:
        """Let go what hard_start_xmit() still holds back; xmit_lock held."""

    def send_failed(self, skb: SkBuff, error: OSError) -> NetdevTx:
        """Stop the queue as the errno asks; a frame that can never be sent is counted and freed."""
        if error.errno in (errno.EAGAIN, errno.ENOBUFS):
            self.stop_for(room=error.errno == errno.EAGAIN)
        elif error.errno == errno.ENETDOWN or error.errno in GONE:
            netif_stop_queue(self)
            self.read_link_or_detach()
        else:
            self.stats["tx_errors"] += 1
            kfree_skb(skb)
            return NETDEV_TX_OK
        return NETDEV_TX_BUSY

    def stop_for(self, room: bool) -> None:
        """Stop the queue until the socket has room, or else until the driver is tried again."""
        netif_stop_queue(self)
        self._wait_for_room = room
        if room:
            self.sync_irq()
        elif not self._retry_set:
            self._retry_set = True
            self.ctx.call_later(BUSY_RETRY, self._retry)

    def _retry(self) -> None:
        self._retry_set = False
        self.clean_tx(timer=True)

    def sync_irq(self) -> None:
        """The loop is to look at irq_fds() again."""
        if self.net.irq_sync is not None:
            self.net.irq_sync(self)

    def interrupt(self) -> None:
        """Link news first; then mask and schedule the poll, which does TX and RX."""
        self.check_link()
        if self.running and netif_rx_schedule(self):
            disable_irq(self)

    def poll(self, budget: int) -> int:
        """Wake the queue if it can go on, then receive at most `budget` frames."""
        self.clean_tx(timer=False)
        done = self.receive(budget)
        if done < budget:
            netif_rx_complete(self)
            enable_irq(self)
        return done

    def clean_tx(self, timer: bool) -> None:
        """Wake a stopped queue if there is carrier and whatever it waits for has come.

        ENOBUFS announces no end, so the driver is simply tried again: by the timer, and by netpoll.
        """
        if not (self.xoff and self.carrier and self.running and self._sock is not None):
            return
        if self._wait_for_room:
            writable = select.poll()
            writable.register(self._sock, select.POLLOUT)
            if not writable.poll(0):
                return
            self._wait_for_room = False
        elif self._retry_set and not timer and not self.net.trapped:
            return
        netif_wake_queue(self)

    def receive(self, budget: int) -> int:
        """Pass on up to `budget` frames; return how many."""
        sock = self._sock
        for done in range(budget):
            if sock is None or not self.running:
                return done
            skb = self._receive_one(sock)
            if skb is None:
                return done
            netif_receive_skb(skb)
        return budget

    def _receive_one(self, sock: socket.socket) -> SkBuff | None:
        """The next frame that is not our own machine's, with tag and checksum state put right."""
        while True:
            try:
                size, aux, _, address = sock.recvmsg_into([self._buffer], 64)
            except BlockingIOError:
                return None
            except OSError as error:
                self._receive_failed(error)
                return None
            if address[2] != PACKET_OUTGOING:
                break
        skb = SkBuff(bytes(self._buffer[:size]), self, int.from_bytes(self._buffer[12:14], "big"))
        skb.pkt_type = address[2]
        for level, kind, data in aux:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
                status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(data)
                apply_status(skb, status, tci, tpid)
        return skb

    def _receive_failed(self, error: OSError) -> None:
        """ENETDOWN comes once when the interface goes down; the monitor says what to make of it."""
        if error.errno == errno.ENETDOWN or error.errno in GONE:
            self.read_link_or_detach()
        else:
            self.stats["rx_errors"] += 1


def apply_status(skb: SkBuff, status: int, tci: int, tpid: int) -> None:
    """Bring in what the kernel keeps beside a frame (linux/if_packet.h, tp_status)."""
    if status & CSUM_KNOWN:
        skb.ip_summed = CHECKSUM_UNNECESSARY
    if status & TP_STATUS_VLAN_VALID and tci & 0xFFF:  # VID 0 is a priority tag: the frame is untagged
        skb.protocol = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
        skb.data = vlan.insert(bytes(skb.data), tci, skb.protocol)


def _set_buffer(sock: socket.socket, force: int, option: int, octets: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, octets)
    except PermissionError:  # the kernel then cuts it to net.core.*mem_max
        sock.setsockopt(socket.SOL_SOCKET, option, octets)


def _closed(_frame: bytes | bytearray | memoryview) -> int:
    raise OSError(errno.EAGAIN, "the device is closed")


def _set_if_known(sock: socket.socket, option: int) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(SOL_PACKET, option, 1)
