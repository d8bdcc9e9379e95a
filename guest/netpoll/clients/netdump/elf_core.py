"""The ELF file that a netdump server writes: crash(8) calls it "netdump" by its first PT_LOAD (page-aligned, p_align set).

In: notes, ranges of RAM, the machine. Out: the header that goes before the memory. The one rule: physical address P is at P plus the
header's size, so that pages can be written as they come, and what is no RAM is a hole that no segment claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

EM_386, EM_X86_64 = 3, 62
ET_CORE, PT_LOAD, PT_NOTE = 4, 1, 4
NT_PRSTATUS, NT_PRPSINFO, NT_TASKSTRUCT = 1, 3, 4
MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """What the two classes of ELF differ in. Of NT_PRSTATUS: its size, where the registers are, and their size."""

    bits: int
    ehdr: Struct
    phdr: Struct
    prstatus: int
    registers: int
    gregset: int
    prpsinfo: int


LAYOUTS = {
    EM_386: Layout(1, Struct("<16sHHIIIIIHHHHHH"), Struct("<IIIIIIII"), 144, 72, 68, 124),
    EM_X86_64: Layout(2, Struct("<16sHHIQQQIHHHHHH"), Struct("<IIQQQQQQ"), 336, 112, 216, 136),
}


def note(kind: int, data: bytes) -> bytes:
    """A note of "CORE", with the four bytes of name that netdump's have (kdump's have five)."""
    return Struct("<III4s").pack(4, len(data), kind, b"CORE") + data + bytes(-len(data) % 4)


def notes(machine: int, registers: bytes, task: int) -> bytes:
    """What a server knows by itself: the registers of the CPU that crashed, and its task."""
    layout = LAYOUTS[machine]
    status = bytearray(layout.prstatus)
    status[layout.registers : layout.registers + len(registers[: layout.gregset])] = registers[: layout.gregset]
    word = 4 * layout.bits
    pointer = (task & (1 << 8 * word) - 1).to_bytes(word, "little")
    return (
        note(NT_PRSTATUS, bytes(status))
        + note(NT_PRPSINFO, bytes(layout.prpsinfo))
        + note(NT_TASKSTRUCT, pointer + bytes(word))
    )


def header_size(page: int, notes_size: int) -> int:
    """Bytes kept free before the memory: whole pages, with room for a few thousand segments."""
    return -(-(notes_size + (1 << 18)) // page) * page


def header(
    machine: int, page: int, size: int, note_data: bytes, ranges: Sequence[tuple[int, int]], page_offset: int
) -> bytes:
    """At most `size` bytes; `ranges` are (first, one past the last) page numbers. What has no room is joined to the range before."""
    layout = LAYOUTS[machine]
    room = (size - layout.ehdr.size - len(note_data)) // layout.phdr.size - 1
    kept = list(ranges[:room])
    if len(ranges) > room:
        kept[-1] = kept[-1][0], ranges[-1][1]
    at = layout.ehdr.size + layout.phdr.size * (1 + len(kept))
    ident = b"\x7fELF" + bytes((layout.bits, 1, 1)) + bytes(9)
    fields = (layout.ehdr.size, 0, 0, layout.ehdr.size, layout.phdr.size, 1 + len(kept), 0, 0, 0)
    out = [
        layout.ehdr.pack(ident, ET_CORE, machine, 1, 0, *fields),
        _segment(layout, PT_NOTE, at, 0, 0, len(note_data), 0, 0),
    ]
    for first, last in kept:
        start, length = first * page, (last - first) * page
        vaddr = start + page_offset & ((1 << 32 * layout.bits) - 1)
        out.append(_segment(layout, PT_LOAD, size + start, vaddr, start, length, length, page))
    return b"".join(out) + note_data


def _segment(
    layout: Layout, kind: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int, align: int
) -> bytes:
    flags = 7 if kind == PT_LOAD else 0
    if layout.bits == 2:
        return layout.phdr.pack(kind, flags, offset, vaddr, paddr, filesz, memsz, align)
    return layout.phdr.pack(kind, offset, vaddr, paddr, filesz, memsz, flags, align)
