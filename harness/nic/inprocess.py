"""A driver and a device model in one Python process: guest.netpoll.drivers.pmd.bus.PciDevice without a machine in between.

    driver --Registers--> vfio_user.PciDevice <-- the same object that QEMU gets over vfio-user --> model --> Wire
       |                        |                                                                     |
       +---- DmaBuffer ---- DmaMemory                     eventfd <-- INTx, masked when told <--------+

In: a model's name, a MAC address, a wire, a clock. Out: what a driver needs, and what became of it: frames, counts, DMA faults. Rule:
each allocation is a range of its own with unmapped pages around it, so DMA outside of it faults, and `faults` tells of it.

Time is the clock's: it passes where a driver waits (`Clock.context`) and where a test says so (`Clock.advance`), nowhere else.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import itertools
import mmap
import os
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from guest.netpoll.context import Context
from guest.netpoll.drivers.pmd.bus import BusError
from harness.nic.bus import Chip, Wire
from harness.nic.models import make
from harness.vfio_user.config import COMMAND
from harness.vfio_user.device import PciDevice
from harness.vfio_user.errors import DmaFault
from harness.vfio_user.session import IrqSet
from harness.vfio_user.wire import PAGE, Irq, Region, SetIrqs

BASE = 0x1_2345_0000  # where the NIC sees the first allocation: addresses have two halves
LOW = 0x2345_0000  # the same for one with a DMA mask of 32 bits
MASTER, MEMORY = 0x4, 0x2  # bits of the command register


class Clock:
    """Time that somebody moves. `after`: called after each timer, as a server settles its models after each event."""

    def __init__(self) -> None:
        self.now = 0.0
        self.after: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + seconds, next(self._serial), callback))

    def sleep(self, seconds: float) -> None:
        """A slow device: time passes, and nothing else happens."""
        self.now += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass, and models do what they do later."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            at, _, callback = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            callback()
            for settle in self.after:
                settle()
        self.now = max(self.now, until)

    def context(self) -> Context:
        """The stack's machine, on this clock: udelay() lets the devices work."""
        return Context(clock=self, delay=self.advance)


class Buffer:
    """A DmaBuffer: `view` is the CPU's mapping, the model has its own of the same pages."""

    def __init__(self, view: memoryview, address: int) -> None:
        self.view, self.address = view, address


class Bar:
    """A memory BAR; each call is one access, and the model settles after each write."""

    def __init__(self, device: PciDevice, index: int, settle: Callable[[], None]) -> None:
        self.size = device.region(index)[0]
        self._device, self._index, self._settle = device, index, settle
        self.reads = self.writes = 0
        self.words, self.halves = Items(self.write32, 4), Items(self.write16, 2)

    def _read(self, offset: int, width: int) -> int:
        self._check(offset, width)
        self.reads += 1
        return int.from_bytes(self._device.region_read(self._index, offset, width), "little")

    def _write(self, offset: int, width: int, value: int) -> None:
        self._check(offset, width)
        self.writes += 1
        self._device.region_write(self._index, offset, int(value).to_bytes(width, "little"))
        self._settle()

    def _check(self, offset: int, width: int) -> None:
        if offset % width or not 0 <= offset <= self.size - width:
            raise ValueError(f"{width} bytes at {offset:#x} of a BAR of {self.size:#x}")

    def read8(self, offset: int) -> int:
        return self._read(offset, 1)

    def read16(self, offset: int) -> int:
        return self._read(offset, 2)

    def read32(self, offset: int) -> int:
        return self._read(offset, 4)

    def write8(self, offset: int, value: int) -> None:
        self._write(offset, 1, value)

    def write16(self, offset: int, value: int) -> None:
        self._write(offset, 2, value)

    def write32(self, offset: int, value: int) -> None:
        self._write(offset, 4, value)


class Items:
    """Registers of one width, by number."""

    def __init__(self, write: Callable[[int, int], None], width: int) -> None:
        self._write, self._width = write, width

    def __setitem__(self, number: int, value: int, /) -> None:
        self._write(number * self._width, value)


