"""In-process wire: two devices joined by a cable, each with descriptor rings that really run out.

In: skbs through hard_start_xmit of one end. Out: frames through the receive path of the other. Nothing
leaves the process. The one rule: it behaves like a NIC, not like a function call. The "hardware" moves a
frame from one ring to the other when the doorbell rings, but descriptors are reclaimed only by the
driver, in its poll or interrupt routine; so a sender whom nobody polls for runs out of them and stops.

The driver is written after tg3: the interrupt routine masks the device and schedules NAPI, poll handles
link, TX and RX. With napi=False it is an old driver: the interrupt routine does all that itself and
hands frames to netif_rx(). An eventfd is the interrupt line, from when somebody first waits for it.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from guest.netpoll.napi import (
    disable_irq,
    enable_irq,
    netif_receive_skb,
    netif_rx,
    netif_rx_complete,
    netif_rx_schedule,
)
from guest.netpoll.netdevice import (
    Net,
    NetDevice,
    NetdevTx,
    netif_carrier_off,
    netif_carrier_on,
    netif_stop_queue,
    netif_wake_queue,
    register_netdev,
)
from guest.netpoll.skbuff import SkBuff, eth_type_trans, kfree_skb

ETH_HLEN = 14
VLAN_HLEN = 4


class End(Protocol):
    """What is plugged into a cable: a device of this driver, or whatever else takes frames."""

    def hardware_receive(self, frame: bytes) -> None:
        """A frame comes out of the cable."""

    def raise_irq(self) -> None:
        """The cable was plugged or pulled."""

    def hardware(self) -> None:
        """What was held back may go."""


class Cable:
    """What joins two ends. `hold` keeps the hardware from fetching descriptors, as a stalled DMA engine."""

    def __init__(self) -> None:
        self.up = True
        self.hold = False
        self.ends: list[End] = []

    def set_link(self, up: bool) -> None:
        """Plug or pull: both ends get a link interrupt."""
        self.up = up
        for end in self.ends:
            end.raise_irq()

    def set_hold(self, hold: bool) -> None:
        """Stall or release both ends' hardware; on release it sends what was handed to it meanwhile."""
        self.hold = hold
        for end in self.ends:
            end.hardware()

    def peer(self, end: End) -> End | None:
        """The other end."""
        return next((other for other in self.ends if other is not end), None)


