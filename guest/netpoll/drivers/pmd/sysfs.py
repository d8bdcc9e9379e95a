"""A PCI function as sysfs shows it: configuration space, BARs, ids. What UIO and VFIO devices do not need to do themselves.

In: a PCI address. Out: numbers and mapped registers. The one rule: a register is read and written by one access of its own width,
which memoryview's items of a native format are, and slices or struct's little-endian formats are not.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from guest.netpoll.drivers.pmd.bus import BusError
from guest.netpoll.drivers.pmd.claim import COMMAND, COMMAND_INTX_DISABLE, COMMAND_MASTER, COMMAND_MEMORY

IORESOURCE_MEM = 0x200  # linux/ioport.h


class MappedRegisters:
    """One memory BAR, mapped. As bus.Registers."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self.size = len(mapped)
        self._mapped = mapped
        view = memoryview(mapped)
        self._octets, self.halves, self.words = view, view.cast("H"), view.cast("I")

    def unmap(self) -> None:
        """Nothing of the device is held any more; an access after this raises ValueError."""
        for view in (self.words, self.halves, self._octets):
            view.release()
        self._mapped.close()

    def read8(self, offset: int) -> int:
        return self._octets[offset]

    def read16(self, offset: int) -> int:
        return self.halves[offset >> 1]

    def read32(self, offset: int) -> int:
        return self.words[offset >> 2]

    def write8(self, offset: int, value: int) -> None:
        self._octets[offset] = value

    def write16(self, offset: int, value: int) -> None:
        self.halves[offset >> 1] = value

    def write32(self, offset: int, value: int) -> None:
        self.words[offset >> 2] = value


class SysfsFunction:
    """Config space and BARs of the function at `folder`, which is bound to nobody who minds. `close` unmaps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.vendor = int((folder / "vendor").read_text(), 16)
        self.device = int((folder / "device").read_text(), 16)
        self._config = os.open(folder / "config", os.O_RDWR | os.O_CLOEXEC)
        self._bars: list[mmap.mmap] = []
        self._command = 0  # as last written

    def read_config(self, offset: int, length: int) -> bytes:
        return os.pread(self._config, length, offset)

    def write_config(self, offset: int, data: bytes) -> None:
        os.pwrite(self._config, data, offset)

    def command(self, put: int = 0, take: int = 0) -> None:
        """Set and clear bits of the PCI command register."""
        self._command = int.from_bytes(self.read_config(COMMAND, 2), "little") & ~take | put
        self._write_command()

    def _write_command(self) -> None:
        self.write_config(COMMAND, self._command.to_bytes(2, "little"))

    def set_master(self, on: bool) -> None:
        self.command(put=COMMAND_MASTER if on else 0, take=0 if on else COMMAND_MASTER)

    def intx(self, on: bool) -> None:
        """Let the interrupt pin through, or not. Not read before, once for each interrupt: nobody but us, and uio_pci_generic this bit, writes the register."""
        if not self._command:
            self.command()
        self._command = self._command & ~COMMAND_INTX_DISABLE | (0 if on else COMMAND_INTX_DISABLE)
        self._write_command()

    def intx_on(self) -> bool:
        """As the command register reads."""
        return not int.from_bytes(self.read_config(COMMAND, 2), "little") & COMMAND_INTX_DISABLE

    def bar(self, index: int, least: int) -> MappedRegisters:
        size = self.bar_size(index)
        if size < least:
            raise BusError(
                errno.EINVAL,
                f"{self.name}: BAR {index} has {size:#x} bytes, the driver needs {least:#x}: another device?",
            )
        self.command(put=COMMAND_MEMORY)
        try:
            fd = os.open(self.folder / f"resource{index}", os.O_RDWR | os.O_SYNC | os.O_CLOEXEC)
            try:
                mapped = mmap.mmap(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            why = f"{self.name}: BAR {index} cannot be mapped: {error.strerror}; kernel lockdown forbids it, root is needed"
            raise BusError(error.errno or errno.EIO, why) from error
        self._bars.append(mapped)
        return MappedRegisters(mapped)

    def bar_size(self, index: int) -> int:
        """Bytes of a memory BAR. Raises BusError(EINVAL) if it is none."""
        lines = (self.folder / "resource").read_text().splitlines()
        start, end, flags = (int(word, 16) for word in lines[index].split())
        if not flags & IORESOURCE_MEM:
            what = "is in I/O ports" if flags else "is not there"
            raise BusError(
                errno.EINVAL, f"{self.name}: BAR {index} {what}, the driver needs it in memory: another device?"
            )
        return end - start + 1

    def close(self) -> None:
        config, self._config = self._config, -1
        if config >= 0:
            os.close(config)
        self._bars.clear()  # unmapped when the last view of it is gone
