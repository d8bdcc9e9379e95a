"""The bus in a guest: a PCI device through UIO and sysfs; `take` chooses VFIO where an IOMMU translates its DMA.

In: a PCI address. Out: a PciDevice (bus.py). The one rule: whatever way this process ends, the device does no DMA into memory that
is somebody else's, and can be given back: `close`, at exit and on SIGTERM by itself; after a SIGKILL the kernel clears bus
mastering when it closes /dev/uioN (uio_pci_generic.c: release()), and claim.py has on file what is left to do.

Interrupts: uio_pci_generic masks INTx in the command register when it counts one; reading the count and unmasking is ours
(driver-api/uio-howto.rst, "Things to know about uio_pci_generic").
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

from guest.netpoll.drivers.pmd.bus import BusError, DmaBuffer, PciDevice, Registers
from guest.netpoll.drivers.pmd.claim import PCI, Claim
from guest.netpoll.drivers.pmd.hugepages import HugePages
from guest.netpoll.drivers.pmd.sysfs import SysfsFunction
from guest.netpoll.drivers.pmd.vfio import VfioDevice

UIO = "uio_pci_generic"

_open: list[PciDevice] = []


def take(address: str) -> PciDevice:
    """The PCI device at `address`, from whoever drove it. Raises BusError, the device being left as found."""
    translated = (PCI / "devices" / address / "iommu_group").exists()
    device: PciDevice = VfioDevice(address) if translated else UioDevice(address)
    _close_at_the_end(device)
    return device


class UioDevice:
    """As bus.PciDevice."""

    def __init__(self, address: str) -> None:
        """Raises BusError, the device being left as found: ENODEV, EBUSY, EPERM, EXDEV."""
        if (PCI / "devices" / address / "iommu_group").exists():
            raise BusError(
                errno.EXDEV,
                f"{address}: an IOMMU translates its DMA, which UIO cannot tell it of: use vfio-pci",
            )
        self._claim = Claim(address, UIO)
        self._memory = HugePages()
        self._uio = -1
        self._closed = False
        try:
            self._function = SysfsFunction(self._claim.folder)
            self._uio = self._open_uio()
            self._has_pin = int((self._claim.folder / "irq").read_text()) != 0
        except BaseException:
            self._claim.release()
            raise
        self.vendor, self.device, self.name = self._function.vendor, self._function.device, address
        self.read_config, self.write_config = self._function.read_config, self._function.write_config
        self.set_master = self._function.set_master

    def _open_uio(self) -> int:
        nodes = sorted((self._claim.folder / "uio").glob("uio*"))
        if not nodes:
            raise BusError(errno.ENODEV, f"{self._claim.record.address}: {UIO} made no /dev/uioN")
        self._node = nodes[0]
        device = f"/dev/{self._node.name}"
        try:
            return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BusError(error.errno or errno.EIO, f"{device}: {error.strerror}") from error

    def bar(self, index: int, least: int) -> Registers:
        return self._function.bar(index, least)

    def set_dma_mask(self, bits: int) -> None:
        self._memory.bits = bits

    def dma_alloc(self, size: int, align: int = 64) -> DmaBuffer:
        before = self._memory.added
        try:
            return self._memory.alloc(size, align)
        finally:
            if self._memory.added != before:
                self._claim.note_hugepages(self._memory.added)

    def interrupt_fd(self) -> int | None:
        return self._uio if self._has_pin else None

    def interrupt_enable(self) -> None:
        if not self._has_pin:
            return
        with suppress(BlockingIOError):
            os.read(self._uio, 4)
        self._function.intx(True)

    def interrupt_disable(self) -> None:
        self._function.intx(False)

    def interrupt_state(self) -> tuple[bool, int]:
        """As the command register reads, and as the kernel has counted (uio_info's event counter)."""
        return self._function.intx_on(), int((self._node / "event").read_text())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._function.set_master(False)
        self._function.intx(False)
        os.close(self._uio)
        self._function.close()
        self._memory.close()
        self._claim.release()


def _close_at_the_end(device: PciDevice) -> None:
    """Have `device` given back at exit, and on a SIGTERM that nobody else handles."""
    if not _open:
        atexit.register(_close_all)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminated)
    _open.append(device)


def _close_all() -> None:
    """Those that are closed already take no notice."""
    for device in _open:
        device.close()


def _terminated(number: int, _frame: FrameType | None) -> None:
    """Give back, then end as without a handler."""
    _close_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def devices() -> list[Path]:
    """The folders of every PCI device."""
    return sorted((PCI / "devices").iterdir())