class Slot:
    """A model plugged in: the driver's PciDevice. `chip` and `wire` are the test's handles, `counts`, `told` and `faults` what happened,
    `allocated` what the device may reach."""

    def __init__(
        self, model: str, mac: bytes, wire: Wire, clock: Clock, seed: int = 0, bus_interrupts: bool = True
    ) -> None:
        self.name, self.wire, self.clock = model, wire, clock
        self.counts: Counter[str] = Counter()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[DmaFault] = []
        self.allocated: list[Buffer] = []
        self.pci: PciDevice
        self.chip: Chip
        self.chip, self.pci = make(model, clock, mac, wire, self._tell, self._count, seed)
        self.pci.dma.faulted = self.faults.append
        clock.after.append(self.chip.settle)
        self.pci.config.write(COMMAND, struct.pack("<H", MEMORY))
        self.vendor, self.device = struct.unpack("<HH", self.read_config(0, 4))
        self._next, self._reach = BASE, 1 << 64
        self._bars: dict[int, Bar] = {}
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if bus_interrupts else -1
        if bus_interrupts:
            self._irq(SetIrqs.DATA_EVENTFD | SetIrqs.ACTION_TRIGGER, [os.dup(self._event)])
        self._closed = self._let_through = False
        self._interrupts = 0

    def _tell(self, kind: str, **keys: Any) -> None:
        self.told.append((kind, keys))

    def _count(self, name: str, number: int) -> None:
        self.counts[name] += number

    def _irq(self, flags: SetIrqs, fds: list[int]) -> None:
        self.pci.set_irqs(IrqSet(flags, Irq.INTX, 0, 1, b""), fds)

    def read_config(self, offset: int, length: int) -> bytes:
        return self.pci.region_read(Region.CONFIG, offset, length)

    def write_config(self, offset: int, data: bytes) -> None:
        self.pci.region_write(Region.CONFIG, offset, data)
        self.chip.settle()

    def bar(self, index: int, least: int) -> Bar:
        size = self.pci.region(index)[0]
        if size < least:
            raise BusError(errno.EINVAL, f"{self.name}: BAR {index} has {size} bytes, {least} are needed")
        return self._bars.setdefault(index, Bar(self.pci, index, self.chip.settle))

    def set_dma_mask(self, bits: int) -> None:
        self._reach = 1 << bits
        if self._next == BASE and bits <= 32:
            self._next = LOW

    def dma_alloc(self, size: int, align: int = 64) -> Buffer:
        """Zeroed memory of exactly `size` bytes, on a page of its own."""
        step = max(align, PAGE)
        address = -(-self._next // step) * step
        if address + size > self._reach:
            raise BusError(
                errno.ERANGE, f"{self.name}: {address:#x} is beyond what the device reaches, {self._reach:#x}"
            )
        self._next = address + size + PAGE
        fd = os.memfd_create("dma", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self.pci.dma_map(3, address, size, [fd], 0)
            buffer = Buffer(memoryview(mmap.mmap(fd, size)), address)
            self.allocated.append(buffer)
            return buffer
        finally:
            os.close(fd)

    def set_master(self, on: bool) -> None:
        command = int.from_bytes(self.read_config(COMMAND, 2), "little")
        self.write_config(COMMAND, struct.pack("<H", command | MASTER if on else command & ~MASTER))

    def interrupt_fd(self) -> int | None:
        return self._event if self._event >= 0 else None

    def interrupt_enable(self) -> None:
        """As a write to /dev/uioN: INTx is told again if the device still asserts it."""
        if self._event >= 0:
            self._take_told()
            self._let_through = True
            self._irq(SetIrqs.DATA_NONE | SetIrqs.ACTION_UNMASK, [])

    def interrupt_disable(self) -> None:
        if self._event >= 0:
            self._let_through = False
            self._irq(SetIrqs.DATA_NONE | SetIrqs.ACTION_MASK, [])

    def interrupt_state(self) -> tuple[bool, int]:
        self._take_told()
        return self._let_through, self._interrupts

    def _take_told(self) -> None:
        if self._event >= 0:
            with suppress(BlockingIOError):
                self._interrupts += os.eventfd_read(self._event)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.set_master(False)
        self.pci.disconnected()
        if self._event >= 0:
            os.close(self._event)
            self._event = -1


class Tape:
    """A Wire that keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.resumed = 0

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def resume(self) -> None:
        self.resumed += 1


class Cable:
    """Two Wires joined: what a model sends at one end, the model at the other receives; what that has no room for, waits."""

    def __init__(self) -> None:
        self.ends = (CableEnd(), CableEnd())
        self.ends[0].peer, self.ends[1].peer = self.ends[1], self.ends[0]


class CableEnd:
    """One end; `chip` is plugged in by whoever made it."""

    def __init__(self) -> None:
        self.peer: CableEnd
        self.chip: Chip | None = None
        self._waiting: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.peer.arrive(frame)

    def arrive(self, frame: bytes) -> None:
        if self.chip is None:
            return
        if self._waiting or not self.chip.receive(frame):
            self._waiting.append(frame)
            return
        self.chip.settle()

    def resume(self) -> None:
        waiting, self._waiting = self._waiting, []
        for frame in waiting:
            self.arrive(frame)
