"""Memory that a NIC without an IOMMU reaches: 2 MiB hugepages, each contiguous and at a physical address that does not change.

In: sizes. Out: buffers with the address that the NIC is told. The one rule: pages come from the kernel's pool of hugepages, which is
made larger where it is too small and as large as before in the end - not before the NIC's bus mastering is off.

A page of 4 KiB would not do: mlock() keeps it in memory, but not where it is (admin-guide/mm/pagemap.rst, unevictable-lru.rst).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from guest.netpoll.drivers.pmd.bus import BusError

SIZE = 2 << 20
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
PAGEMAP = "/proc/self/pagemap"
MAP_HUGETLB, MAP_HUGE_2MB = 0x40000, 21 << 26  # asm-generic/mman.h, asm-generic/hugetlb_encode.h
PAGEMAP_PRESENT, PAGEMAP_PFN = 1 << 63, (1 << 55) - 1
SEARCH = 8  # pages looked at for one that the NIC reaches


@dataclass(frozen=True, slots=True)
class Buffer:
    """A DmaBuffer."""

    view: memoryview
    address: int


@dataclass(slots=True)
class _Page:
    memory: mmap.mmap
    address: int
    used: int = 0


class HugePages:
    """Buffers out of hugepages; nothing is freed before `close`."""

    def __init__(self) -> None:
        self.added = 0  # to the kernel's pool
        self.bits = 64
        self._pages: list[_Page] = []

    def alloc(self, size: int, align: int) -> Buffer:
        """`size` bytes, zeroed, at a multiple of `align`. Raises BusError: ENOMEM, ERANGE, EPERM."""
        if size > SIZE:
            raise BusError(
                errno.ENOMEM, f"{size} bytes at a stretch are more than a hugepage of {SIZE}: make the ring smaller"
            )
        for page in self._pages:
            if self._reached(page) and (buffer := _cut(page, size, align)) is not None:
                return buffer
        buffer = _cut(self._another(), size, align)
        assert buffer is not None
        return buffer

    def _reached(self, page: _Page) -> bool:
        return page.address + SIZE <= 1 << self.bits

    def _another(self) -> _Page:
        """A page that the NIC reaches. Those that it does not are kept meanwhile, or they would come again."""
        beyond: list[_Page] = []
        while len(beyond) < SEARCH:
            page = self._page()
            if self._reached(page):
                self._pages.append(page)
                return page
            beyond.append(page)
        raise BusError(
            errno.ERANGE,
            f"the hugepages are at {beyond[0].address:#x} and above, beyond the {self.bits} bits of address that the device has: "
            f"reserve some at boot, hugepages=8 on the kernel's command line",
        )

    def _page(self) -> _Page:
        if _pool("free_hugepages") == 0:
            self._enlarge()
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE | MAP_HUGETLB | MAP_HUGE_2MB
        try:
            memory = mmap.mmap(-1, SIZE, flags=flags)
        except OSError as error:
            raise _none(f"mmap: {error.strerror}") from error
        return _Page(memory, _physical(memory))

    def _enlarge(self) -> None:
        """One page more in the pool; the kernel gives as many as it can find, and no error."""
        before = _pool("nr_hugepages")
        try:
            (POOL / "nr_hugepages").write_text(str(before + 1))
        except OSError as error:
            raise _none(f"the pool cannot be made larger: {error.strerror}") from error
        if _pool("nr_hugepages") <= before:
            raise _none(f"the kernel finds no 2 MiB at a stretch for more than the {before} there are")
        self.added += 1

    def close(self) -> None:
        """Give all back. A page whose views are still held goes back when they do."""
        for page in self._pages:
            with contextlib.suppress(BufferError):
                page.memory.close()
        self._pages.clear()
        added, self.added = self.added, 0
        shrink(added)


def shrink(pages: int) -> None:
    """Make the kernel's pool smaller by so many pages; those in use go when they are freed."""
    if pages:
        with contextlib.suppress(OSError):
            (POOL / "nr_hugepages").write_text(str(max(0, _pool("nr_hugepages") - pages)))


def _cut(page: _Page, size: int, align: int) -> Buffer | None:
    start = -(-page.used // align) * align
    if start + size > SIZE:
        return None
    page.used = start + size
    view = memoryview(page.memory)[start : start + size]
    return Buffer(view, page.address + start)


def _pool(name: str) -> int:
    try:
        return int((POOL / name).read_text())
    except OSError as error:
        raise _none("this kernel has none (CONFIG_HUGETLBFS)") from error


def _none(why: str) -> BusError:
    return BusError(
        errno.ENOMEM, f"no hugepages for the rings: {why}; free memory, or `echo 4 > {POOL}/nr_hugepages` after boot"
    )


def _physical(memory: mmap.mmap) -> int:
    """admin-guide/mm/pagemap.rst. Raises BusError without CAP_SYS_ADMIN, which the kernel answers with frame 0."""
    memory[0] = 0  # there, whatever MAP_POPULATE did
    anchor = ctypes.c_char.from_buffer(memory)
    page = ctypes.addressof(anchor) // mmap.PAGESIZE
    del anchor
    with open(PAGEMAP, "rb") as pagemap:
        (entry,) = struct.unpack("=Q", os.pread(pagemap.fileno(), 8, page * 8))
    if not (entry & PAGEMAP_PRESENT and entry & PAGEMAP_PFN):
        raise BusError(errno.EPERM, f"{PAGEMAP} does not tell physical addresses: run as root (CAP_SYS_ADMIN)")
    return int(entry & PAGEMAP_PFN) * mmap.PAGESIZE
