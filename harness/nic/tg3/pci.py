"""The chip as a PCI device: configuration space, BAR 0, and the bus that it sees.

In: a loop, a MAC address, the wire. Out: a PciDevice for `harness.vfio_user.serve`. Rule: what is decided here is what lspci shows:
conventional PCI, power management, one MSI, one interrupt pin.

BAR 0 begins with a mirror of configuration space; offsets 0x68 to 0x9f of either are registers.
"""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.layout import bcm5787 as hw
from harness.nic.bus import Tell, Timers, Wire
from harness.nic.pcibus import PciBus
from harness.nic.tg3.chip import Tg3
from harness.vfio_user.config import CAP_PM, BarKind, Capability, ConfigSpace, Identity, msi
from harness.vfio_user.device import PciDevice
from harness.vfio_user.wire import Irq

_PM_CAPABILITY = Capability(
    CAP_PM, 0x48, b"\x02\xc0\x00\x20\x00\x00", b"\x00\x00\x03\x01\x00\x00"
)  # D3hot, PME from D3
_MSI_AT = 0xE8
_MIRROR = 0x100


class _Bar0:
    def __init__(self, chip: Tg3, config: ConfigSpace) -> None:
        self._chip, self._config = chip, config

    def read(self, offset: int, count: int) -> bytes:
        if offset >= _MIRROR or offset in hw.CONFIG_ALIAS or "gone" in self._chip.faults.on:
            return self._chip.read(offset, count)
        return self._config.read(offset, min(count, _MIRROR - offset)).ljust(count, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        if offset >= _MIRROR or offset in hw.CONFIG_ALIAS:
            self._chip.write(offset, data)


class _Config:
    """Configuration space of a device that can vanish."""

    def __init__(self, chip: Tg3, config: ConfigSpace) -> None:
        self._chip, self._config = chip, config

    def read(self, offset: int, count: int) -> bytes:
        return b"\xff" * count if "gone" in self._chip.faults.on else self._config.read(offset, count)

    def write(self, offset: int, data: bytes) -> None:
        if "gone" not in self._chip.faults.on:
            self._config.write(offset, data)


def make(
    loop: Timers, mac: bytes, wire: Wire, tell: Tell, count: Callable[[str, int], None], seed: int
) -> tuple[Tg3, PciDevice]:
    """A chip and the device that holds it."""
    bus = PciBus(loop, Irq.MSI)
    chip = Tg3(mac, bus, wire, tell, count, seed)
    kind = BarKind(0, hw.BAR_SIZE, wide=True)
    identity = Identity(hw.VENDOR, hw.DEVICE, 0x020000, 0x02, hw.VENDOR, hw.DEVICE)
    config = ConfigSpace(identity, (kind,), (_PM_CAPABILITY, msi(_MSI_AT)), window=(hw.CONFIG_ALIAS, chip))
    chip.master = lambda: config.bus_master
    irqs: dict[int, int] = {Irq.INTX: 1, Irq.MSI: 1}
    access = _Config(chip, config)
    bus.device = PciDevice(
        config,
        {0: (kind, _Bar0(chip, config))},
        irqs,
        chip.power_on_reset,
        access,
        lambda index, offset, times: index == 0 and chip.superseded(offset, times),
    )
    return chip, bus.device
