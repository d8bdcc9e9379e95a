"""A vmcore: registers of each CPU, physical memory, and the kernel's virtual memory.

In: a Source. Out: `Vmcore`. The rule it keeps: bytes come out as the dump has them or not at all (NotInDump); what a filter
excluded is never shown as zeros.

Virtual addresses go through the kernel's own page tables (swapper_pg_dir: VMCOREINFO's SYMBOL(swapper_pg_dir), phys_base),
which map direct map, text, modules and vmalloc alike; a p_vaddr of the headers serves where those cannot be walked.
User memory is not translated: no note says which page tables were a CPU's own, but in QEMU's dumps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from guest.netpoll.clients.vmcore import notes
from guest.netpoll.clients.vmcore.elf import Headers, Segment, read_headers
from guest.netpoll.clients.vmcore.errors import NotInDump, VmcoreError
from guest.netpoll.clients.vmcore.paging import ADDRESS, PageTables, translate
from guest.netpoll.clients.vmcore.ranges import Range, Ranges
from guest.netpoll.clients.vmcore.source import FileSource, Source

START_KERNEL_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map (asm/page_64_types.h)
CR4_LA57 = 1 << 12
MAX_READ = 64 << 20  # bytes at once
_ADDRESSES = 1 << 64


class Vmcore:
    """Parsed headers over an open source; memory is read when it is asked for. Raises NotReadable.

    `missing` is how many bytes of memory the headers promise that are not in the file: a dump that was cut off.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        headers = read_headers(source)
        self.registers, self.bad_registers = notes.registers(headers.notes)
        self.vmcoreinfo = notes.vmcoreinfo(headers.notes)
        self.page_tables = _page_tables(headers, self.vmcoreinfo)
        size = source.size
        self._physical = Ranges((Range(s.paddr, s.paddr + s.filesz, s.offset) for s in headers.loads), size)
        self._virtual = Ranges(_by_vaddr(headers.loads), size)
        self.missing = sum(max(0, min(s.filesz, s.offset + s.filesz - size)) for s in headers.loads)

    def physical_ranges(self) -> Iterator[tuple[int, int]]:
        """(first, one past the last) physical address of each run of bytes that the file holds, ascending."""
        for each in self._physical:
            yield each.start, each.end

    def read_physical(self, address: int, length: int) -> bytes:
        """`length` bytes of physical memory. Raises NotInDump if any of them is not there."""
        return self._read(address, length, self._at_physical, "physical")

    def read_virtual(self, address: int, length: int) -> bytes:
        """`length` bytes of kernel memory, across pages that need not be neighbours. Raises NotInDump."""
        return self._read(address, length, self._at_virtual, "virtual")

    def translate(self, address: int) -> int:
        """The physical address of a kernel address, by the page tables. Raises NotInDump."""
        if self.page_tables is None:
            raise NotInDump("no page tables: VMCOREINFO does not say where they are")
        return translate(self.page_tables, address, self.read_physical)[0]

    def _read(self, address: int, length: int, find: Callable[[int], tuple[int, int]], kind: str) -> bytes:
        if not 0 <= length <= MAX_READ or not 0 <= address <= _ADDRESSES - length:
            raise NotInDump(f"{length} bytes at {kind} {address:#x}: at most {MAX_READ}, and below 2^64")
        parts: list[bytes] = []
        while length:
            offset, run = find(address)
            part = self._source.read_at(offset, min(run, length))
            if not part:
                raise NotInDump(f"{kind} {address:#x}: cannot be read, at {offset:#x} of the file")
            parts.append(part)
            address, length = address + len(part), length - len(part)
        return b"".join(parts)

    def _at_physical(self, address: int) -> tuple[int, int]:
        found = self._physical.find(address)
        if found is None:
            raise NotInDump(f"physical {address:#x} is not in the dump: excluded from it, or no RAM")
        return found

    def _at_virtual(self, address: int) -> tuple[int, int]:
        if self.page_tables is None:
            return self._at_vaddr(address)
        try:
            physical, run = translate(self.page_tables, address, self.read_physical)
        except NotInDump as error:
            with contextlib.suppress(NotInDump):
                return self._at_vaddr(address)
            raise error from None
        offset, held = self._at_physical(physical)
        return offset, min(run, held)

    def _at_vaddr(self, address: int) -> tuple[int, int]:
        found = self._virtual.find(address)
        if found is None:
            raise NotInDump(f"virtual {address:#x} is in no segment of the dump")
        return found


class VmcoreFile(Vmcore):
    """A vmcore by its path; a context manager. Raises OSError, NotReadable."""

    def __init__(self, path: Path) -> None:
        self._file = FileSource(path)
        try:
            super().__init__(self._file)
        except VmcoreError as error:
            self._file.close()
            raise type(error)(f"{path}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _by_vaddr(loads: tuple[Segment, ...]) -> Iterator[Range]:
    """Segments that say where they are mapped: QEMU writes 0, kexec-tools -1, where they do not know."""
    for load in loads:
        if load.vaddr and load.vaddr + load.memsz <= _ADDRESSES:
            yield Range(load.vaddr, load.vaddr + load.filesz, load.offset)


def _page_tables(headers: Headers, info: dict[str, str]) -> PageTables | None:
    """By VMCOREINFO; by CR3 of QEMU's note, if there is no VMCOREINFO; else None."""
    symbol = number(info, "SYMBOL(swapper_pg_dir)", 16) or number(info, "SYMBOL(init_top_pgt)", 16)
    base = number(info, "NUMBER(phys_base)")
    if symbol is not None and base is not None and symbol >= START_KERNEL_MAP:
        levels = 5 if number(info, "NUMBER(pgtable_l5_enabled)") else 4
        return PageTables((symbol - START_KERNEL_MAP + base) & ADDRESS, levels, number(info, "NUMBER(sme_mask)") or 0)
    control = notes.control(headers.notes)
    if control is None or not control.cr3 & ADDRESS:
        return None
    return PageTables(control.cr3 & ADDRESS, 5 if control.cr4 & CR4_LA57 else 4)


def number(info: dict[str, str], key: str, base: int = 10) -> int | None:
    """A number of VMCOREINFO: SYMBOL() and KERNELOFFSET are hexadecimal, NUMBER() decimal. None if it is none."""
    try:
        return int(info[key], base)
    except (KeyError, ValueError):
        return None
