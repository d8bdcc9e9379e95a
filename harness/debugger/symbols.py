"""A symbol file for gdb: the kernel image, with a symbol table and call frame information added.

In: vmlinux as it boots (stripped, with its sections), and /proc/kallsyms of a kernel that runs it. Out: an ELF file. The rule it
keeps: what the image has stays as it is, byte for byte; only sections are added behind it.

kallsyms' addresses are those of a kernel that was not moved (no KASLR), or gdb would look for them elsewhere: the symbol
_stext must be where .text begins.
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.debugger.cfi import debug_frame
from harness.debugger.errors import SymbolsError
from harness.debugger.orc import entries
from harness.debugger.prologue import NON_STANDARD, mend

SHDR = struct.Struct("<IIQQQQIIQQ")
SYM = struct.Struct("<IBBHQQ")
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 1, 2, 3, 8
SHF_ALLOC, SHF_EXECINSTR = 2, 4
STB_GLOBAL, STT_OBJECT, STT_FUNC, SHN_ABS = 1, 1, 2, 0xFFF1
_E_SHOFF, _E_SHNUM = 40, 60
LONGEST = 64  # bytes of a prologue


@dataclass(frozen=True, slots=True)
class Section:
    """A section header, with its name, or (data) one to be added."""

    name: str
    type: int
    flags: int = 0
    address: int = 0
    offset: int = 0
    size: int = 0
    link: int = 0
    info: int = 0
    align: int = 1
    entsize: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A line of kallsyms. `kind` as nm(1) has it; `module` may be empty."""

    address: int
    kind: str
    name: str
    module: str


def parse_kallsyms(lines: Iterable[str]) -> list[Symbol]:
    """In order of address. Lines of another form are left out; so is a table that hides its addresses (kptr_restrict)."""
    found = []
    for line in lines:
        words = line.split()
        if len(words) in (3, 4) and len(words[1]) == 1:
            try:
                found.append(Symbol(int(words[0], 16), words[1], words[2], (words[3:] or [""])[0].strip("[]")))
            except ValueError:
                continue
    return sorted(found, key=lambda symbol: symbol.address) if any(symbol.address for symbol in found) else []


def symbol_file(vmlinux: bytes, kallsyms: Iterable[str]) -> bytes:
    """The image with .symtab and .debug_frame. Raises SymbolsError."""
    sections = read_sections(vmlinux)
    symbols = parse_kallsyms(kallsyms)
    _check(sections, symbols)
    modules = [symbol for symbol in symbols if symbol.module and symbol.address]
    added = [_modules(modules)] if modules else []
    table, strings = _symbol_table([*sections, *added], symbols)
    strings_at = len(sections) + len(added) + 2
    added += [
        Section(".debug_frame", SHT_PROGBITS, data=_frames(vmlinux, sections, symbols), align=8),
        Section(".symtab", SHT_SYMTAB, data=table, link=strings_at, info=1, align=8, entsize=SYM.size),
        Section(".strtab", SHT_STRTAB, data=strings),
    ]
    return _append(vmlinux, sections, added)


def read_sections(vmlinux: bytes) -> list[Section]:
    """The section headers. Raises SymbolsError for anything but a 64-bit little-endian ELF file that has them."""
    if vmlinux[:6] != b"\x7fELF\x02\x01":
        raise SymbolsError("no 64-bit little-endian ELF file: vmlinux is meant, not a bzImage")
    try:
        (offset,) = struct.unpack_from("<Q", vmlinux, _E_SHOFF)
        count, names = struct.unpack_from("<HH", vmlinux, _E_SHNUM)
        rows = [SHDR.unpack_from(vmlinux, offset + at * SHDR.size) for at in range(count)]
        strings = rows[names][4]
        return [Section(_name(vmlinux, strings + row[0]), *row[1:]) for row in rows]
    except (struct.error, IndexError) as error:
        raise SymbolsError(f"vmlinux has no section headers where it says ({error})") from error


def _name(vmlinux: bytes, at: int) -> str:
    return vmlinux[at : vmlinux.find(b"\0", at)].decode("ascii", "replace")


