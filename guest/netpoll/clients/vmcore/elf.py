"""The headers of a 64-bit little-endian ELF core file: segments and notes (System V ABI, chapters 4 and 5; core(5)).

In: a Source. Out: `Headers`. The rule it keeps: no number is believed before it was held against the file's size, and what
is read at once is bounded, whatever the headers say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from guest.netpoll.clients.vmcore.errors import NotReadable
from guest.netpoll.clients.vmcore.source import Source

EHDR = Struct("<4sBBBBB7xHHIQQQIHHHHHH")  # ident: magic, class, data, version, osabi, abiversion
PHDR = Struct("<IIQQQQQQ")
SHDR = Struct("<IIQQQQIIQQ")
NHDR = Struct("<III")
ELFCLASS64, ELFDATA2LSB, ET_CORE, EM_X86_64 = 2, 1, 4, 62
PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF  # the number of segments is in section header 0 (elf(5))
MAX_SEGMENTS = 1 << 20
MAX_NOTES = 32 << 20  # bytes of all PT_NOTE segments together; 8192 CPUs take 3 MiB
_LIMIT = 1 << 64

_OTHERS = {
    b"KDUMP   ": "is kdump-compressed; have `makedumpfile -E` write ELF instead",
    b"DISKDUMP": "is kdump-compressed; have `makedumpfile -E` write ELF instead",
    b"makedump": "is a flattened stream; `makedumpfile -R FILE < STREAM` puts it together",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: bytes `offset`..`offset+filesz` of the file are memory from `paddr` (and `vaddr`) on."""

    kind: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


@dataclass(frozen=True, slots=True)
class Note:
    """One entry of a PT_NOTE segment. `owner` is its name without the NUL."""

    owner: str
    kind: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Headers:
    """PT_LOAD segments and notes, in the file's order."""

    loads: tuple[Segment, ...]
    notes: tuple[Note, ...]


def read_headers(source: Source) -> Headers:
    """Read them all. Raises NotReadable."""
    data = source.read_at(0, EHDR.size)
    _check_magic(data)
    if len(data) < EHDR.size:
        raise NotReadable(f"cut off in its ELF header: {len(data)} of {EHDR.size} bytes")
    _, size, order, _, _, _, kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, _, _, _ = EHDR.unpack(data)
    if (size, order) != (ELFCLASS64, ELFDATA2LSB):
        raise NotReadable(f"ELF class {size}, byte order {order}: only 64-bit little-endian is read here")
    if kind != ET_CORE:
        raise NotReadable(f"ELF type {kind} is not ET_CORE ({ET_CORE}): an executable or library, no vmcore")
    if machine != EM_X86_64:
        raise NotReadable(f"ELF machine {machine} is not x86-64 ({EM_X86_64})")
    if phentsize != PHDR.size:
        raise NotReadable(f"program headers of {phentsize} bytes, not {PHDR.size}")
    segments = _segments(source, phoff, _segment_count(source, phnum, shoff))
    return Headers(tuple(s for s in segments if s.kind == PT_LOAD), tuple(_notes(source, segments)))


def _check_magic(data: bytes) -> None:
    if data[:4] == b"\x7fELF":
        return
    what = _OTHERS.get(data[:8], f"begins with {data[:8].hex(' ') or 'nothing'}, not as an ELF file")
    raise NotReadable(f"no ELF vmcore: it {what}")


def _segment_count(source: Source, phnum: int, shoff: int) -> int:
    if phnum == PN_XNUM:
        data = source.read_at(shoff, SHDR.size)
        if len(data) < SHDR.size:
            raise NotReadable(f"section header 0, which has the number of segments, is not in the file (at {shoff:#x})")
        phnum = SHDR.unpack(data)[7]
    if not 0 < phnum <= MAX_SEGMENTS:
        raise NotReadable(f"{phnum} segments: between 1 and {MAX_SEGMENTS} are read")
    return phnum


def _segments(source: Source, phoff: int, count: int) -> list[Segment]:
    data = source.read_at(phoff, count * PHDR.size)
    if len(data) < count * PHDR.size:
        raise NotReadable(f"cut off in its program headers: {len(data)} of {count * PHDR.size} bytes at {phoff:#x}")
    return [_segment(*fields) for fields in PHDR.iter_unpack(data)]


def _segment(
    kind: int, _flags: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int, _align: int
) -> Segment:
    if kind == PT_LOAD and (filesz > memsz or paddr + memsz > _LIMIT or offset + filesz > _LIMIT):
        raise NotReadable(
            f"a PT_LOAD that cannot be: {filesz:#x} bytes at {offset:#x} of the file, {memsz:#x} at {paddr:#x} of memory"
        )
    return Segment(kind, offset, vaddr, paddr, filesz, memsz)


def _notes(source: Source, segments: list[Segment]) -> Iterator[Note]:
    chosen = [segment for segment in segments if segment.kind == PT_NOTE]
    total = sum(segment.filesz for segment in chosen)
    if total > MAX_NOTES:
        raise NotReadable(f"{total} bytes of notes: at most {MAX_NOTES} are read")
    for segment in chosen:
        data = source.read_at(segment.offset, segment.filesz)
        if len(data) < segment.filesz:
            raise NotReadable(f"cut off in its notes: {len(data)} of {segment.filesz} bytes at {segment.offset:#x}")
        yield from parse_notes(data)


def parse_notes(data: bytes) -> Iterator[Note]:
    """The notes of one segment: names and descriptors padded to four bytes. Raises NotReadable.

    A header of zeros ends them: the kernel pads the notes of a CPU so (kernel/kexec_core.c: final_note()).
    """
    at = 0
    while at + NHDR.size <= len(data):
        name_size, data_size, kind = NHDR.unpack_from(data, at)
        if name_size == 0 and data_size == 0 and kind == 0:
            return
        name_at = at + NHDR.size
        data_at = name_at + _padded(name_size)
        if data_at + data_size > len(data):
            raise NotReadable(f"a note at {at:#x} says {name_size} + {data_size} bytes; {len(data) - name_at} are left")
        owner = data[name_at : name_at + name_size].rstrip(b"\0").decode("ascii", "replace")
        yield Note(owner, kind, data[data_at : data_at + data_size])
        at = data_at + _padded(data_size)


def _padded(size: int) -> int:
    return (size + 3) & ~3
