"""PCI configuration space: 256 bytes, which of their bits can be written, and the list of capabilities.

In: identity, BARs and capabilities as data. Out: `read` and `write` as a bridge would do them. Rule: a bit that no mask names cannot
be changed by a guest. Offsets and names: PCI Local Bus Specification 3.0, chapter 6; linux/pci_regs.h. QEMU emulates BARs and MSI
enabling by itself from what it reads here once; the rest is asked of us each time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

SIZE = 256
COMMAND, STATUS, CAPABILITIES, INTERRUPT_PIN = 0x04, 0x06, 0x34, 0x3D
COMMAND_MASK = 0x0547  # io, memory, master, parity, serr, intx disable
STATUS_INTERRUPT, STATUS_CAPABILITIES = 0x08, 0x10
COMMAND_INTX_DISABLE = 0x0400
CAP_PM, CAP_MSI, CAP_VPD, CAP_EXPRESS, CAP_MSIX = 0x01, 0x05, 0x03, 0x10, 0x11


@dataclass(frozen=True)
class Identity:
    """Who the device says it is."""

    vendor: int
    device: int
    class_code: int  # 24 bits: base class, subclass, interface
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


@dataclass(frozen=True)
class Capability:
    """`body` follows the two bytes of the list's header; `mask` says which bits of it a guest can write."""

    id: int
    offset: int  # divisible by four, 0x40 or more
    body: bytes
    mask: bytes = b""


@dataclass(frozen=True)
class BarKind:
    """A base address register. `size`: a power of two, 16 bytes at least."""

    index: int
    size: int
    wide: bool = False  # 64 bits: takes the next register, too
    prefetchable: bool = False
    io: bool = False

    def word(self) -> int:
        return 1 if self.io else (4 if self.wide else 0) | (8 if self.prefetchable else 0)


class Shown(Protocol):
    """What answers for a part of configuration space instead of its bytes; a `RegisterFile` is one."""

    def read(self, offset: int, count: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...


def msi(offset: int, vectors: int = 1) -> Capability:
    """A 64-bit MSI capability without masking. `vectors`: a power of two up to 32."""
    control = 0x80 | (vectors.bit_length() - 1) << 1
    return Capability(CAP_MSI, offset, struct.pack("<HIIHH", control, 0, 0, 0, 0), b"\x71" + b"\0" + b"\xff" * 10)


def msix(offset: int, vectors: int, bar: int, table: int, pending: int) -> Capability:
    """MSI-X with table and pending bits in `bar`; QEMU keeps the table."""
    body = struct.pack("<HII", vectors - 1, table | bar, pending | bar)
    return Capability(CAP_MSIX, offset, body, b"\0\xc0" + b"\0" * 8)


class ConfigSpace:
    """The 256 bytes. `written(offset, length)` is called after a write. `window`: offsets, whole words, where registers
    show through, and the registers."""

    def __init__(
        self,
        identity: Identity,
        bars: tuple[BarKind, ...] = (),
        capabilities: tuple[Capability, ...] = (),
        interrupt_pin: int = 1,
        window: tuple[range, Shown] | None = None,
    ) -> None:
        self._window = window
        self.data = bytearray(SIZE)
        self.mask = bytearray(SIZE)
        self.written: Callable[[int, int], None] = lambda _offset, _length: None
        self.interrupting: Callable[[], bool] = lambda: (
            False
        )  # what STATUS shows: the device wants INTx, disabled or not
        self._bars = bars
        self._identify(identity, interrupt_pin)
        for bar in bars:
            self._add_bar(bar)
        self._add_capabilities(capabilities)
        self._reset = bytes(self.data)

    def _identify(self, who: Identity, pin: int) -> None:
        struct.pack_into("<HH", self.data, 0x00, who.vendor, who.device)
        struct.pack_into("<I", self.data, 0x08, who.class_code << 8 | who.revision)
        struct.pack_into("<HH", self.data, 0x2C, who.subsystem_vendor, who.subsystem)
        self.data[INTERRUPT_PIN] = pin
        struct.pack_into("<H", self.mask, COMMAND, COMMAND_MASK)
        self.mask[0x0C] = self.mask[0x0D] = self.mask[0x3C] = 0xFF  # cache line, latency, interrupt line

    def _add_bar(self, bar: BarKind) -> None:
        if bar.size < 16 or bar.size & (bar.size - 1):
            raise ValueError(f"BAR {bar.index}: {bar.size} is no power of two from 16 on")
        at = 0x10 + 4 * bar.index
        low = -bar.size & 0xFFFF_FFFF
        struct.pack_into("<I", self.data, at, bar.word())
        struct.pack_into("<I", self.mask, at, low & ~0xF)
        if bar.wide:
            struct.pack_into("<I", self.mask, at + 4, (-bar.size >> 32) & 0xFFFF_FFFF)

    def _add_capabilities(self, capabilities: tuple[Capability, ...]) -> None:
        link, taken = CAPABILITIES, set(range(0x40))
        for item in capabilities:
            end = item.offset + 2 + len(item.body)
            if item.offset % 4 or end > SIZE or not taken.isdisjoint(range(item.offset, end)):
                raise ValueError(f"capability {item.id:#x} does not fit at {item.offset:#x}")
            taken.update(range(item.offset, end))
            self.data[link] = item.offset
            self.data[item.offset] = item.id
            self.data[item.offset + 2 : end] = item.body
            self.mask[item.offset + 2 : item.offset + 2 + len(item.mask)] = item.mask
            link = item.offset + 1
        if capabilities:
            self.data[STATUS] |= STATUS_CAPABILITIES

    def read(self, offset: int, count: int) -> bytes:
        self.data[STATUS] = self.data[STATUS] & ~STATUS_INTERRUPT | (STATUS_INTERRUPT if self.interrupting() else 0)
        shown = self._shown(offset, count)
        return shown.read(offset, count) if shown else bytes(self.data[offset : offset + count])

    def _shown(self, offset: int, count: int) -> Shown | None:
        if self._window is None or offset not in self._window[0] or offset + count - 1 not in self._window[0]:
            return None
        return self._window[1]

    def write(self, offset: int, data: bytes) -> None:
        if (shown := self._shown(offset, len(data))) is not None:
            shown.write(offset, data)
            return
        for at, value in enumerate(data, offset):
            mask = self.mask[at]
            self.data[at] = self.data[at] & ~mask | value & mask
        self.written(offset, len(data))

    def word(self, offset: int) -> int:
        """The 32-bit word at `offset`."""
        return int(struct.unpack_from("<I", self.data, offset)[0])

    @property
    def bus_master(self) -> bool:
        """Whether the guest lets the device use DMA."""
        return bool(self.data[COMMAND] & 0x4)

    @property
    def intx_disabled(self) -> bool:
        """Whether the pin is to stay quiet, whatever the device wants (PCI 3.0, 6.2.2): how uio_pci_generic masks."""
        return bool(self.word(COMMAND) & COMMAND_INTX_DISABLE)

    def reset(self) -> None:
        """A function-level reset; BARs come back as they were configured from QEMU's copy."""
        self.data[:] = self._reset
