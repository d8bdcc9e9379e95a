"""virtio-net over modern PCI, by virtio 1.2: set-up as in 3.1.1, one receive and one transmit queue (5.1).

    tx: descriptor n is buffer n, in place n of the available ring: a frame costs one store, `doorbell` publishes the index
    rx: all buffers are available; a used one is passed on and made available again

In: frames, what the device wrote into the used rings. Out: a PollModeDevice. The one rule: an id or a length of the used ring
is believed only if the device has that buffer and the frame fits.

Asked for: MAC, STATUS, event indices, and what says how memory is reached. Not asked for: merged buffers, checksums and
segmentation, the control queue (a device without CTRL_RX passes everything on).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from guest.netpoll.direct import Bell, DirectTx
from guest.netpoll.drivers.pmd.bus import PciDevice
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.ring import quads
from guest.netpoll.drivers.pmd.virtio_pci import LARGEST, VirtioPci, Virtqueue
from guest.netpoll.layout.virtio import (
    DESC_F_WRITE,
    NET_HDR,
    RX_QUEUE,
    S_LINK_UP,
    TX_QUEUE,
    Common,
    Feature,
    Isr,
    NetConfig,
    Status,
    bits,
)
from guest.netpoll.napi import disable_irq, netif_receive_skb_list, netif_rx_schedule
from guest.netpoll.netdevice import Net

WANTED = bits(
    Feature.MAC, Feature.STATUS, Feature.RING_EVENT_IDX, Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.ORDER_PLATFORM
)  # fmt: skip
HEADER = NET_HDR.size
RESET = 1.0  # seconds until device_status must read 0
_RX_LENGTH = 2048
_IN_ORDER = list(range(LARGEST))
_ISR_CONFIG = int(Isr.CONFIG)
_NEEDS_RESET, _GONE = int(Status.NEEDS_RESET), 0xFF


class VirtioNet(PollModeDevice):
    """The driver. Raises BusError as VirtioPci does."""

    def __init__(self, net: Net, name: str, bus: PciDevice) -> None:
        super().__init__(net, name, bus, headroom=HEADER)
        bus.set_dma_mask(64)
        self.pci = VirtioPci(bus)
        self.regs = self.pci.notify.regs
        self._reset()
        self.pci.negotiate(WANTED)
        self._rx, self._tx = (
            Virtqueue(bus, n, self.pci.size(n), skipped) for n, skipped in ((RX_QUEUE, HEADER), (TX_QUEUE, 0))
        )
        self.rx, self.tx = self._rx.ring, self._tx.ring
        self._early = array("B", bytes(self.tx.count))  # 1: it has left before one that was to leave before it
        self._order: list[int] = []  # the available ring's receive buffers
        self.wake_at = self.tx.count // 4
        self._config_changed = False
        self._out_of_order = 0  # how many these are
        self.dev_addr = bytes(self.pci.config.read8(NetConfig.MAC + n) for n in range(6))

    # Set-up: 3.1.1

    def _reset(self) -> None:
        """1 to 3: reset, and it reads 0 when that is done (4.1.4.3.1); we have seen it, and know how to drive it."""
        common = self.pci.common
        common.write8(Common.DEVICE_STATUS, 0)
        self.wait(lambda: self.pci.status == 0, RESET, "a reset")
        self.pci.add_status(Status.ACKNOWLEDGE)
        self.pci.add_status(Status.DRIVER)

    def start(self) -> None:
        self._reset()  # 1 to 3
        self.pci.negotiate(WANTED)  # 4 to 6
        self._rx.reset(DESC_F_WRITE, _RX_LENGTH)  # 7: the queues, each buffer where it stays
        self._tx.reset(0, 0)
        self._early[:] = array("B", bytes(self.tx.count))
        self._order = list(range(self.rx.count))
        self._out_of_order = 0
        for queue in (self._rx, self._tx):
            self.pci.enable(queue)
            queue.no_interrupt()
        self.bus.set_master(True)
        self.pci.add_status(Status.DRIVER_OK)  # 8
        self.rx.next_to_use = self.rx.count
        if self._rx.publish(self.rx.next_to_use):
            self.pci.ring(self._rx)
        self._config_changed = True
        self.check_link()

    def set_mac_address(self, addr: bytes) -> None:
        """ndo_set_mac_address: the device filters nothing as long as CTRL_RX is not negotiated."""
        self.dev_addr = addr

    def halt(self) -> None:
        self.pci.common.write8(Common.DEVICE_STATUS, 0)
        self.pci.common.read8(Common.DEVICE_STATUS)  # it has arrived
        self.bus.set_master(False)

    def alive(self) -> bool:
        return self.pci.status != _GONE

    # Interrupts

    def irq_cause(self) -> bool:
        """Work is found in memory. The ISR is read in an interrupt, to let go of the pin, and where memory shows no work: only it
        tells of a new configuration. So it is for a ring that is full after a crash: whose every poll has one to clean would never hear of
        the link. To read it is to acknowledge what came until then, so memory is looked at afterwards."""
        if self._work() and not (self.ctx.in_irq() or (self.ctx.crashed and self.xoff)):
            return True
        if self.pci.read_isr() & _ISR_CONFIG:
            self._config_changed = True
        return self._work() or self._config_changed

    def _work(self) -> bool:
        return self._rx.used[1] != self._rx.seen or (self.xoff and self._tx.used[1] != self._tx.seen)

    def irq_mask(self) -> None:
        self._rx.no_interrupt()
        self._tx.no_interrupt()

    def irq_unmask(self) -> bool:
        passed = self._rx.interrupt_at(self._rx.seen)
        if self.xoff:
            passed |= self._tx.interrupt_at(self._tx.seen + self.tx.in_flight() // 2)
        return passed

    def irq_enabled(self) -> bool:
        return self._rx.interrupts() or self._tx.interrupts()

    def queue_full(self) -> None:
        """Linux' virtqueue_enable_cb_delayed(): an interrupt when half of it has left, or the poll now if it has already."""
        if self.ctx.crashed or self.rx_sched:
            return
        if self._tx.interrupt_at(self._tx.seen + self.tx.in_flight() // 2) and netif_rx_schedule(self):
            self.irq_mask()
            disable_irq(self)

    # Link

    def check_link(self) -> None:
        """5.1.4.2: a new configuration may be a new link state, or that the device has given up."""
        if not self._config_changed:
            return
        self._config_changed = False
        status = self.pci.status
        if status == _GONE:
            self.vanished()
            return
        if status & _NEEDS_RESET:
            self._needs_reset()
            return
        if self.pci.has(Feature.STATUS):
            self.link(bool(self.pci.config.read16(NetConfig.STATUS) & S_LINK_UP))
        else:
            self.link(True)

    def _needs_reset(self) -> None:
        """2.1.2: in process context, where there is one; what is in flight is lost."""
        self.link(False)
        if self.ctx.crashed:
            self._reset_as_asked()
        else:
            self.ctx.schedule_work(self._reset_as_asked)

    def _reset_as_asked(self) -> None:
        if self.running:
            self.bring_back("it says that it needs a reset")

    # The rings

    def fill(self, slot: int, size: int) -> None:
        self._tx.desc_quads[2 * slot] = self.tx.addresses[slot]  # a run may have left another
        self._tx.desc[4 * slot + 2] = size

    def fill_run(self, slot: int, addresses: Sequence[int], sizes: array[int]) -> None:
        """A column at a time. A length is less than 64 KiB, its upper half 0 since `start`."""
        count = len(sizes)
        self._tx.desc_quads[2 * slot : 2 * (slot + count) : 2] = quads(addresses)
        self._tx.desc_halves[8 * slot + 4 : 8 * (slot + count) : 8] = memoryview(sizes)

    def doorbell(self) -> None:
        if self._tx.publish(self.tx.next_to_use):
            self.pci.ring(self._tx)

    def direct_tx(self) -> DirectTx | None:
        """The available index is in memory, and the device says when it wants to be told; one that cannot (2.7.10) is asked each time."""
        queue, notify = self._tx, self.pci.notify
        if not queue.event_idx:
            return None
        where = (notify.offset + queue.bell) // 2
        bell = Bell(notify.regs.halves, where, queue.number, queue.used, queue.avail_event)
        return self.direct(queue.avail, 1, 0xFFFF, bell)

    def clean_tx(self) -> None:
        """Used entries. A device that takes its time in order is believed by the run; what it says out of order, one by one."""
        queue, ring = self._tx, self.tx
        fresh = queue.fresh()
        if fresh > ring.in_flight():
            self.broken(f"{fresh} frames used of {ring.in_flight()}")
            return
        while fresh:
            entry, slot = queue.seen & ring.mask, ring.next_to_clean & ring.mask
            run = min(fresh, ring.count - entry, ring.count - slot)
            ids = queue.used_words[1 + 2 * entry : 1 + 2 * (entry + run) : 2].tolist()
            if ids == _IN_ORDER[slot : slot + run] and self._out_of_order == 0:
                ring.next_to_clean += run
            elif not self._clean_out_of_order(ids):
                return
            queue.seen = (queue.seen + run) & 0xFFFF
            fresh -= run

    def _clean_out_of_order(self, ids: list[int]) -> bool:
        """False if one of them is a lie. Descriptors are free again once all before them are."""
        ring, early = self.tx, self._early
        for slot in ids:
            if slot > ring.mask or early[slot] or (slot - ring.next_to_clean) & ring.mask >= ring.in_flight():
                self.broken(f"transmit descriptor {slot} used, which it does not have")
                return False
            early[slot] = 1
        self._out_of_order += len(ids)
        while self._out_of_order and early[ring.next_to_clean & ring.mask]:
            early[ring.next_to_clean & ring.mask] = 0
            ring.next_to_clean += 1
            self._out_of_order -= 1
        return True

    def clean_rx(self, budget: int) -> int:
        """Used buffers, in the device's order, in runs that do not reach beyond the ring's end; each goes back into the available ring."""
        done = 0
        while self.running and (run := self._clean_run(budget - done)):
            done += run
        return done

    def _clean_run(self, budget: int) -> int:
        """Copy frames out, give their buffers back together, then pass them on: a hook may send, but never sees a buffer of the device's."""
        queue, ring = self._rx, self.rx
        fresh = queue.fresh()
        if fresh > ring.count:
            self.broken(f"{fresh} buffers used of {ring.count}")
            return 0
        entry = queue.seen & ring.mask
        run = min(fresh, budget, ring.count - entry)
        elements = queue.used_words[1 + 2 * entry : 1 + 2 * (entry + run)].tolist()
        ids, sizes = elements[::2], elements[1::2]
        if run == 0 or not self._give_back(ids, entry):
            return 0
        low, high, buffers = HEADER + 14, HEADER + self.frame_limit, ring.buffers
        frames = [
            buffers[slot][: size - HEADER].tobytes()
            for slot, size in zip(ids, sizes, strict=True)
            if low <= size <= high
        ]
        queue.seen = (queue.seen + run) & 0xFFFF
        ring.next_to_clean += run
        ring.next_to_use += run
        if len(frames) < run:
            self.stats["rx_length_errors"] += run - len(frames)
        if queue.publish(ring.next_to_use):
            self.pci.ring(queue)
        netif_receive_skb_list(self, frames)
        return run

    def _give_back(self, ids: list[int], entry: int) -> bool:
        """Put buffers into the next places of the available ring: those of the used entries, since the device has all the others. They are
        there already if it keeps the order. False if one of them is none, or is named twice."""
        order = self._order
        if ids == order[entry : entry + len(ids)]:
            return True
        if max(ids) > self.rx.mask or len(set(ids)) < len(ids):
            self.broken(f"receive buffers {ids} used, of {self.rx.count} that it has once each")
            return False
        order[entry : entry + len(ids)] = ids
        self._rx.avail[2 + entry : 2 + entry + len(ids)] = memoryview(array("H", ids))
        return True
