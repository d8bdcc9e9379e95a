"""A net_device around a net_device: what fault and trace have in common.

In: a device that nobody uses yet. Out: one that stands in its place: same address, MTU, carrier, queue state, interrupts
and NAPI. The rule it keeps: the device inside does not know; it finds a Net of its own, whose only outlet is this one.

    stack -> hard_start_xmit(outer) -> hard_start_xmit(inner)
    interrupt(outer) -> interrupt(inner) -> netif_rx or netif_rx_schedule ... netif_receive_skb
        -> _Inlet.netpoll_rx -> from_inner(skb) -> deliver(skb) -> netif_rx or netif_receive_skb of the outer device

Queue, RX_SCHED and interrupt mask are the inner device's, read through properties; link, MTU and address follow by notifier.
"""

from __future__ import annotations

from collections.abc import Sequence

from guest.netpoll.napi import netif_receive_skb, netif_rx
from guest.netpoll.netdevice import (
    IFF_UP,
    Net,
    NetdevEvent,
    NetDevice,
    NetdevTx,
    dev_close,
    dev_open,
    netif_carrier_off,
    netif_carrier_on,
    unregister_netdev,
)
from guest.netpoll.skbuff import SkBuff


class _Inlet:
    """The inner device's npinfo: takes every frame it receives, and shows it the outer one's (NetpollHook)."""

    def __init__(self, outer: AroundDevice) -> None:
        self._outer = outer
        self.irq_owner = 0

    @property
    def rx_drop(self) -> bool:
        """Netpoll is polling the outer device, and with it the inner one."""
        npinfo = self._outer.npinfo
        return npinfo is not None and npinfo.rx_drop

    def netpoll_rx(self, skb: SkBuff) -> bool:
        """Always consumed: from here on the frame is the outer device's."""
        self._outer.from_inner(skb)
        return True

    def netpoll_rx_run(self, frames: Sequence[bytes], first: int) -> int:  # noqa: ARG002  # none: each goes the whole way
        return 0

    def netpoll_poll_lock(self) -> bool:
        """The outer device's, where there is one."""
        npinfo = self._outer.npinfo
        return npinfo is None or npinfo.netpoll_poll_lock()

    def netpoll_poll_unlock(self) -> None:
        """As netpoll_poll_lock()."""
        if self._outer.npinfo is not None:
            self._outer.npinfo.netpoll_poll_unlock()

    def queue_woken(self, dev: NetDevice) -> None:  # noqa: ARG002  # there is but one
        """Pass it on."""
        self._outer.wake()

    def operations_changed(self) -> None:
        """Nothing was made of them here."""


