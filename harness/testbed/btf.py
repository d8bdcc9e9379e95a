"""Where a kernel keeps the fields of its structures, from the type information that it carries itself (BTF).

In: an unpacked vmlinux with a `.BTF` section, names of structures and fields. Out: offsets and sizes in bytes. Rule: nothing about a kernel's version is
assumed; what the kernel does not have is left out. Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0xEB9F
KIND_ARRAY, KIND_STRUCT, KIND_UNION = 3, 4, 5
TRAILER = {1: 4, 3: 12, 14: 4, 17: 4}  # bytes behind a type of this kind: INT, ARRAY, VAR, DECL_TAG
EACH = {
    4: 12,
    5: 12,
    6: 8,
    13: 8,
    15: 12,
    19: 12,
}  # bytes for each member: STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64
_TYPE, _MEMBER = struct.Struct("<III"), struct.Struct("<III")


class BtfError(ValueError):
    """The file has no type information that can be read."""


@dataclass(frozen=True)
class Layout:
    """`offsets[structure, field]` and `sizes[structure]`, in bytes."""

    offsets: dict[tuple[str, str], int]
    sizes: dict[str, int]


@dataclass(frozen=True)
class _Struct:
    name: str
    size: int
    members: int  # where they are in the section
    count: int
    bits: bool  # of a bit field: the offset is in the lower 24 bits


def layout(vmlinux: Path, structures: Collection[str]) -> Layout:
    """Every field of these structures, those of members without a name included. Raises BtfError, OSError."""
    data = _section(vmlinux.read_bytes(), ".BTF")
    magic, _, _, header, types, type_len, strings, _ = struct.unpack_from("<HBBIIIII", data)
    if magic != MAGIC:
        raise BtfError(f"{vmlinux}: no BTF")
    names, begin = header + strings, header + types
    found: list[_Struct | None] = [None]  # types count from 1
    for kind, name, size, members, count, bits in _types(data, begin, begin + type_len):
        found.append(
            _Struct(_text(data, names + name), size, members, count, bits)
            if kind in (KIND_STRUCT, KIND_UNION)
            else None
        )
    offsets: dict[tuple[str, str], int] = {}
    sizes: dict[str, int] = {}
    for each in found:
        if each is not None and each.name in structures and each.count and each.name not in sizes:
            sizes[each.name] = each.size
            offsets |= {(each.name, field): place for field, place in _fields(data, names, found, each, 0)}
    return Layout(offsets, sizes)


def _types(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int, int, bool]]:
    while place < end:
        name, info, size = _TYPE.unpack_from(data, place)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        place += _TYPE.size
        yield kind, name, size, place, count, bool(info >> 31)
        place += TRAILER.get(kind, 0) + EACH.get(kind, 0) * count


def _fields(data: bytes, names: int, types: list[_Struct | None], of: _Struct, base: int) -> Iterator[tuple[str, int]]:
    for number in range(of.count):
        name, kind, offset = _MEMBER.unpack_from(data, of.members + number * _MEMBER.size)
        place = base + (offset & 0xFFFFFF if of.bits else offset) // 8
        inner = types[kind] if kind < len(types) else None
        if name and (text := _text(data, names + name)):
            yield text, place
        elif inner is not None:
            yield from _fields(data, names, types, inner, place)


def _text(data: bytes, place: int) -> str:
    return data[place : data.index(b"\0", place)].decode()


def _section(elf: bytes, wanted: str) -> bytes:
    """One section of an ELF file of 64 bits."""
    if elf[:5] != b"\x7fELF\x02":
        raise BtfError("no ELF file of 64 bits")
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + number * size) for number in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, length in headers:
        if _text(elf, strings + name) == wanted:
            return elf[offset : offset + length]
    raise BtfError(f"no section {wanted}")