class LoopbackDevice(NetDevice):
    """One end: `tx_ring` and `rx_ring` descriptors; the queue stops when the last TX descriptor is taken."""

    def __init__(
        self,
        net: Net,
        name: str,
        dev_addr: bytes,
        cable: Cable,
        *,
        tx_ring: int = 64,
        rx_ring: int = 256,
        napi: bool = True,
        mtu: int = 1500,
    ) -> None:
        super().__init__(net, name, dev_addr, mtu)
        self.weight = 64 if napi else 0
        self.cable = cable
        self.tx_size = tx_ring
        self.rx_size = rx_ring
        self.tx_ring: deque[SkBuff] = deque()  # handed to the hardware, not yet fetched
        self.tx_done: deque[SkBuff] = deque()  # sent, not yet reclaimed
        self.rx_ring: deque[bytes] = deque()
        self.irq_pending = False
        self._line = -1
        cable.ends.append(self)

    def open(self) -> None:
        """Take over the link's state."""
        self.irq_pending = False
        self.irq_masked = False
        self.carrier = self.cable.up
        self.xoff = not self.carrier

    def stop(self) -> None:
        """Disconnect; what is in the rings is freed."""
        netif_stop_queue(self)
        for ring in (self.tx_ring, self.tx_done):
            while ring:
                kfree_skb(ring.popleft())
        self.rx_ring.clear()
        line, self._line = self._line, -1
        if line >= 0:
            os.close(line)

    def irq_fds(self) -> Sequence[tuple[int, int]]:
        """The interrupt line, made now if nobody has asked for it before."""
        if self._line < 0:
            if not self.running:
                return ()
            self._line = os.eventfd(self.irq_pending, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return ((self._line, select.EPOLLIN),)

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Take one descriptor; without a free one stop the queue and refuse."""
        if self._free() <= 0:
            netif_stop_queue(self)
            return NetdevTx.BUSY
        if len(skb) > self.mtu + ETH_HLEN + VLAN_HLEN:
            self.stats["tx_errors"] += 1
            kfree_skb(skb)
            return NetdevTx.OK
        self.tx_ring.append(skb)
        if self._free() <= 0:
            netif_stop_queue(self)
        if not self.xmit_more or self.xoff:
            self.hardware()
        return NetdevTx.OK

    def doorbell(self) -> None:
        """Let the hardware look at the TX ring."""
        self.hardware()

    def _free(self) -> int:
        return self.tx_size - len(self.tx_ring) - len(self.tx_done)

    def hardware(self) -> None:
        """The DMA engine: fetch descriptors, move the frames over the cable, report them done."""
        peer = self.cable.peer(self)
        while self.tx_ring and self.cable.up and not self.cable.hold:
            skb = self.tx_ring.popleft()
            if peer is not None:
                peer.hardware_receive(bytes(skb.data))
            self.tx_done.append(skb)
            self.raise_irq()

    def hardware_receive(self, frame: bytes) -> None:
        """A frame from the cable: into the RX ring, or missed if that is full."""
        if not self.running or len(self.rx_ring) >= self.rx_size:
            self.stats["rx_missed_errors"] += 1
            return
        self.rx_ring.append(frame)
        self.raise_irq()

    def raise_irq(self) -> None:
        """Assert the interrupt line."""
        if not self.irq_pending and self.running:
            self.irq_pending = True
            if self._line >= 0:
                os.eventfd_write(self._line, 1)

    def interrupt(self) -> None:
        """Acknowledge; then everything (non-NAPI), or mask and schedule the poll (NAPI)."""
        if self.irq_pending:
            self.irq_pending = False
            if self._line >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._line)
        if not self.weight:
            self._link_and_tx()
            for _ in range(len(self.rx_ring)):
                netif_rx(self._next_skb())
        elif self._has_work():
            disable_irq(self)
            netif_rx_schedule(self)

    def poll(self, budget: int) -> int:
        """Link, TX, then at most `budget` frames."""
        self._link_and_tx()
        done = 0
        while done < budget and self.rx_ring:
            netif_receive_skb(self._next_skb())
            done += 1
        if done < budget:
            netif_rx_complete(self)
            enable_irq(self)
        return done

    def _has_work(self) -> bool:
        return bool(self.rx_ring or self.tx_done or self.carrier != self.cable.up)

    def _next_skb(self) -> SkBuff:
        skb = SkBuff(self.rx_ring.popleft())
        eth_type_trans(skb, self)
        return skb

    def _link_and_tx(self) -> None:
        """Follow the link, reclaim TX descriptors, wake the queue if both allow it."""
        if self.carrier and not self.cable.up:
            netif_carrier_off(self)
            netif_stop_queue(self)
        elif self.cable.up and not self.carrier:
            netif_carrier_on(self)
            self.hardware()
        while self.tx_done:
            kfree_skb(self.tx_done.popleft())
        if self.xoff and self.carrier and self._free() > self.tx_size // 4:
            netif_wake_queue(self)


def wire_pair(
    net: Net, names: tuple[str, str] = ("wire0", "wire1"), peer_net: Net | None = None, **options: int
) -> tuple[LoopbackDevice, LoopbackDevice]:
    """Two registered ends on a new cable; the second in `peer_net` if given. Options as LoopbackDevice's."""
    cable = Cable()
    nets = (net, peer_net or net)
    ends = []
    for number, (name, home) in enumerate(zip(names, nets, strict=True), start=1):
        mac = bytes((2, 0, 0, 0, 0, number))
        end = LoopbackDevice(home, name, mac, cable, **options)  # type: ignore[arg-type]  # napi is a bool
        register_netdev(end)
        ends.append(end)
    return ends[0], ends[1]
