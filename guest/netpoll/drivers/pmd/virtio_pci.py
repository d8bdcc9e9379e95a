"""virtio over PCI, the driver's side: capabilities, features, status, queues in memory (virtio 1.2, 3.1, 4.1, 2.7).

In: a bus. Out: a `VirtioPci` with its areas, and `Virtqueue`s. The one rule: the device is asked to use only what it
offered and we know; what it does not confirm is an error that names it.
"""

from __future__ import annotations

import errno
import threading
from array import array

from guest.netpoll.drivers.pmd.bus import BusError, PciDevice, Registers
from guest.netpoll.drivers.pmd.ring import Ring
from guest.netpoll.layout.virtio import (
    AVAIL_F_NO_INTERRUPT,
    COMMON_SIZE,
    DEVICE_NET,
    DEVICE_NET_TRANSITIONAL,
    PCI_CAP,
    PCI_CAP_ID_VNDR,
    USED_F_NO_NOTIFY,
    VENDOR,
    CfgType,
    Common,
    Feature,
    Status,
    avail_size,
    bits,
    used_size,
)

CAPABILITIES_AT = 0x34  # of configuration space
LARGEST = 256  # descriptors of a queue that we use
_AREAS = {CfgType.COMMON: COMMON_SIZE, CfgType.NOTIFY: 4, CfgType.ISR: 1, CfgType.DEVICE: 8}
_fence = threading.Lock()


def mb() -> None:
    """smp_mb(): what was stored is seen before what is loaded next. A lock's exchange is a full barrier on every CPU."""
    _fence.acquire()
    _fence.release()


class Area:
    """A part of a BAR: one of the structures that a vendor capability points at."""

    def __init__(self, regs: Registers, offset: int, length: int) -> None:
        self.regs, self.offset, self.length = regs, offset, length

    def read8(self, at: int) -> int:
        return self.regs.read8(self.offset + at)

    def read16(self, at: int) -> int:
        return self.regs.read16(self.offset + at)

    def read32(self, at: int) -> int:
        return self.regs.read32(self.offset + at)

    def write8(self, at: int, value: int) -> None:
        self.regs.write8(self.offset + at, value)

    def write16(self, at: int, value: int) -> None:
        self.regs.write16(self.offset + at, value)

    def write32(self, at: int, value: int) -> None:
        self.regs.write32(self.offset + at, value)

    def write64(self, at: int, value: int) -> None:
        """4.1.3.1: as two halves, the lower one first."""
        self.write32(at, value & 0xFFFF_FFFF)
        self.write32(at + 4, value >> 32)


