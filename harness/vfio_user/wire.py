"""Messages of vfio-user, version 0.0: numbers and layouts, nothing else.

Source: the vfio-user specification (libvfio-user docs/vfio-user.rst; QEMU docs/interop/vfio-user.rst) and linux/vfio.h, whose flags
and structures it reuses. All fields are in the host's byte order, which is little-endian wherever this runs.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

HEADER = struct.Struct("<HHIII")  # message id, command, size with this header, flags, error
MAX_TRANSFER = 1 << 20  # bytes of data in one region access that we accept
MAX_MESSAGE = HEADER.size + 16 + MAX_TRANSFER
MAX_FDS = 8  # descriptors in one message
MAX_DMA_MAPS = 65535
PAGE = 4096


class Command(IntEnum):
    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    DIRTY_PAGES = 14


class Flags(IntFlag):
    """Of a message; the low four bits are its type."""

    REPLY = 0x1
    TYPE = 0xF
    NO_REPLY = 0x10
    ERROR = 0x20


VERSION = struct.Struct("<HH")  # major, minor; then JSON and a NUL
DMA_MAP = struct.Struct("<IIQQQ")  # argsz, flags, offset into the descriptor, iova, size
DMA_UNMAP = struct.Struct("<IIQQ")  # argsz, flags, iova, size
DEVICE_INFO = struct.Struct("<IIII")  # argsz, flags, regions, kinds of interrupt
REGION_INFO = struct.Struct("<IIIIQQ")  # argsz, flags, index, capability offset, size, offset
IRQ_INFO = struct.Struct("<IIII")  # argsz, flags, index, count
IRQ_SET = struct.Struct("<IIIII")  # argsz, flags, index, start, count; then data
REGION_ACCESS = struct.Struct("<QII")  # offset, region, count; then data


class DeviceFlags(IntFlag):
    RESET = 1
    PCI = 2


class RegionFlags(IntFlag):
    READ = 1
    WRITE = 2


class IrqFlags(IntFlag):
    EVENTFD = 1
    MASKABLE = 2
    AUTOMASKED = 4
    NORESIZE = 8


class SetIrqs(IntFlag):
    """Exactly one of the first three and one of the last three."""

    DATA_NONE = 0x01
    DATA_BOOL = 0x02
    DATA_EVENTFD = 0x04
    ACTION_MASK = 0x08
    ACTION_UNMASK = 0x10
    ACTION_TRIGGER = 0x20

    @property
    def data(self) -> SetIrqs:
        return self & 0x07

    @property
    def action(self) -> SetIrqs:
        return self & 0x38


class DmaFlags(IntFlag):
    READ = 1
    WRITE = 2


UNMAP_ALL = 2  # flag of DMA_UNMAP: iova and size are 0


class Region(IntEnum):
    """Indices of a PCI device's regions (VFIO_PCI_*_REGION_INDEX)."""

    BAR0 = 0
    BAR1 = 1
    BAR2 = 2
    BAR3 = 3
    BAR4 = 4
    BAR5 = 5
    ROM = 6
    CONFIG = 7
    VGA = 8


class Irq(IntEnum):
    """Kinds of interrupt of a PCI device (VFIO_PCI_*_IRQ_INDEX)."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4
