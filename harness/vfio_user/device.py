"""A PCI device that a session can serve: config space, BARs, interrupts and guest memory put together.

In: accesses that the session has checked. Out: calls of the BARs and of `on_reset`. Rule: a device of one's own is made of
these parts, not derived from them:

    bars = {0: (BarKind(0, 4096), RegisterFile(4096, rows))}
    device = PciDevice(ConfigSpace(identity, tuple(kind for kind, _ in bars.values()), (msi(0x50),)), bars, {Irq.MSI: 1})
    device.irqs.trigger(Irq.MSI); device.dma.read(address, length); ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from harness.vfio_user.config import SIZE, BarKind, ConfigSpace
from harness.vfio_user.dma import DmaMemory
from harness.vfio_user.irq import Interrupts
from harness.vfio_user.session import IrqSet
from harness.vfio_user.wire import Region, RegionFlags

_READ_WRITE = RegionFlags.READ | RegionFlags.WRITE


class Bar(Protocol):
    """What answers accesses to a BAR; they lie inside it. A `RegisterFile` is one."""

    def read(self, offset: int, count: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...


class PciDevice:
    """See the module. `on_reset` runs after config space was reset. `config_access` answers for config space if given: a
    device that can vanish. `superseded` as `session.Device` has it: without one, each write reaches the device."""

    def __init__(
        self,
        config: ConfigSpace,
        bars: Mapping[int, tuple[BarKind, Bar]],
        irqs: Mapping[int, int],
        on_reset: Callable[[], None] = lambda: None,
        config_access: Bar | None = None,
        superseded: Callable[[int, int, int], bool] = lambda _index, _offset, _times: False,
    ) -> None:
        self.config = config
        self.dma = DmaMemory()
        self.irqs = Interrupts(irqs)
        config.interrupting, self.irqs.disabled = lambda: self.irqs.asserted, lambda: config.intx_disabled
        self._bars: dict[int, Bar] = {index: bar for index, (_, bar) in bars.items()}
        self._regions = {index: (kind.size, int(_READ_WRITE)) for index, (kind, _) in bars.items()}
        self._regions[Region.CONFIG] = (SIZE, int(_READ_WRITE))
        self._bars[Region.CONFIG] = config_access or config
        self._on_reset = on_reset
        self.superseded = superseded

    def region(self, index: int) -> tuple[int, int]:
        return self._regions.get(index, (0, 0))

    def irq(self, index: int) -> tuple[int, int]:
        return self.irqs.info(index)

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        return self._bars[index].read(offset, count)

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        self._bars[index].write(offset, data)
        if index == Region.CONFIG:
            self.irqs.tell_level()  # INTx may no longer be disabled

    def dma_map(self, flags: int, iova: int, size: int, fds: list[int], offset: int) -> None:
        self.dma.map(flags, iova, size, fds[0] if fds else None, offset)

    def dma_unmap(self, iova: int, size: int) -> None:
        self.dma.unmap(iova, size)

    def dma_unmap_all(self) -> None:
        self.dma.clear()

    def set_irqs(self, request: IrqSet, fds: list[int]) -> None:
        self.irqs.set(request, fds)

    def reset(self) -> None:
        self.irqs.level(False)
        self.config.reset()
        self._on_reset()

    def disconnected(self) -> None:
        """The client is gone: so are its memory and eventfds, and the device is as after power-on."""
        self.dma.clear()
        self.irqs.close()
        self.reset()