class Virtqueue:
    """One queue: `ring` has a buffer for each descriptor, descriptor n always the same one.

    `avail` and `used` are their areas in halves: flags, idx, entries; `used_words` the same in words, entry n at 1 + 2n.
    """

    def __init__(self, bus: PciDevice, number: int, count: int, headroom: int) -> None:
        self.number = number
        self.ring = Ring(bus, count, headroom=headroom)
        desc, avail, used = (
            bus.dma_alloc(-(-size // 8) * 8) for size in (16 * count, avail_size(count), used_size(count))
        )
        self.addresses = desc.address, avail.address, used.address
        self.desc, self.desc_halves, self.desc_quads = (desc.view.cast(width) for width in ("I", "H", "Q"))
        self.avail, self.used, self.used_words = avail.view.cast("H"), used.view.cast("H"), used.view.cast("I")
        self.event_idx = False
        self.seen = 0  # our place in the used ring
        self.bell = 0  # where to ring, in the notification area
        self._used_event, self.avail_event = 2 + count, 2 + 4 * count

    def reset(self, flags: int, length: int) -> None:
        """As the device expects it before it is enabled: every descriptor with its buffer, available in its own place."""
        count = self.ring.count
        self.ring.reset()
        self.seen = 0
        self.avail[:] = array("H", [0, 0, *range(count), *bytes(len(self.avail) - 2 - count)])
        self.used[:] = array("H", bytes(2 * len(self.used)))
        for slot, address in enumerate(self.ring.addresses):
            self.desc[4 * slot : 4 * slot + 4] = array("I", [address & 0xFFFF_FFFF, address >> 32, length, flags])

    def publish(self, index: int) -> bool:
        """Make everything before `index` available; True if the device wants to be told."""
        new, old = index & 0xFFFF, self.avail[1]
        self.avail[1] = new
        mb()
        if self.event_idx:
            return (new - self.used[self.avail_event] - 1) & 0xFFFF < (new - old) & 0xFFFF
        return not self.used[0] & USED_F_NO_NOTIFY

    def interrupt_at(self, used: int) -> bool:
        """Have it interrupt when its used index passes `used`; True if it has done that already."""
        if self.event_idx:
            self.avail[self._used_event] = used & 0xFFFF
        else:
            self.avail[0] = 0
        mb()
        return (self.used[1] - self.seen) & 0xFFFF > (used - self.seen) & 0xFFFF

    def no_interrupt(self) -> None:
        """None, please; with an event index, none for as long as possible."""
        if self.event_idx:
            self.avail[self._used_event] = (self.seen - 1) & 0xFFFF
        else:
            self.avail[0] = AVAIL_F_NO_INTERRUPT

    def interrupts(self) -> bool:
        """Whether the device would interrupt for one of the buffers that it may have."""
        if not self.event_idx:
            return not self.avail[0] & AVAIL_F_NO_INTERRUPT
        return (self.avail[self._used_event] - self.used[1]) & 0xFFFF < self.ring.count

    def fresh(self) -> int:
        """How many entries of the used ring are new; more than are in flight are a lie."""
        return (self.used[1] - self.seen) & 0xFFFF


class VirtioPci:
    """The transport. Raises BusError: ENODEV for another device or one without the structures, EINVAL for a BAR too small."""

    def __init__(self, bus: PciDevice) -> None:
        self.bus = bus
        if bus.vendor != VENDOR or bus.device not in (DEVICE_NET, DEVICE_NET_TRANSITIONAL):
            found = f"{bus.vendor:04x}:{bus.device:04x}"
            raise BusError(errno.ENODEV, f"{bus.name} is {found}, not a virtio-net (1af4:1041, 1af4:1000)")
        self._multiplier = 0
        found_areas = self._find()
        missing = [kind.name for kind in _AREAS if kind not in found_areas]
        if missing:
            raise BusError(
                errno.ENODEV,
                f"{bus.name} has no {', '.join(missing)} structure in a memory BAR: a legacy device? QEMU: disable-legacy=on, disable-modern=off",
            )
        self.common, self.notify = found_areas[CfgType.COMMON], found_areas[CfgType.NOTIFY]
        self.isr, self.config = found_areas[CfgType.ISR], found_areas[CfgType.DEVICE]
        self.features = 0

    def _find(self) -> dict[CfgType, Area]:
        """4.1.4: the first usable capability of each kind."""
        areas: dict[CfgType, Area] = {}
        at, seen = self.bus.read_config(CAPABILITIES_AT, 1)[0] & ~3, set[int]()
        while at >= 0x40 and at not in seen:
            seen.add(at)
            ident, following, _, kind, bar, _, offset, length = PCI_CAP.unpack(self.bus.read_config(at, PCI_CAP.size))
            if ident == PCI_CAP_ID_VNDR and kind in _AREAS and CfgType(kind) not in areas:
                area = self._area(bar, offset, length, _AREAS[CfgType(kind)])
                if area is not None:
                    areas[CfgType(kind)] = area
                    if kind == CfgType.NOTIFY:
                        self._multiplier = int.from_bytes(self.bus.read_config(at + PCI_CAP.size, 4), "little")
            at = following & ~3
        return areas

    def _area(self, bar: int, offset: int, length: int, least: int) -> Area | None:
        """None for one that we cannot use (an I/O BAR, reserved BAR numbers): another of its kind may follow."""
        if bar > 5 or length < least:
            return None
        try:
            return Area(self.bus.bar(bar, offset + length), offset, length)
        except BusError:
            return None

    @property
    def status(self) -> int:
        return self.common.read8(Common.DEVICE_STATUS)

    def add_status(self, bit: Status) -> None:
        self.common.write8(Common.DEVICE_STATUS, self.status | bit)

    def offered(self) -> int:
        """All 64 feature bits of the device."""
        halves = []
        for select in (0, 1):
            self.common.write32(Common.DEVICE_FEATURE_SELECT, select)
            halves.append(self.common.read32(Common.DEVICE_FEATURE))
        return halves[1] << 32 | halves[0]

    def negotiate(self, wanted: int) -> None:
        """3.1.1, steps 4 to 6. Raises BusError (ENODEV) if the device has no VERSION_1 or does not take the choice."""
        offered = self.offered()
        self.features = offered & wanted
        if not self.has(Feature.VERSION_1):
            raise BusError(errno.ENODEV, f"{self.bus.name} does not offer VIRTIO_F_VERSION_1: QEMU: disable-modern=off")
        for select in (0, 1):
            self.common.write32(Common.DRIVER_FEATURE_SELECT, select)
            self.common.write32(Common.DRIVER_FEATURE, self.features >> 32 * select & 0xFFFF_FFFF)
        self.add_status(Status.FEATURES_OK)
        if not self.status & Status.FEATURES_OK:
            raise BusError(errno.ENODEV, f"{self.bus.name} refuses features {self.features:#x} of {offered:#x}")

    def has(self, feature: Feature) -> bool:
        return self.features & bits(feature) != 0

    def size(self, number: int) -> int:
        """How many descriptors queue `number` may have; raises BusError (ENODEV) if it is not there."""
        self.common.write16(Common.QUEUE_SELECT, number)
        size = self.common.read16(Common.QUEUE_SIZE)
        if size == 0:
            raise BusError(errno.ENODEV, f"{self.bus.name} has no queue {number}")
        return min(1 << size.bit_length() - 1, LARGEST)

    def enable(self, queue: Virtqueue) -> None:
        """4.1.5.1.3: hand a queue over."""
        common = self.common
        common.write16(Common.QUEUE_SELECT, queue.number)
        common.write16(Common.QUEUE_SIZE, queue.ring.count)
        queue.bell = common.read16(Common.QUEUE_NOTIFY_OFF) * self._multiplier
        if queue.bell + 2 > self.notify.length:
            raise BusError(
                errno.EINVAL, f"{self.bus.name}: queue {queue.number} rings at {queue.bell:#x}, beyond its area"
            )
        fields = Common.QUEUE_DESC, Common.QUEUE_DRIVER, Common.QUEUE_DEVICE
        for field, address in zip(fields, queue.addresses, strict=True):
            common.write64(field, address)
        queue.event_idx = self.has(Feature.RING_EVENT_IDX)
        common.write16(Common.QUEUE_ENABLE, 1)

    def ring(self, queue: Virtqueue) -> None:
        """Tell the device that queue has something available."""
        self.notify.write16(queue.bell, queue.number)

    def read_isr(self) -> int:
        """What it interrupted for, bits of Isr; reading lets go of the pin."""
        return self.isr.read8(0)