def _check(sections: list[Section], symbols: list[Symbol]) -> None:
    text = next((section.address for section in sections if section.name == ".text"), None)
    stext = next((symbol.address for symbol in symbols if symbol.name == "_stext"), None)
    if stext is None:
        raise SymbolsError("kallsyms names no _stext: read it as root, with kernel.kptr_restrict below 2")
    if text != stext:
        raise SymbolsError(
            f"_stext is {stext:#x}, vmlinux has .text at {text or 0:#x}: another kernel, or one moved by KASLR"
        )


def _frames(vmlinux: bytes, sections: list[Section], symbols: list[Symbol]) -> bytes:
    named = {section.name: section for section in sections}
    ips, table = named.get(".orc_unwind_ip"), named.get(".orc_unwind")
    if ips is None or table is None:
        raise SymbolsError("vmlinux has no ORC tables: it was built without CONFIG_UNWINDER_ORC")
    bodies = [vmlinux[each.offset : each.offset + each.size] for each in (ips, table)]
    orc = entries(ips.address, bodies[0], bodies[1], new_layout=".orc_header" in named)
    text, odd = named[".text"], [symbol.address for symbol in symbols if symbol.name in NON_STANDARD]
    starts = {address: text.offset + address - text.address for address in odd if address >= text.address}
    return debug_frame(mend(orc, {address: vmlinux[at : at + LONGEST] for address, at in starts.items()}))


def _modules(symbols: list[Symbol]) -> Section:
    """A section without content around the modules, so that their symbols are code of something."""
    start, end = symbols[0].address, symbols[-1].address + 1
    return Section(".text.modules", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, start, 0, end - start)


def _symbol_table(sections: list[Section], symbols: list[Symbol]) -> tuple[bytes, bytes]:
    strings, table = bytearray(b"\0"), bytearray(SYM.size)
    mapped = sorted((s.address, s.address + s.size, at) for at, s in enumerate(sections) if s.flags & SHF_ALLOC)
    starts = [start for start, _, _ in mapped]
    for symbol, size in _sized(symbols):
        place = bisect_right(starts, symbol.address) - 1
        inside = place >= 0 and symbol.address < mapped[place][1]
        kind = STT_FUNC if symbol.kind in "tTwW" else STT_OBJECT
        binding = STB_GLOBAL if symbol.kind.isupper() else 0
        index = mapped[place][2] if inside else SHN_ABS
        table += SYM.pack(len(strings), binding << 4 | kind, 0, index, symbol.address, size)
        strings += symbol.name.encode() + b"\0"
    return bytes(table), bytes(strings)


def _sized(symbols: list[Symbol]) -> Iterator[tuple[Symbol, int]]:
    """Each with the distance to the next address; what is farther than 1 MiB has no size."""
    addresses = sorted({symbol.address for symbol in symbols})
    following = dict(itertools.pairwise(addresses))
    for symbol in symbols:
        size = following.get(symbol.address, symbol.address) - symbol.address
        yield symbol, size if size < 1 << 20 else 0


def _append(vmlinux: bytes, sections: list[Section], added: list[Section]) -> bytes:
    """The image, the new sections' content, all names anew, and the headers of all."""
    names = bytearray(b"\0")
    rows, parts, at = [], [vmlinux], len(vmlinux)
    shstrtab = Section(".shstrtab", SHT_STRTAB)
    for section in [*sections, *added, shstrtab]:
        where, size = section.offset, section.size
        name = len(names)
        names += section.name.encode() + b"\0"
        data = bytes(names) if section is shstrtab else section.data
        if data:
            data += bytes(-len(data) % 8)
            where, size = at, len(data) - (-len(section.data) % 8 if section is not shstrtab else 0)
            parts.append(data)
            at += len(data)
        rows.append(
            SHDR.pack(
                name, section.type, section.flags, section.address, where, size, section.link, section.info,
                section.align, section.entsize,
            )
        )  # fmt: skip
    whole = bytearray(b"".join([*parts, *rows]))
    struct.pack_into("<Q", whole, _E_SHOFF, at)
    struct.pack_into("<HH", whole, _E_SHNUM, len(rows), len(rows) - 1)
    return bytes(whole)
