"""The crashed machine's memory by page number, out of its vmcore.

In: an ELF vmcore (clients/vmcore). Out: pages, which of them are RAM, notes and registers. The one rule: a page of which anything is
RAM is RAM; what of it is not in the dump is zero.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from guest.netpoll.clients.vmcore.core import Vmcore
from guest.netpoll.clients.vmcore.elf import Note, read_headers
from guest.netpoll.clients.vmcore.errors import NotInDump
from guest.netpoll.clients.vmcore.notes import NT_PRSTATUS, PRSTATUS_SIZE
from guest.netpoll.clients.vmcore.ranges import Range, Ranges
from guest.netpoll.clients.vmcore.source import Source

PAGE = 4096
AHEAD = 64  # pages read at once
GREGSET = slice(112, 328)  # of NT_PRSTATUS: elf_gregset_t of x86-64
PAGE_OFFSETS = range(0xFF11000000000000, 0xFFFFFE0000000000)  # where x86-64 has its direct map, five levels or four


class Memory(Protocol):
    """What a netdump client gives out. `count`: one more than the last page's number; `ram`: pages of RAM."""

    count: int
    ram: int
    page_offset: int  # virtual address of physical 0
    registers: bytes  # elf_gregset_t
    notes: bytes  # the PT_NOTE segment

    def read(self, number: int) -> bytes | None:
        """The page, None if it is no RAM."""

    def next_ram(self, number: int) -> int:
        """The next page after it that is RAM, 0 for none."""


class VmcoreMemory:
    """A Memory over a vmcore. Raises NotReadable."""

    def __init__(self, source: Source) -> None:
        headers = read_headers(source)
        self._vmcore = Vmcore(source)
        spans = [(first // PAGE, -(-last // PAGE)) for first, last in self._vmcore.physical_ranges()]
        self._ranges = Ranges((Range(first, last, first) for first, last in spans), 1 << 64)
        self.count = max((last for _, last in spans), default=0)
        self.ram = sum(each.end - each.start for each in self._ranges)
        bases = [load.vaddr - load.paddr for load in headers.loads if load.vaddr - load.paddr in PAGE_OFFSETS]
        self.page_offset = bases[0] if bases else 0
        self.notes = b"".join(map(emit_note, headers.notes))
        self.registers = next(
            (
                note.data[GREGSET]
                for note in headers.notes
                if note.kind == NT_PRSTATUS and len(note.data) >= PRSTATUS_SIZE
            ),
            bytes(GREGSET.stop - GREGSET.start),
        )
        self._first = 0  # of the pages held
        self._held: list[bytes] = []

    def read(self, number: int) -> bytes | None:
        """The page, None if it is no RAM."""
        if 0 <= number - self._first < len(self._held):
            return self._held[number - self._first]
        found = self._ranges.find(number)
        if found is None:
            return None
        count = min(found[1], AHEAD)
        self._first, self._held = number, self._pages(number, count)
        return self._held[0]

    def _pages(self, number: int, count: int) -> list[bytes]:
        try:
            block = self._vmcore.read_physical(number * PAGE, count * PAGE)
        except NotInDump:
            return [self._torn(number)]
        return [block[at : at + PAGE] for at in range(0, len(block), PAGE)]

    def _torn(self, number: int) -> bytes:
        """A page at the edge of RAM, or one that cannot be read."""
        page = bytearray(PAGE)
        start = number * PAGE
        for first, last in self._vmcore.physical_ranges():
            low, high = max(first, start), min(last, start + PAGE)
            if low < high:
                with contextlib.suppress(NotInDump):
                    page[low - start : high - start] = self._vmcore.read_physical(low, high - low)
        return bytes(page)

    def next_ram(self, number: int) -> int:
        """The next page after it that is RAM, 0 for none."""
        return min((max(each.start, number + 1) for each in self._ranges if each.end > number + 1), default=0)


def emit_note(note: Note) -> bytes:
    """An entry of a PT_NOTE segment, padded to four bytes."""
    owner = note.owner.encode() + b"\0"
    sizes = len(owner).to_bytes(4, "little") + len(note.data).to_bytes(4, "little") + note.kind.to_bytes(4, "little")
    return sizes + owner + bytes(-len(owner) % 4) + note.data + bytes(-len(note.data) % 4)
