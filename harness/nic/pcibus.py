"""harness.nic.bus.Bus over a vfio_user.PciDevice: what a model sees, whether QEMU or a driver in this process has the device.

In: timers, and which kind of message-signalled interrupt the model has. Out: memory, interrupts, time. Rule: the device is
given once the model is made; until then nothing is asserted.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.nic.bus import Timers
from harness.vfio_user.device import PciDevice
from harness.vfio_user.dma import DmaMemory


class PciBus:
    """`kind`: Irq.MSI or Irq.MSIX."""

    def __init__(self, timers: Timers, kind: int) -> None:
        self._timers, self._kind = timers, kind
        self.device: PciDevice

    @property
    def memory(self) -> DmaMemory:
        return self.device.dma

    def msi(self, vector: int = 0) -> bool:
        return self.device.irqs.trigger(self._kind, vector)

    def intx(self, asserted: bool) -> None:
        if hasattr(self, "device"):  # not while the model is being made
            self.device.irqs.level(asserted)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.call_later(seconds, callback)

    def sleep(self, seconds: float) -> None:
        self._timers.sleep(seconds)
