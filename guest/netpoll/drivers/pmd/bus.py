"""What a poll-mode driver needs of the bus its NIC is on: registers, memory that the NIC reaches, an interrupt.

Two buses exist: UIO and sysfs in a guest, and a device model in the same process (harness/nic). A driver cannot tell
them apart. The one rule: what a driver does to its device goes through here, so that giving the device back is in one place.
"""

from __future__ import annotations

from typing import Protocol

from guest.netpoll.direct import Store


class BusError(OSError):
    """The device cannot be had or driven: errno and a sentence that says what to do; the device is left as found."""


class Registers(Protocol):
    """One memory BAR. `offset` in bytes, aligned to the width; little-endian; each call is one access of the CPU."""

    @property
    def size(self) -> int: ...

    @property
    def words(self) -> Store:
        """Its 32-bit registers, by number: write32() without a call, for what is written for each frame."""

    @property
    def halves(self) -> Store:
        """The same for write16()."""

    def read8(self, offset: int) -> int: ...

    def read16(self, offset: int) -> int: ...

    def read32(self, offset: int) -> int: ...

    def write8(self, offset: int, value: int) -> None: ...

    def write16(self, offset: int, value: int) -> None: ...

    def write32(self, offset: int, value: int) -> None: ...


class DmaBuffer(Protocol):
    """Memory that CPU and NIC share: contiguous for the NIC, zeroed when allocated."""

    @property
    def view(self) -> memoryview:
        """Its bytes, writable. Cast it ("H", "I", "Q") to store a field of a descriptor in one access."""

    @property
    def address(self) -> int:
        """Where the NIC sees the first byte."""


class PciDevice(Protocol):
    """One PCI function, taken from whoever drove it and given back by `close`."""

    @property
    def vendor(self) -> int: ...

    @property
    def device(self) -> int: ...

    @property
    def name(self) -> str:
        """For messages: the PCI address, or the model's name."""

    def read_config(self, offset: int, length: int) -> bytes: ...

    def write_config(self, offset: int, data: bytes) -> None: ...

    def bar(self, index: int, least: int) -> Registers:
        """BAR `index`, of at least `least` bytes. Raises BusError(EINVAL) if it is smaller or no memory BAR."""

    def set_dma_mask(self, bits: int) -> None:
        """dma_set_mask(): what `dma_alloc` gives from now on ends below 1 << bits. 64 until told."""

    def dma_alloc(self, size: int, align: int = 64) -> DmaBuffer:
        """Raises BusError: ENOMEM, naming how to provide memory, when there is none left; ERANGE if the device cannot reach it."""

    def set_master(self, on: bool) -> None:
        """Bus mastering (PCI command bit 2): off, and no DMA of the device's happens any more."""

    def interrupt_fd(self) -> int | None:
        """Readable when the device has interrupted since the last `interrupt_enable`; None: this bus has no interrupt."""

    def interrupt_enable(self) -> None:
        """Take what `interrupt_fd` holds and let the next interrupt through (UIO masks INTx when it delivers one)."""

    def interrupt_disable(self) -> None:
        """Let none through, until `interrupt_enable`."""

    def interrupt_state(self) -> tuple[bool, int]:
        """Whether they are let through, and how many were told since the device was taken. For who waits for none: it may take what
        `interrupt_fd` holds."""

    def close(self) -> None:
        """Stop DMA, free the memory, give the device back to the driver it had. Twice is once."""
