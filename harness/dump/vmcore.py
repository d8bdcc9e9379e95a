"""Where the pages of physical memory lie in a dump's file: ELF as /proc/vmcore is, and makedumpfile's kdump-compressed format.

In: a file. Out: (page frame number, content) of every page that is in it, in order. Rule: nothing is believed that would lead out of the file; a page that
cannot be read is an error that names its number. Formats: fs/proc/vmcore.c; makedumpfile's diskdump_mod.h.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096
ZLIB, LZO = 0x1, 0x2  # DUMP_DH_COMPRESSED_*
PT_LOAD = 1
Pages = Iterator[tuple[int, bytes]]
_DESC = struct.Struct("<qIIQ")  # struct page_desc
_PHDR = struct.Struct("<IIQQQQQQ")


class BadDump(Exception):
    """The file is no dump, or a damaged one."""


@dataclass(frozen=True)
class Opened:
    """`format`: elf or kdump-compressed."""

    format: str
    size: int
    pages: Pages


def open_dump(path: Path, lzo: Path | None) -> Opened:
    """`lzo`: liblzo2, for dumps that are packed with it. Raises BadDump, OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < PAGE:
            raise BadDump(f"{size} bytes are no dump")
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    if data[:4] == b"\x7fELF":
        return Opened("elf", size, _elf(data))
    if data[:8] == b"KDUMP   ":
        return Opened("kdump-compressed", size, _kdump(data, _unpacker(lzo)))
    raise BadDump(f"it begins with {data[:16].hex()}, neither ELF nor KDUMP")


def _elf(data: mmap.mmap) -> Pages:
    """The direct map's segments; the kernel's text, which lies in them too, is left out where it would come twice."""
    offset, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    headers = [_PHDR.unpack_from(data, offset + number * _PHDR.size) for number in range(count)]
    loads = sorted((each[4], each[5], each[2]) for each in headers if each[0] == PT_LOAD)
    seen: set[int] = set()
    for paddr, filesz, at in loads:
        if at + filesz > len(data):
            raise BadDump(f"the segment of {paddr:#x} ends behind the file")
        for pfn in range(-(-paddr // PAGE), (paddr + filesz) // PAGE):
            if pfn not in seen:
                seen.add(pfn)
                start = at + pfn * PAGE - paddr
                yield pfn, data[start : start + PAGE]


def _kdump(data: mmap.mmap, unlzo: Callable[[bytes], bytes]) -> Pages:
    """Blocks: header, sub header, two bitmaps, then a descriptor for each page of the second one."""
    (block,) = struct.unpack_from("<i", data, 428)
    sub, bitmaps, mapped = struct.unpack_from("<iII", data, 432)
    if block != PAGE or not 0 < sub < 1 << 20 or not 0 < bitmaps < 1 << 20:
        raise BadDump(f"its header says blocks of {block} bytes, {bitmaps} of bitmaps")
    (mapped64,) = struct.unpack_from("<Q", data, block + 96)
    start = (1 + sub) * block
    bitmap = data[start + bitmaps * block // 2 : start + bitmaps * block]
    at = start + bitmaps * block
    for pfn in _bits(bitmap, mapped64 or mapped):
        offset, size, flags, _ = _DESC.unpack_from(data, at)
        at += _DESC.size
        if not 0 < size <= PAGE or offset < 0 or offset + size > len(data):
            raise BadDump(f"the descriptor of page {pfn:#x} says {size} bytes at {offset}")
        packed = data[offset : offset + size]
        try:
            page = zlib.decompress(packed) if flags & ZLIB else unlzo(packed) if flags & LZO else packed
        except (zlib.error, ValueError) as error:
            raise BadDump(f"page {pfn:#x} cannot be unpacked: {error}") from error
        if len(page) != PAGE:
            raise BadDump(f"page {pfn:#x} has {len(page)} bytes")
        yield pfn, page


def _bits(bitmap: bytes, most: int) -> Iterator[int]:
    for index, byte in enumerate(bitmap):
        if byte:
            for bit in range(8):
                if byte >> bit & 1 and index * 8 + bit < most:
                    yield index * 8 + bit


def _unpacker(lzo: Path | None) -> Callable[[bytes], bytes]:
    """lzo1x_decompress_safe(), which no module of Python's library has."""
    if lzo is None:
        return _no_lzo
    library = ctypes.CDLL(str(lzo))
    out = ctypes.create_string_buffer(PAGE)

    def unpack(packed: bytes) -> bytes:
        size = ctypes.c_size_t(PAGE)
        status = library.lzo1x_decompress_safe(packed, ctypes.c_size_t(len(packed)), out, ctypes.byref(size), None)
        if status:
            raise ValueError(f"lzo1x_decompress_safe returned {status}")
        return out.raw[: size.value]

    return unpack


def _no_lzo(_packed: bytes) -> bytes:
    raise ValueError("it is packed with LZO, and there is no liblzo2")
