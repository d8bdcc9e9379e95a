"""virtio over PCI, the device's side: the four areas of BAR 4 (virtio 1.2, 4.1.4), status, features, queues, interrupts.

In: accesses to the areas. Out: `Device` calls: `notified(queue)`, `started`, `was_reset`, and config through `config_read`. Rule: a device
whose driver breaks the rules sets NEEDS_RESET, tells the driver, and does nothing until it is reset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from guest.netpoll.layout.virtio import (
    COMMON_SIZE,
    COMMON_WIDTH,
    LARGEST_QUEUE,
    NO_VECTOR,
    Common,
    Feature,
    Isr,
    Status,
    bits,
)
from harness.nic.bus import Bus
from harness.nic.faults import Faults
from harness.nic.virtio_net.queue import BadRing, Queue
from harness.vfio_user.errors import DmaFault

COMMON_AT, ISR_AT, DEVICE_AT, NOTIFY_AT, AREA, BAR_SIZE = 0x0000, 0x1000, 0x2000, 0x3000, 0x1000, 0x4000
NOTIFY_MULTIPLIER = 4
_ADDRESS_FIELDS = {Common.QUEUE_DESC: "desc", Common.QUEUE_DRIVER: "driver", Common.QUEUE_DEVICE: "device"}


class Device(Protocol):
    """What is behind the transport."""

    def notified(self, queue: int) -> None: ...

    def started(self) -> None:
        """DRIVER_OK."""

    def was_reset(self) -> None: ...

    def config_read(self, offset: int, count: int) -> bytes: ...


class Transport:
    """`offered`: feature bits. `queues`: largest sizes. `vectors`: how many MSI-X vectors there are."""

    def __init__(
        self,
        bus: Bus,
        faults: Faults,
        offered: int,
        queues: tuple[int, ...],
        vectors: int,
        tell: Callable[..., None],
        count: Callable[[str, int], None],
    ) -> None:
        self._bus, self._faults, self._offered, self._vectors = bus, faults, offered, vectors
        self._tell, self._count = tell, count
        self.queues = [Queue(_Late(bus), largest) for largest in queues]
        self.msix_enabled: Callable[[], bool] = lambda: False
        self.master: Callable[[], bool] = lambda: True
        self.device: Device
        self._withheld: set[tuple[int, Isr]] = set()
        self._clear()

    def _clear(self) -> None:
        self.status = self.generation = self._isr = 0
        self.features = 0
        self._select = {"device": 0, "driver": 0, "queue": 0}
        self._config_vector = NO_VECTOR
        self._withheld.clear()
        for queue in self.queues:
            queue.reset()

    def reset(self) -> None:
        """2.4: the driver wrote 0 to device_status, or the machine was reset."""
        self._clear()
        self._bus.intx(False)
        self.device.was_reset()

    @property
    def live(self) -> bool:
        """Whether the device may touch its queues."""
        return bool(self.status & Status.DRIVER_OK and not self.status & Status.NEEDS_RESET) and self.master()

    def has(self, feature: Feature) -> bool:
        return bool(self.features >> feature & 1)

    # BAR 4

    def read(self, offset: int, count: int) -> bytes:
        area, at = offset & ~(AREA - 1), offset & (AREA - 1)
        if area == COMMON_AT:
            return self._common_read(at, count)
        if area == ISR_AT and at == 0:
            isr, self._isr = self._isr, 0
            self._bus.intx(False)
            return isr.to_bytes(count, "little")
        if area == DEVICE_AT:
            return self.device.config_read(at, count)
        return bytes(count)

    def write(self, offset: int, data: bytes) -> None:
        area, at = offset & ~(AREA - 1), offset & (AREA - 1)
        if area == COMMON_AT:
            self._common_write(at, data)
        elif area == NOTIFY_AT:
            self._notify(at // NOTIFY_MULTIPLIER)

    def _notify(self, number: int) -> None:
        if number < len(self.queues):
            self._count("doorbells", 1)
            self.guarded(lambda: self.device.notified(number))

    def guarded(self, work: Callable[[], None]) -> None:
        """Do something with queues; what the driver did wrong there ends in NEEDS_RESET."""
        if not self.live:
            return
        try:
            work()
        except (BadRing, DmaFault) as error:
            if isinstance(error, DmaFault):
                self._count("dma_faults", 1)
            self._tell("remark", text=f"virtio-net needs a reset: {error}")
            self.status |= Status.NEEDS_RESET
            self.config_changed()

    def _queue(self) -> Queue | None:
        select = self._select["queue"]
        return self.queues[select] if select < len(self.queues) else None

    def _common_read(self, at: int, count: int) -> bytes:
        """4.1.3.1: fields are accessed with their own width, 64-bit ones by halves; anything else is split from the whole."""
        base = next((field for field in reversed(Common) if field <= at), None)
        if base is None or at >= COMMON_SIZE:
            return bytes(count)
        width = COMMON_WIDTH[base]
        value = self._field(base) >> 8 * (at - base)
        return (value & (1 << 8 * min(count, width)) - 1).to_bytes(count, "little")

    def _field(self, field: Common) -> int:
        queue = self._queue()
        match field:
            case Common.DEVICE_FEATURE_SELECT:
                return self._select["device"]
            case Common.DEVICE_FEATURE:
                return _half(self._offered, self._select["device"])
            case Common.DRIVER_FEATURE_SELECT:
                return self._select["driver"]
            case Common.DRIVER_FEATURE:
                return _half(self.features, self._select["driver"])
            case Common.CONFIG_MSIX_VECTOR:
                return self._config_vector
            case Common.NUM_QUEUES:
                return len(self.queues)
            case Common.DEVICE_STATUS:
                return self.status
            case Common.CONFIG_GENERATION:
                return self.generation & 0xFF
            case Common.QUEUE_SELECT:
                return self._select["queue"]
        return 0 if queue is None else self._queue_field(field, queue)

    def _queue_field(self, field: Common, queue: Queue) -> int:
        fields = {
            Common.QUEUE_SIZE: queue.size,
            Common.QUEUE_MSIX_VECTOR: queue.vector,
            Common.QUEUE_ENABLE: int(queue.enabled),
            Common.QUEUE_NOTIFY_OFF: self._select["queue"],
            Common.QUEUE_DESC: queue.desc,
            Common.QUEUE_DRIVER: queue.driver,
            Common.QUEUE_DEVICE: queue.device,
        }
        return fields.get(field, 0)

    def _common_write(self, at: int, data: bytes) -> None:
        value = int.from_bytes(data[:8], "little")
        for field, name in _ADDRESS_FIELDS.items():
            if field <= at < field + 8:
                self._set_address(name, at - field, data)
                return
        if at == Common.DEVICE_STATUS:
            self._set_status(value & 0xFF)
        elif at in (Common.DEVICE_FEATURE_SELECT, Common.DRIVER_FEATURE_SELECT, Common.QUEUE_SELECT):
            names = {Common.DEVICE_FEATURE_SELECT: "device", Common.DRIVER_FEATURE_SELECT: "driver"}
            self._select[names.get(Common(at), "queue")] = value & (
                0xFFFF if at == Common.QUEUE_SELECT else 0xFFFF_FFFF
            )
        elif at == Common.DRIVER_FEATURE:
            self._set_features(value & 0xFFFF_FFFF)
        elif at == Common.CONFIG_MSIX_VECTOR:
            self._config_vector = self._vector(value)
        else:
            self._set_queue(at, value & 0xFFFF)

    def _set_features(self, value: int) -> None:
        shift = 32 * self._select["driver"]
        if shift <= 32 and not self.status & Status.FEATURES_OK:
            self.features = self.features & ~(0xFFFF_FFFF << shift) | value << shift

    def _set_status(self, value: int) -> None:
        if value == 0:
            self.reset()
            return
        value |= self.status & Status.NEEDS_RESET
        if value & Status.FEATURES_OK and not self.status & Status.FEATURES_OK and not self._acceptable():
            value &= ~Status.FEATURES_OK  # 3.1.1 step 6: the driver reads it back
        began = value & Status.DRIVER_OK and not self.status & Status.DRIVER_OK
        self.status = value
        if began:
            for queue in self.queues:
                queue.event_idx, queue.indirect = self.has(Feature.RING_EVENT_IDX), self.has(Feature.RING_INDIRECT_DESC)
            self.guarded(self.device.started)

    def _acceptable(self) -> bool:
        """VERSION_1 is a must, and nothing that was not offered."""
        return self.features & ~self._offered == 0 and self.features & bits(Feature.VERSION_1) != 0

    def _vector(self, value: int) -> int:
        """4.1.5.1.2: what cannot be had reads back as NO_VECTOR."""
        value &= 0xFFFF
        return value if value < self._vectors else NO_VECTOR

    def _set_queue(self, at: int, value: int) -> None:
        queue = self._queue()
        if queue is None or (queue.enabled and at != Common.QUEUE_MSIX_VECTOR):
            return
        if at == Common.QUEUE_SIZE and 0 < value <= queue.largest <= LARGEST_QUEUE and value & (value - 1) == 0:
            queue.size = value
        elif at == Common.QUEUE_MSIX_VECTOR:
            queue.vector = self._vector(value)
        elif at == Common.QUEUE_ENABLE and value == 1:
            queue.enabled = True

    def _set_address(self, name: str, at: int, data: bytes) -> None:
        queue = self._queue()
        if queue is not None and not queue.enabled:
            whole = bytearray(getattr(queue, name).to_bytes(8, "little"))
            whole[at : at + len(data)] = data
            setattr(queue, name, int.from_bytes(whole[:8], "little"))

    # Interrupts

    def interrupt(self, queue: Queue) -> None:
        """Tell the driver of what was published, if it wants to hear."""
        if queue.tell():
            self._raise(queue.vector, Isr.QUEUE)

    def config_changed(self) -> None:
        """The device's configuration is another one now."""
        self.generation += 1
        if self.status & Status.DRIVER_OK:
            self._raise(self._config_vector, Isr.CONFIG)

    def spurious(self) -> None:
        self._count("spurious-interrupt", 1)
        if not (self.msix_enabled() and self._bus.msi(self.queues[0].vector)):
            self._bus.intx(True)
            self._bus.intx(False)

    def _raise(self, vector: int, why: Isr) -> None:
        if self._faults.strikes("no-interrupts"):
            self._withheld.add((vector, why))
            return
        if self.msix_enabled():
            if vector != NO_VECTOR and self._bus.msi(vector):
                self._count("msix", 1)
            return
        self._isr |= why
        self._bus.intx(True)
        self._count("intx", 1)

    def release(self) -> None:
        """`no-interrupts` has ended."""
        withheld, self._withheld = self._withheld, set()
        for vector, why in withheld:
            self._raise(vector, why)


class _Late:
    """The bus's memory, looked up at each call: the device behind the bus is made after the queues."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def read(self, address: int, length: int) -> bytes:
        return self._bus.memory.read(address, length)

    def write(self, address: int, data: bytes) -> None:
        self._bus.memory.write(address, data)

    def store16(self, address: int, value: int) -> None:
        self._bus.memory.store16(address, value)

    def store32(self, address: int, value: int) -> None:
        self._bus.memory.store32(address, value)


def _half(word: int, select: int) -> int:
    return word >> 32 * select & 0xFFFF_FFFF if select < 2 else 0
