"""What all poll-mode drivers have in common: a net_device over a bus and two rings.

    hard_start_xmit -> tx.buffers[slot] -> fill(slot, size) -> doorbell        device -> clean_tx -> queue woken
    interrupt | poll_controller -> irq_cause -> irq_mask -> schedule -> poll -> clean_rx -> netif_receive_skb_list

In: frames from the stack, what the device wrote. Out: the NetDevice operations. The one rule: after a crash no
interrupt is enabled any more, and the first poll turns off what was; poll_controller and poll are all that runs, and they find work in memory.

A chip's driver gives `start`, `halt`, `fill`, `doorbell`, `irq_cause`, `irq_mask`, `irq_unmask`, `irq_enabled`, `check_link`,
`clean_tx`, `clean_rx`. What the device wrote is not trusted: a chip's driver that finds nonsense calls `broken`.
"""

from __future__ import annotations

import errno
import logging
import select
import threading
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate

from guest.netpoll.direct import Bell, DirectTx, Store
from guest.netpoll.drivers.pmd.bus import BusError, PciDevice
from guest.netpoll.drivers.pmd.ring import BUFFER, Ring
from guest.netpoll.frame import Stamp
from guest.netpoll.napi import disable_irq, enable_irq, netif_rx_complete, netif_rx_schedule
from guest.netpoll.netdevice import (
    NETDEV_TX_BUSY,
    NETDEV_TX_OK,
    NETIF_F_XMIT_MANY,
    NETIF_F_XMIT_RUN,
    Net,
    NetdevError,
    NetDevice,
    NetdevTx,
    netif_carrier_off,
    netif_carrier_on,
    netif_device_detach,
    netif_stop_queue,
    netif_wake_queue,
)
from guest.netpoll.skbuff import FrameRun, SkBuff

log = logging.getLogger("netpoll")

ETH_HLEN, VLAN_HLEN = 14, 4
WATCHDOG = 1.0  # seconds between looks
LOOKS = 32  # polls without a frame until interrupts are let through again
TX_TIMEOUT = 5  # looks at a stopped queue that nothing was cleaned from: dev_watchdog()'s 5 s


