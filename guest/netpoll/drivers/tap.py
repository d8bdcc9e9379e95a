"""A tap, from the side of its file descriptor: a wire to the kernel's network stack (tuntap.rst).

In: frames for the kernel's interface. Out: frames that the kernel sends through it. The one rule: this is
an old driver, without NAPI: the interrupt routine (the descriptor is readable) reads every frame and hands
it to netif_rx(), so that rx_hooks run in hardirq context.

The kernel's end has its own MAC and IP addresses; ours are `dev_addr` (by default the kernel's with the
lowest bit turned) and `addresses`. The queue stops while the kernel's interface is down, and while the
tap's send buffer is full. Closing the last descriptor removes an interface that was made by opening it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Sequence
from struct import Struct

from guest.netpoll.drivers import rtnetlink
from guest.netpoll.drivers.kernel_link import KernelLink
from guest.netpoll.drivers.readiness import writable
from guest.netpoll.napi import netif_rx
from guest.netpoll.netdevice import (
    NETDEV_TX_OK,
    Net,
    NetdevError,
    NetdevTx,
    netif_device_detach,
    netif_stop_queue,
    netif_wake_queue,
)
from guest.netpoll.skbuff import SkBuff, eth_type_trans, kfree_skb

TUNSETIFF = 0x400454CA
TUNSETSNDBUF = 0x400454D4
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
FRAMES_PER_IRQ = 64
MAX_FRAME = 65536 + 18

_IFREQ = Struct("16sH22x")


class TapDevice(KernelLink):
    """Our end of tap `name`, which is created if there is none. `sndbuf` in octets, 0 for unlimited."""

    weight = 0

    def __init__(self, net: Net, name: str, dev_addr: bytes | None = None, *, sndbuf: int = 0) -> None:
        super().__init__(net, name)
        self.own_addr = dev_addr
        self.sndbuf = sndbuf
        self._fd = -1

    def open(self) -> None:
        """Attach to the tap and bring the kernel's end up; raises NetdevError."""
        try:
            self._fd = self._attach()
        except OSError as error:
            raise NetdevError(error.errno or errno.EIO, f"{self.name}: {error.strerror}") from error
        try:
            self.open_link()
        except NetdevError:
            self._detach()
            raise
        self.irq_masked = False
        self.xoff = not self.carrier

    def _attach(self) -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, TUNSETIFF, _IFREQ.pack(self.name.encode(), IFF_TAP | IFF_NO_PI))
            if self.sndbuf:
                fcntl.ioctl(fd, TUNSETSNDBUF, self.sndbuf.to_bytes(4, "little" if _LITTLE else "big"))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _detach(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def hardware_address(self, link: rtnetlink.Link) -> bytes:
        """Not the kernel's."""
        return self.own_addr or link.address[:5] + bytes([link.address[5] ^ 1])

    def ip_addresses(self) -> list[rtnetlink.Interface]:
        """Not the kernel's: whatever was put into `addresses`."""
        return self.addresses

    def stop(self) -> None:
        """Detach from the tap."""
        netif_stop_queue(self)
        self.close_link()
        self._detach()

    def irq_fds(self) -> Sequence[tuple[int, int]]:
        """The tap, for writing too while the queue waits for room, and the link monitor."""
        if self._fd < 0:
            return ()
        events = select.EPOLLIN | (select.EPOLLOUT if self.xoff and self.carrier else 0)
        return ((self._fd, events), (self.monitor_fd, select.EPOLLIN))

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """One write(); a full buffer or a kernel's end that is down stops the queue."""
        try:
            os.write(self._fd, skb.data)
        except OSError as error:
            return self._write_failed(skb, error)
        kfree_skb(skb)
        return NETDEV_TX_OK

    def _write_failed(self, skb: SkBuff, error: OSError) -> NetdevTx:
        """EIO: the interface is down. EBADFD: it was deleted. Anything but these and EAGAIN loses the frame."""
        if error.errno not in (errno.EAGAIN, errno.EIO, errno.EBADFD):
            self.stats["tx_errors"] += 1
            kfree_skb(skb)
            return NETDEV_TX_OK
        netif_stop_queue(self)
        if error.errno == errno.EAGAIN:
            self._sync_irq()
        else:
            self.read_link_or_detach()
        return NetdevTx.BUSY

    def _sync_irq(self) -> None:
        if self.net.irq_sync is not None:
            self.net.irq_sync(self)

    def interrupt(self) -> None:
        """Link, TX, RX; what is left beyond FRAMES_PER_IRQ interrupts again at once."""
        self.check_link()
        if self.running and self.xoff and self.carrier and writable(self._fd):
            netif_wake_queue(self)
            self._sync_irq()
        for _ in range(FRAMES_PER_IRQ):
            skb = self._read() if self.running else None
            if skb is None:
                return
            netif_rx(skb)

    def _read(self) -> SkBuff | None:
        try:
            frame = os.read(self._fd, MAX_FRAME)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EBADFD:
                netif_device_detach(self)
            else:
                self.stats["rx_errors"] += 1
            return None
        skb = SkBuff(frame)
        eth_type_trans(skb, self)
        return skb


_LITTLE = Struct("=H").pack(1) == b"\1\0"
