"""A datagram socket as a wire: each datagram is one Ethernet frame, as QEMU's `-netdev dgram` has it (qemu: net/dgram.c).

In: a connected AF_UNIX datagram socket, whose other end is QEMU or whoever carries frames to it. Out: the NetDevice operations. The
one rule: a frame that hard_start_xmit() reports OK is in the other end's queue, whole; unix(7) loses no datagram.

No privilege and no interface of the kernel is needed. An other end that was closed is noticed by the next frame, and is a carrier
that went: unix(7) does not announce it. The queue stops while the other
end takes nothing (EAGAIN) and is woken by writability. NAPI, as in af_packet: readiness of the socket is the interrupt.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Sequence

from guest.netpoll.drivers.readiness import writable
from guest.netpoll.napi import disable_irq, enable_irq, netif_receive_skb, netif_rx_complete, netif_rx_schedule
from guest.netpoll.netdevice import (
    NETDEV_TX_BUSY,
    NETDEV_TX_OK,
    Net,
    NetDevice,
    NetdevTx,
    netif_carrier_off,
    netif_start_queue,
    netif_stop_queue,
    netif_wake_queue,
)
from guest.netpoll.skbuff import SkBuff, eth_type_trans, kfree_skb

MAX_FRAME = 65536 + 18
FULL = {errno.EAGAIN, errno.ENOBUFS}
CLOSED = {errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE}


class DgramDevice(NetDevice):
    """Our end of the wire. The socket stays its maker's to close."""

    weight = 64

    def __init__(self, net: Net, name: str, dev_addr: bytes, sock: socket.socket, mtu: int = 1500) -> None:
        super().__init__(net, name, dev_addr, mtu)
        self._sock = sock
        sock.setblocking(False)

    def open(self) -> None:
        """Nothing to set up."""
        self.irq_masked = self.rx_sched = False
        netif_start_queue(self)

    def irq_fds(self) -> Sequence[tuple[int, int]]:
        """The socket, for writing too while the queue waits for room; nothing once the other end is gone."""
        if self._sock.fileno() < 0 or not self.carrier:
            return ()
        return ((self._sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if self.xoff else 0)),)

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """One send(); a full queue at the other end stops ours."""
        try:
            self._sock.send(skb.data)
        except OSError as error:
            return self._send_failed(skb, error)
        kfree_skb(skb)
        return NETDEV_TX_OK

    def _send_failed(self, skb: SkBuff, error: OSError) -> NetdevTx:
        if error.errno in FULL:
            netif_stop_queue(self)
            self._sync_irq()
            return NETDEV_TX_BUSY
        if error.errno in CLOSED:
            self._cut()
            return NETDEV_TX_BUSY
        self.stats["tx_errors"] += 1
        kfree_skb(skb)
        return NETDEV_TX_OK

    def _cut(self) -> None:
        netif_stop_queue(self)
        netif_carrier_off(self)
        self._sync_irq()

    def _sync_irq(self) -> None:
        if self.net.irq_sync is not None:
            self.net.irq_sync(self)

    def interrupt(self) -> None:
        """Mask and schedule the poll, which does TX and RX."""
        if self.running and netif_rx_schedule(self):
            disable_irq(self)

    def poll(self, budget: int) -> int:
        """Wake the queue if there is room, then receive at most `budget` frames."""
        if self.xoff and self.carrier and self.running and writable(self._sock.fileno()):
            netif_wake_queue(self)
        done = 0
        while done < budget and self.running and (skb := self._read()) is not None:
            netif_receive_skb(skb)
            done += 1
        if done < budget:
            netif_rx_complete(self)
            enable_irq(self)
        return done

    def _read(self) -> SkBuff | None:
        try:
            frame = self._sock.recv(MAX_FRAME)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in CLOSED:
                self._cut()
            else:
                self.stats["rx_errors"] += 1
            return None
        skb = SkBuff(frame)
        eth_type_trans(skb, self)
        return skb
