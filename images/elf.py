"""As much of ELF as images need: what a binary links to, what a kernel module depends on, a kernel's notes.

In: bytes of 64-bit little-endian ELF files. Out: names and notes. Rule: reads headers only where they say they are;
a file that lies about its sizes raises ElfError, nothing else. Layouts: System V ABI, chapters 4 and 5 (elf(5)).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
SHT_SYMTAB, STT_FUNC = 2, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 1, 5, 15, 29


class ElfError(ValueError):
    """Not a 64-bit little-endian ELF file, or a damaged one."""


@dataclass(frozen=True)
class Segment:
    """A program header: kind, place in the file, place in memory."""

    kind: int
    offset: int
    vaddr: int
    size: int


@dataclass(frozen=True)
class Section:
    """A section header: name, kind, place in the file, and the section that it refers to."""

    name: str
    kind: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True)
class Note:
    """An entry of a PT_NOTE segment."""

    owner: str
    kind: int
    data: bytes


class Elf:
    """An ELF file in memory. Raises ElfError if it is none."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ElfError("not a 64-bit little-endian ELF file")
        self.data = data
        header = self.unpack("<16xHHIQQQIHHHHHH", 0)
        _, _, _, _, self._phoff, self._shoff, _, _, self._phsize, self._phnum, self._shsize, self._shnum, strings = (
            header
        )
        self._section_strings = strings

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """struct.unpack_from with bounds that raise ElfError."""
        try:
            return struct.unpack_from(layout, self.data, offset)
        except (struct.error, OverflowError) as error:
            raise ElfError(f"ELF file is cut off at {offset}") from error

    def segments(self) -> Iterator[Segment]:
        """All program headers."""
        for index in range(self._phnum):
            at = self._phoff + index * self._phsize
            kind, _flags, offset, vaddr, _paddr, filesz = self.unpack("<IIQQQQ", at)
            yield Segment(kind, offset, vaddr, filesz)

    def section(self, name: str) -> bytes:
        """Content of the first section of that name; empty when there is none."""
        found = next((each for each in self.sections() if each.name == name), None)
        return b"" if found is None else self.data[found.offset : found.offset + found.size]

    def sections(self) -> list[Section]:
        """All section headers; none where their names are nowhere."""
        headers = [self.unpack("<IIQQQQI", self._shoff + i * self._shsize) for i in range(self._shnum)]
        if self._section_strings >= len(headers):
            return []
        strings = headers[self._section_strings][4]
        return [
            Section(self.string(strings + name), kind, offset, size, link)
            for name, kind, _flags, _addr, offset, size, link in headers
        ]

    def string(self, offset: int) -> str:
        """The NUL-terminated string at a file offset."""
        end = self.data.find(b"\0", offset)
        if end < 0:
            raise ElfError(f"ELF string at {offset} has no end")
        return self.data[offset:end].decode(errors="replace")


@dataclass(frozen=True)
class Links:
    """What the dynamic linker is asked for: library names, and folders to look in first."""

    needed: tuple[str, ...]
    run_paths: tuple[str, ...]


def links(elf: Elf) -> Links:
    """DT_NEEDED and DT_RUNPATH (or DT_RPATH) of a program or library; empty for a static one."""
    segments = list(elf.segments())
    entries = [entry for segment in segments if segment.kind == PT_DYNAMIC for entry in _dynamic(elf, segment)]
    tables = [value for tag, value in entries if tag == DT_STRTAB]
    if not tables:
        return Links((), ())
    strings = _file_offset(segments, tables[0])
    needed = tuple(elf.string(strings + value) for tag, value in entries if tag == DT_NEEDED)
    paths = [elf.string(strings + value) for tag, value in entries if tag in (DT_RPATH, DT_RUNPATH)]
    return Links(needed, tuple(path for joined in paths for path in joined.split(":") if path))


def _dynamic(elf: Elf, segment: Segment) -> Iterator[tuple[int, int]]:
    for at in range(segment.offset, segment.offset + segment.size - 15, 16):
        tag, value = elf.unpack("<QQ", at)
        if tag == DT_NULL:
            return
        yield tag, value


def _file_offset(segments: list[Segment], vaddr: int) -> int:
    for segment in segments:
        if segment.kind == PT_LOAD and segment.vaddr <= vaddr < segment.vaddr + segment.size:
            return vaddr - segment.vaddr + segment.offset
    raise ElfError(f"address {vaddr:#x} is in no loaded segment")


def notes(elf: Elf) -> Iterator[Note]:
    """The notes of all PT_NOTE segments."""
    for segment in elf.segments():
        if segment.kind != PT_NOTE:
            continue
        at, end = segment.offset, segment.offset + segment.size
        while at + 12 <= end:
            name_size, data_size, kind = elf.unpack("<III", at)
            name_at = at + 12
            data_at = name_at + (name_size + 3) // 4 * 4
            owner = elf.data[name_at : name_at + name_size].rstrip(b"\0").decode(errors="replace")
            yield Note(owner, kind, elf.data[data_at : data_at + data_size])
            at = data_at + (data_size + 3) // 4 * 4


def modinfo(elf: Elf) -> dict[str, list[str]]:
    """The key=value strings of a kernel module's .modinfo section (include/linux/moduleparam.h), values per key."""
    found: dict[str, list[str]] = {}
    for item in elf.section(".modinfo").split(b"\0"):
        key, equals, value = item.decode(errors="replace").partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


def functions(elf: Elf) -> Iterator[tuple[str, str, int]]:
    """(section, name, offset in it) of each function that an object file, such as a kernel module, defines."""
    sections = elf.sections()
    for table in (each for each in sections if each.kind == SHT_SYMTAB and each.link < len(sections)):
        strings = sections[table.link].offset
        for at in range(table.offset, table.offset + table.size - 23, 24):
            name, info, _other, section, value, _size = elf.unpack("<IBBHQQ", at)
            if info & 0xF == STT_FUNC and 0 < section < len(sections):
                yield sections[section].name, elf.string(strings + name), value
