"""The bus in a guest that has an IOMMU: a PCI device through VFIO, whose DMA reaches what was mapped for it and nothing else.

In: a PCI address. Out: a PciDevice (bus.py). The one rule: addresses are ours to choose, below what the device reaches and beside what the
group reserves; memory need be neither contiguous nor at any particular place (driver-api/vfio.rst, linux/vfio.h).

After a SIGKILL the kernel has the rest of the work: it unmaps, resets the device and clears bus mastering when the descriptors close.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guest.netpoll.drivers.pmd.bus import BusError, DmaBuffer, Registers
from guest.netpoll.drivers.pmd.claim import COMMAND, COMMAND_MASTER, COMMAND_MEMORY, Claim
from guest.netpoll.drivers.pmd.hugepages import Buffer
from guest.netpoll.drivers.pmd.sysfs import MappedRegisters

VFIO_PCI = "vfio-pci"
# _IO(';', 100 + n)
SET_IOMMU, GROUP_GET_STATUS, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD = 0x3B66, 0x3B67, 0x3B68, 0x3B6A
DEVICE_GET_REGION_INFO, DEVICE_SET_IRQS, IOMMU_MAP_DMA = 0x3B6C, 0x3B6E, 0x3B71
TYPE1_IOMMU, GROUP_VIABLE, REGION_MMAP, CONFIG_REGION = 1, 1, 4, 7
IRQ_DATA_NONE, IRQ_DATA_EVENTFD, IRQ_MASK, IRQ_UNMASK, IRQ_TRIGGER, INTX = 1, 4, 8, 0x10, 0x20, 0
DMA_READ_WRITE = 3

_REGION = struct.Struct("=IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
_IRQ_SET = struct.Struct("=IIIII")  # argsz, flags, index, start, count
_DMA_MAP = struct.Struct("=IIQQQ")  # argsz, flags, vaddr, iova, size
FIRST_IOVA = 16 << 20


class VfioDevice:
    """As bus.PciDevice."""

    def __init__(self, address: str) -> None:
        """Raises BusError, the device being left as found: ENODEV, EBUSY, and what the kernel says."""
        self.name = address
        self._claim = Claim(address, VFIO_PCI)
        self._fds: list[int] = []
        self._bars: list[MappedRegisters] = []
        self._closed = False
        try:
            self._device = self._open(self._claim.folder)
            self._config = self._region(CONFIG_REGION)[1]
        except BaseException:
            self._give_back()
            raise
        self.vendor, self.device = struct.unpack("<HH", self.read_config(0, 4))
        self._reach, self._next = 1 << 64, FIRST_IOVA
        self._event, self._told, self._let_through = -1, 0, False

    def _open(self, folder: Path) -> int:
        """Container, group, device. The group's driver must be VFIO for all of it."""
        self._group = (folder / "iommu_group").resolve()
        with _words(f"{self.name}: VFIO"):
            container = self._kept(os.open("/dev/vfio/vfio", os.O_RDWR | os.O_CLOEXEC))
            group = self._kept(os.open(f"/dev/vfio/{self._group.name}", os.O_RDWR | os.O_CLOEXEC))
            status = bytearray(struct.pack("=II", 8, 0))
            fcntl.ioctl(group, GROUP_GET_STATUS, status)
            if not struct.unpack("=II", status)[1] & GROUP_VIABLE:
                others = ", ".join(
                    sorted(path.name for path in (self._group / "devices").iterdir() if path.name != self.name)
                )
                raise BusError(
                    errno.EBUSY,
                    f"{self.name}: the kernel drives others of its IOMMU group: {others}; unbind them first",
                )
            fcntl.ioctl(group, GROUP_SET_CONTAINER, struct.pack("=i", container))
            fcntl.ioctl(container, SET_IOMMU, TYPE1_IOMMU)
            self._container = container
            name = bytearray(f"{self.name}\0".encode())  # ioctl() gives a copy of bytes back, and no descriptor
            return self._kept(fcntl.ioctl(group, GROUP_GET_DEVICE_FD, name))

    def _kept(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _region(self, index: int) -> tuple[int, int, int]:
        """Size, offset and flags."""
        info = bytearray(_REGION.pack(_REGION.size, 0, index, 0, 0, 0))
        with _words(f"{self.name}: region {index}"):
            fcntl.ioctl(self._device, DEVICE_GET_REGION_INFO, info)
        _, flags, _, _, size, offset = _REGION.unpack(info)
        return size, offset, flags

    def read_config(self, offset: int, length: int) -> bytes:
        return os.pread(self._device, length, self._config + offset)

    def write_config(self, offset: int, data: bytes) -> None:
        os.pwrite(self._device, data, self._config + offset)

    def _command(self, put: int, take: int = 0) -> None:
        command = int.from_bytes(self.read_config(COMMAND, 2), "little") & ~take | put
        self.write_config(COMMAND, command.to_bytes(2, "little"))

    def bar(self, index: int, least: int) -> Registers:
        size, offset, flags = self._region(index)
        if size < least:
            raise BusError(
                errno.EINVAL,
                f"{self.name}: BAR {index} has {size:#x} bytes, the driver needs {least:#x}: another device?",
            )
        if not flags & REGION_MMAP:
            raise BusError(
                errno.EINVAL, f"{self.name}: BAR {index} is in I/O ports, or cannot be mapped: another device?"
            )
        self._command(COMMAND_MEMORY)
        with _words(f"{self.name}: BAR {index}"):
            self._bars.append(MappedRegisters(mmap.mmap(self._device, size, offset=offset)))
        return self._bars[-1]

    def set_dma_mask(self, bits: int) -> None:
        self._reach = 1 << bits

    def dma_alloc(self, size: int, align: int = 64) -> DmaBuffer:
        """Pages of their own, mapped for the device at an address that nobody else has."""
        whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        iova = self._free_iova(whole, max(align, mmap.PAGESIZE))
        if iova + whole > self._reach:
            bits = self._reach.bit_length() - 1
            raise BusError(
                errno.ERANGE, f"{self.name}: {iova:#x} is beyond the {bits} bits of address that the device has"
            )
        memory = mmap.mmap(-1, whole, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        anchor = ctypes.c_char.from_buffer(memory)
        request = _DMA_MAP.pack(_DMA_MAP.size, DMA_READ_WRITE, ctypes.addressof(anchor), iova, whole)
        del anchor
        with _words(f"{self.name}: {whole} bytes for DMA (`ulimit -l` bounds them)", errno.ENOMEM):
            fcntl.ioctl(self._container, IOMMU_MAP_DMA, request)
        self._next = iova + whole
        return Buffer(memoryview(memory)[:size], iova)

    def _free_iova(self, size: int, align: int) -> int:
        """Beside what the group reserves, for MSI and others (ABI/testing/sysfs-kernel-iommu_groups)."""
        iova = -(-self._next // align) * align
        for line in (self._group / "reserved_regions").read_text().splitlines():
            first, last = (int(word, 16) for word in line.split()[:2])
            if iova <= last and first < iova + size:
                iova = -(-(last + 1) // align) * align
        return iova

    def set_master(self, on: bool) -> None:
        self._command(COMMAND_MASTER if on else 0, 0 if on else COMMAND_MASTER)

    def interrupt_fd(self) -> int | None:
        if self._event < 0:
            self._event = self._kept(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
            self._irqs(IRQ_DATA_EVENTFD | IRQ_TRIGGER, struct.pack("=i", self._event))
        return self._event

    def interrupt_enable(self) -> None:
        """INTx is masked when it was told (vfio_intx_handler())."""
        self._take_told()
        self._let_through = True
        self._irqs(IRQ_DATA_NONE | IRQ_UNMASK)

    def interrupt_disable(self) -> None:
        self._let_through = False
        self._irqs(IRQ_DATA_NONE | IRQ_MASK)

    def interrupt_state(self) -> tuple[bool, int]:
        """What we have asked of VFIO, which shows no command register of the hardware's; and what its eventfd has told."""
        self._take_told()
        return self._let_through, self._told

    def _take_told(self) -> None:
        with suppress(BlockingIOError):
            self._told += os.eventfd_read(self.interrupt_fd() or -1)

    def _irqs(self, flags: int, data: bytes = b"") -> None:
        with _words(f"{self.name}: its interrupt"):
            fcntl.ioctl(
                self._device, DEVICE_SET_IRQS, _IRQ_SET.pack(_IRQ_SET.size + len(data), flags, INTX, 0, 1) + data
            )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.set_master(False)
        self._give_back()

    def _give_back(self) -> None:
        """Mappings and descriptors first: vfio-pci lets go of a device only when nobody has it open (vfio_unregister_group_dev())."""
        while self._bars:
            self._bars.pop().unmap()
        while self._fds:
            os.close(self._fds.pop())
        self._claim.release()


@contextmanager
def _words(what: str, code: int = 0) -> Iterator[None]:
    """An OSError of the kernel's becomes a BusError that says at what."""
    try:
        yield
    except BusError:
        raise
    except OSError as error:
        raise BusError(code or error.errno or errno.EIO, f"{what}: {error.strerror}") from error