class PollModeDevice(NetDevice):
    """Base of e1000, virtio_net and tg3. `bus` is the driver's from here to `release`."""

    weight = 64
    napi_defer_hard_irqs = LOOKS  # the attribute of that name in sysfs
    tx: Ring
    rx: Ring

    def __init__(self, net: Net, name: str, bus: PciDevice, mtu: int = 1500, headroom: int = 0) -> None:
        super().__init__(net, name, mtu=mtu)
        self.bus = bus
        self.wake_at = 0  # free descriptors from which a stopped queue goes on
        self.features = NETIF_F_XMIT_MANY | NETIF_F_XMIT_RUN
        self.needed_headroom, self._before = headroom, bytes(headroom)
        self.frame_limit = mtu + ETH_HLEN + VLAN_HLEN
        self._bus_masked = (
            True  # by an interrupt that it told of; a poll that netpoll makes has nothing to unmask there
        )
        self._polled_alone = False  # a crash has been taken notice of
        self._cleaning = threading.Lock()
        self._laid: dict[int, list[Stamp]] = {}  # by the first slot of a run
        self._looks = 0  # that are left
        self._stuck = self._cleaned = 0
        self._watching = 0  # which open() the watchdog belongs to
        self._away = False  # its registers read as ones

    # What a chip's driver gives

    def start(self) -> None:
        """Reset and set up the chip, rings filled, interrupts masked. Raises BusError."""
        raise NotImplementedError

    def halt(self) -> None:
        """No more DMA, no more interrupts; may find the device gone."""
        raise NotImplementedError

    def set_mac_address(self, addr: bytes) -> None:
        """ndo_set_mac_address: a bond gives its slaves its own."""
        raise NotImplementedError

    def fill(self, slot: int, size: int) -> None:
        """Describe the frame of `size` octets, headroom included, in tx.buffers[slot]."""
        raise NotImplementedError

    def fill_run(self, slot: int, addresses: Sequence[int], sizes: array[int]) -> None:
        """Describe frames with descriptor `slot` and those that follow it: where each is, headroom first, and its octets (array "H")."""
        raise NotImplementedError

    def irq_cause(self) -> bool:
        """Whether there is something to do; acknowledges. Called with interrupts on and, when polling, off."""
        raise NotImplementedError

    def irq_mask(self) -> None:
        """The device interrupts no more."""
        raise NotImplementedError

    def irq_unmask(self) -> bool:
        """It interrupts again; True if work came meanwhile that it will not interrupt for."""
        raise NotImplementedError

    def irq_enabled(self) -> bool:
        """Whether it would interrupt for work that it has, read back from where it looks itself."""
        raise NotImplementedError

    def queue_full(self) -> None:
        """The queue has just been stopped: for devices that do not interrupt for every frame that left."""

    def check_link(self) -> None:
        """Follow the link, if something said that it changed."""
        raise NotImplementedError

    def clean_tx(self) -> None:
        """Take back the descriptors of frames that left."""
        raise NotImplementedError

    def clean_rx(self, budget: int) -> int:
        """Pass on at most `budget` frames with netif_receive_skb_list(); return how many."""
        raise NotImplementedError

    def alive(self) -> bool:
        """Whether the device still answers: a register that cannot be all ones."""
        raise NotImplementedError

    # The NetDevice operations

    def open(self) -> None:
        """Set up the chip, then the interrupt, if the bus has one. Raises NetdevError."""
        self.irq_masked = self.rx_sched = False
        self._bus_masked = True
        self.xoff = True
        self.carrier = False
        try:
            self.start()
        except BusError as error:
            raise NetdevError(error.errno or errno.EIO, f"{self.name}: {error.strerror}") from error
        self._stuck, self._away = 0, False
        self._watching += 1
        if not self.ctx.crashed:
            self._irq_on()
        self._watch_later(self._watching)

    def stop(self) -> None:
        """Halt the chip; its memory stays for the next open()."""
        netif_stop_queue(self)
        self._watching += 1
        self.halt()

    def release(self) -> None:
        """Give the device back to the bus."""
        self.bus.close()

    def irq_fds(self) -> Sequence[tuple[int, int]]:
        """The bus's interrupt."""
        fd = self.bus.interrupt_fd()
        return () if fd is None else ((fd, select.EPOLLIN),)

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Copy the frame into the next descriptor's buffer; a ring that is full stops the queue."""
        ring, data = self.tx, self._before + skb.data
        use, size = ring.next_to_use, len(data)
        if use - ring.next_to_clean >= ring.usable:
            self._stop_full()
            return NETDEV_TX_BUSY
        if size > self.frame_limit + self.needed_headroom:
            self.stats["tx_errors"] += 1
            skb.users = 0
            return NETDEV_TX_OK
        slot = use & ring.mask
        ring.stamps[slot] = None
        ring.buffers[slot][:size] = data
        self.fill(slot, size)
        ring.next_to_use = use = use + 1
        if use - ring.next_to_clean >= ring.usable:
            self._stop_full()
        if not self.xmit_more or self.xoff:
            self.doorbell()
        else:
            ring.room = 0  # whoever rings next does it for this frame, too
        skb.users = 0
        return NETDEV_TX_OK

    def xmit_many(self, frames: Sequence[bytes]) -> int:
        """As many frames as there is room for, with one doorbell; a ring that is full stops the queue."""
        limit, headroom = self.frame_limit, self.needed_headroom
        fit = len(frames)
        if max(map(len, frames), default=0) > limit:
            fit = next(n for n, data in enumerate(frames) if len(data) > limit)

        def put(slot: int, done: int, count: int) -> None:
            some = frames[done : done + count]
            sizes = array("H", map(headroom.__add__, map(len, some)))
            at = self._copy(slot, self._before.join((b"", *some)))
            self.tx.stamps[slot : slot + count] = [None] * count
            self.fill_run(slot, tuple(accumulate(sizes[:-1], initial=at)), sizes)

        return self._put(fit, put)

    def xmit_run(self, run: FrameRun) -> int:
        """The same for frames that lie one after another already. Descriptors that stand for such a run from its last lap are not written again."""
        headroom, stride, stamps = self.needed_headroom, run.stride, self.tx.stamps
        size = run.size + headroom

        def put(slot: int, done: int, count: int) -> None:
            first = run.first - headroom + done * stride
            with memoryview(run.octets) as octets:
                at = self._copy(slot, octets[first : first + (count - 1) * stride + size])
            laid = self._lay(slot, stride, size) * count
            if stamps[slot : slot + count] != laid:
                stamps[slot : slot + count] = [None] * count
                self.fill_run(slot, range(at, at + count * stride, stride), array("H", [size]) * count)
                stamps[slot : slot + count] = laid

        return self._put(run.count if run.size <= self.frame_limit else 0, put)

    def _lay(self, slot: int, stride: int, size: int) -> list[Stamp]:
        """The stamp of a run's descriptors, alone in a list: `size` octets each `stride`, the first where the buffer of `slot` begins. The same
        object each time: to compare that costs nothing."""
        stamp: Stamp = (None, slot, stride, size)
        if self._laid.get(slot) != [stamp]:
            self._laid[slot] = [stamp]
        return self._laid[slot]

    def _put(self, wanted: int, put: Callable[[int, int, int], None]) -> int:
        """put(slot, done, count) for as many of the frames `wanted` as there is room for, up to the ring's end and from its start. What has
        left is taken back first where that or half of the ring is not free: a batch need not stop the queue for it (ixy's tx_batch)."""
        ring = self.tx
        if ring.free() < max(wanted, ring.usable // 2):
            self._reclaim()
        taken, done = min(wanted, ring.free()) if self.running else 0, 0
        while done < taken:
            slot = ring.next_to_use & ring.mask
            count = min(taken - done, ring.count - slot)
            put(slot, done, count)
            ring.next_to_use += count
            done += count
        if not ring.free():
            self._stop_full()
        if taken:
            self.doorbell()
        return taken

    def _reclaim(self) -> None:
        """clean_tx(), unless another CPU is in it, which does the same work. That one may be dead after a crash, and is not minded then."""
        mine = self._cleaning.acquire(blocking=False)
        if not (mine or self.ctx.crashed):
            return
        try:
            self.clean_tx()
        finally:
            if mine:
                self._cleaning.release()

    def begin(self, slot: int, header: bytes) -> None:
        """For direct.py: the frames in tx.buffers[slot] begin with `header`."""
        whole = self._before + header
        self.tx.buffers[slot][: len(whole)] = whole

    def make_room(self) -> bool:
        """For direct.py: the bell for what `xmit_more` held back, and what a poll has taken back. The last descriptor is hard_start_xmit()'s, which
        stops the queue, so that netpoll polls."""
        ring = self.tx
        self.doorbell()
        ring.room = ring.next_to_clean + ring.usable - 1
        return self.running and ring.next_to_use < ring.room

    def direct(self, index: Store, at: int, wrap: int, bell: Bell | None = None) -> DirectTx:
        """What a chip's driver answers to `direct_tx`, but for where it tells of frames."""
        headroom = self.needed_headroom
        places = [slot * BUFFER + headroom for slot in range(self.tx.count)]
        return DirectTx(self.tx, places, headroom, index, at, wrap, self.fill, self.begin, self.make_room, bell)

    def _copy(self, slot: int, octets: bytes | memoryview) -> int:
        """Frames to the memory of the buffers from `slot` on, one close to the other: it is theirs until they have left, and one copy is
        cheaper than many. The address of the first octet."""
        at = slot * BUFFER
        self.tx.memory[at : at + len(octets)] = octets
        return self.tx.addresses[slot]

    def _stop_full(self) -> None:
        """Stop the queue, then look once more: another CPU may have cleaned the ring meanwhile and not come back."""
        netif_stop_queue(self)
        self.queue_full()
        self._wake()

    def interrupt(self) -> None:
        """Read and acknowledge the cause; if it is ours, mask and schedule the poll."""
        self._bus_masked |= self.ctx.in_irq()
        if self.ctx.crashed and not self._polled_alone:
            self._interrupts_off()
        if self.irq_cause():
            self.irq_mask()
            disable_irq(self)
            netif_rx_schedule(self)
        elif self._bus_masked and not self.ctx.crashed:
            self._bus_masked = False
            self.bus.interrupt_enable()  # not ours, or a poll has done the work: the bus masked it when it came

    def _interrupts_off(self) -> None:
        """Nobody is left to take an interrupt: what lets one through is turned off, once."""
        self._polled_alone = self._bus_masked = True
        self.irq_mask()
        self.bus.interrupt_disable()

    def poll(self, budget: int) -> int:
        """Link, TX, then at most `budget` frames; then interrupts again, unless nobody serves them."""
        self.check_link()
        self._reclaim()
        if self.xoff:
            self._wake()
        done = self.clean_rx(budget)
        again = self._look_again(done)
        if done < budget and self.running and not again:
            netif_rx_complete(self)
            if not self.ctx.crashed:
                self._irq_on()
        return done

    def _look_again(self, done: int) -> bool:
        """napi_complete_done(): where frames come, more do, and an interrupt costs what some looks cost - over vfio-user, whose registers take
        0.1 ms each, what a hundred do. So the softirq looks again before it lets interrupts through; netpoll, which polls by itself, does not."""
        if done:
            self._looks = self.napi_defer_hard_irqs
        if not self._looks or not self.ctx.in_softirq():
            return False
        self._looks -= 1
        return True

    def _irq_on(self) -> None:
        enable_irq(self)
        if self._bus_masked:
            self._bus_masked = False
            self.bus.interrupt_enable()
        if self.irq_unmask():
            self.irq_mask()
            disable_irq(self)
            netif_rx_schedule(self)

    def _wake(self) -> None:
        if self.carrier and self.running and self.tx.free() > self.wake_at:
            netif_wake_queue(self)

    # What chips' drivers call

    def wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Ask until it is done. Raises BusError (ETIMEDOUT) naming what was awaited."""
        deadline = self.ctx.clock() + seconds
        while not done():
            if self.ctx.clock() >= deadline:
                raise BusError(errno.ETIMEDOUT, f"{self.bus.name}: {what} did not come back within {seconds:g} s")
            self.ctx.delay(10e-6)

    def link(self, up: bool) -> None:
        """The link is so now."""
        if up and not self.carrier:
            netif_carrier_on(self)
            self._wake()
        elif not up and self.carrier:
            netif_carrier_off(self)
            netif_stop_queue(self)

    def vanished(self) -> None:
        """Its registers read as ones: a bus error, or the end. Whoever is left after a crash goes on trying; else the watchdog waits
        for it to answer, and resets it then, as error recovery does (pci_error_handlers: slot_reset, resume). Any context."""
        if self.ctx.crashed or self._away:
            return
        log.error("%s: its registers read as ones", self.name)
        self.stats["vanished"] += 1
        self._away = True
        self.link(False)

    def broken(self, why: str) -> None:
        """The device writes nonsense, or does not come back from a reset: nothing more runs on it. Any context."""
        if not self.present:
            return
        log.error("%s: %s; the device is not used any more", self.name, why)
        self.stats["broken"] += 1
        netif_carrier_off(self)
        netif_device_detach(self)

    # The watchdog, in process context

    def _watch_later(self, mine: int) -> None:
        self.ctx.call_later(WATCHDOG, lambda: self._watch(mine))

    def _watch(self, mine: int) -> None:
        if mine != self._watching or not self.running:
            return
        if not self.alive():
            self.vanished()
            self._watch_later(mine)
            return
        if self._away:
            self.bring_back("answers again, resetting")
        hung = self.xoff and self.carrier and self.tx.next_to_clean == self._cleaned and self.tx.in_flight() > 0
        self._stuck = self._stuck + 1 if hung else 0
        self._cleaned = self.tx.next_to_clean
        if self._stuck >= TX_TIMEOUT:
            self.stats["tx_timeouts"] += 1
            self.bring_back("transmit timed out, resetting")
        self._watch_later(mine)

    def bring_back(self, why: str) -> None:
        """ndo_tx_timeout, slot_reset: set the chip up anew; frames that were in flight are lost."""
        log.warning("%s: %s", self.name, why)
        self.stats["tx_lost"] += self.tx.in_flight()
        self._stuck, self._away = 0, False
        self.halt()
        try:
            self.start()
        except BusError as error:
            self.broken(f"it does not come back from a reset: {error.strerror}")
            return
        self._wake()
        if not self.ctx.crashed:
            self._irq_on()