class AroundDevice(NetDevice):
    """Passes everything through; subclasses override hard_start_xmit and from_inner.

    The outer device takes the name of `inner`, and its place where that is registered. Raises ValueError when `inner` is
    open already: its interrupts and frames have found their way elsewhere by then.
    """

    def __init__(self, inner: NetDevice) -> None:
        if inner.running or inner.npinfo is not None:
            raise ValueError(f"{inner.name} is in use already: put the middleware around it before it is opened")
        self.inner = inner
        self._xoff = False
        super().__init__(inner.net, inner.name, inner.dev_addr, inner.mtu)
        self.weight = inner.weight
        self.supports_netpoll = inner.supports_netpoll
        self.stats = inner.stats
        self._adopt(inner)
        self._follow_inner()

    def _adopt(self, inner: NetDevice) -> None:
        """Give the inner device a Net of its own, with us at its only outlets."""
        if inner.net.devices.get(inner.name) is inner:
            inner.net.devices[inner.name] = self
        net = Net(inner.ctx)
        net.skb_pool = inner.net.skb_pool
        net.irq_sync = lambda _: self.sync_irq()
        net.netdev_chain.append(self._inner_event)
        net.devices[inner.name] = inner
        inner.net = net
        inner.npinfo = _Inlet(self)

    def _inner_event(self, event: NetdevEvent, inner: NetDevice) -> None:
        """Follow the inner device's link, MTU and address, and its end."""
        carrier = self.carrier
        self._follow_inner()
        self.carrier = carrier  # netif_carrier_on() and _off() below change it, and tell
        if event is NetdevEvent.CHANGE:
            (netif_carrier_on if inner.carrier else netif_carrier_off)(self)
        elif event in (NetdevEvent.CHANGEMTU, NetdevEvent.CHANGEADDR):
            self.net.call_netdevice_notifiers(event, self)
        elif event is NetdevEvent.UNREGISTER:
            unregister_netdev(self)
        elif event is NetdevEvent.DOWN:
            dev_close(self)

    def _follow_inner(self) -> None:
        """Be what the inner device is: its hardware address and type, MTU, link and IP addresses."""
        inner = self.inner
        self.mtu, self.dev_addr, self.carrier = inner.mtu, inner.dev_addr, inner.carrier
        self.type, self.addresses = inner.type, inner.addresses
        self.flags = inner.flags & ~IFF_UP | self.flags & IFF_UP

    @property
    def xoff(self) -> bool:
        """Stopped here or inside."""
        return self._xoff or self.inner.xoff

    @xoff.setter
    def xoff(self, stopped: bool) -> None:
        self._xoff = stopped

    @property
    def rx_sched(self) -> bool:
        """The inner device is the one on the poll list."""
        return self.inner.rx_sched

    @rx_sched.setter
    def rx_sched(self, scheduled: bool) -> None:
        """Only ever cleared, by NetDevice's constructor."""

    @property
    def irq_masked(self) -> bool:
        """The inner device masks and unmasks itself."""
        return self.inner.irq_masked

    @irq_masked.setter
    def irq_masked(self, masked: bool) -> None:
        """Only ever cleared, by NetDevice's constructor."""

    def sync_irq(self) -> None:
        """Tell the loop that the interrupt mask may have changed."""
        if self.net.irq_sync is not None:
            self.net.irq_sync(self)

    def wake(self) -> None:
        """The inner queue takes frames again; who waits for ours is told, if it does too."""
        if not self.xoff and self.npinfo is not None:
            self.npinfo.queue_woken(self)

    def open(self) -> None:
        """Open the inner device; raises NetdevError."""
        self._xoff = False
        dev_open(self.inner)
        self._follow_inner()

    def stop(self) -> None:
        """Close the inner device."""
        dev_close(self.inner)

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Pass the frame to the inner driver."""
        return self.to_inner(skb)

    def to_inner(self, skb: SkBuff) -> NetdevTx:
        """The inner hard_start_xmit, under its xmit_lock; a refused frame is the outer device's again."""
        inner = self.inner
        if inner.xoff or not inner.xmit_lock.acquire(blocking=False):
            return NetdevTx.BUSY if inner.xoff else NetdevTx.LOCKED
        inner.xmit_lock_owner = self.xmit_lock_owner
        inner.xmit_more = self.xmit_more
        skb.dev = inner
        try:
            status = inner.hard_start_xmit(skb)
        finally:
            inner.xmit_lock_owner = 0
            inner.xmit_lock.release()
        if status is not NetdevTx.OK:
            skb.dev = self
        return status

    def doorbell(self) -> None:
        """Ring the inner device's."""
        self.inner.xmit_more = False
        self.inner.doorbell()

    def interrupt(self) -> None:
        """The inner interrupt routine."""
        self.inner.interrupt()

    def poll_controller(self) -> None:
        """The inner device's."""
        self.inner.poll_controller()

    def poll(self, budget: int) -> int:
        """The inner device's."""
        return self.inner.poll(budget)

    def irq_fds(self) -> Sequence[tuple[int, int]]:
        """The inner device's."""
        return self.inner.irq_fds()

    def from_inner(self, skb: SkBuff) -> None:
        """A frame that the inner device received, in the context of its receive path. Takes it."""
        self.deliver(skb)

    def deliver(self, skb: SkBuff) -> None:
        """Pass a received frame to the stack, by the receive path that the inner device uses."""
        skb.dev = self
        if self.weight:
            netif_receive_skb(skb)
        else:
            netif_rx(skb)
