"""The chip as a PCI device: registers in BAR 0, the same through two I/O ports in BAR 1, an interrupt pin.

In: timers, a MAC address, the wire. Out: the model and a PciDevice. Rule: conventional PCI as the 82540EM in QEMU shows it: no MSI. The
ports are there for resets, for which Linux' e1000 insists on them (e1000_reset_hw()).
"""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.layout import e1000 as hw
from harness.nic.bus import Tell, Timers, Wire
from harness.nic.e1000.chip import E1000
from harness.nic.faulty import Faulty
from harness.nic.pcibus import PciBus
from harness.vfio_user.config import CAP_PM, BarKind, Capability, ConfigSpace, Identity
from harness.vfio_user.device import Bar, PciDevice
from harness.vfio_user.registers import RegisterFile
from harness.vfio_user.wire import Irq

_MEMORY, _PORTS = BarKind(0, hw.BAR_SIZE), BarKind(1, 64, io=True)
_PM = Capability(CAP_PM, 0xDC, b"\x02\x00\x00\x20\x00\x00", b"\x00\x00\x03\x01\x00\x00")
_IOADDR, _IODATA = 0, 4


class Ports:
    """13.2.2: IOADDR chooses a register, IODATA is it. Accesses are of four bytes."""

    def __init__(self, registers: RegisterFile) -> None:
        self._registers, self._address = registers, 0

    def _inside(self) -> bool:
        return self._address % 4 == 0 and self._address < hw.BAR_SIZE

    def read(self, offset: int, count: int) -> bytes:
        if offset == _IOADDR and count == 4:
            return self._address.to_bytes(4, "little")
        if offset == _IODATA and count == 4 and self._inside():
            return self._registers.read32(self._address).to_bytes(4, "little")
        return bytes(count)

    def write(self, offset: int, data: bytes) -> None:
        value = int.from_bytes(data[:4], "little")
        if offset == _IOADDR and len(data) == 4:
            self._address = value
        elif offset == _IODATA and len(data) == 4 and self._inside():
            self._registers.write32(self._address, value)


def make(
    timers: Timers, mac: bytes, wire: Wire, tell: Tell, count: Callable[[str, int], None], seed: int
) -> tuple[E1000, PciDevice]:
    """A chip and the device that holds it."""
    bus = PciBus(timers, Irq.MSI)  # of which it has none
    chip = E1000(mac, bus, wire, tell, count, seed)
    config = ConfigSpace(Identity(hw.VENDOR, hw.DEVICE, 0x020000, 0x03, hw.VENDOR, 0x001E), (_MEMORY, _PORTS), (_PM,))
    chip.master = lambda: config.bus_master
    parts: dict[int, tuple[BarKind, Bar]] = {
        0: (_MEMORY, Faulty(chip.registers, chip.faults, bus.sleep)),
        1: (_PORTS, Faulty(Ports(chip.registers), chip.faults, bus.sleep)),
    }
    access = Faulty(config, chip.faults, bus.sleep, slows=False)
    bus.device = PciDevice(config, parts, {Irq.INTX: 1}, chip.power_on_reset, access)
    return chip, bus.device
