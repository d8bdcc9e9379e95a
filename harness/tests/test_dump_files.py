"""Dumps' files: every page is found where the format has it, and a file that lies about itself is refused."""

from __future__ import annotations

import os
import random
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.dump.compare import compare
from harness.dump.vmcore import LZO, PAGE, ZLIB, BadDump, open_dump

PAGES = {pfn: random.Random(pfn).randbytes(64) * 64 for pfn in (256, 257, 300, 1000)}


def elf(pages: Mapping[int, bytes], loads: list[tuple[int, int]]) -> bytes:
    """PT_LOADs of (first page, pages), each at the offset of its own."""
    at = 64 + 56 * len(loads)
    headers, contents = b"", b""
    for pfn, count in loads:
        data = b"".join(pages.get(number, bytes(PAGE)) for number in range(pfn, pfn + count))
        headers += struct.pack("<IIQQQQQQ", 1, 7, at + len(contents), pfn * PAGE, pfn * PAGE, len(data), len(data), 0)
        contents += data
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(loads), 0, 0, 0
    )
    return head + headers + contents


def kdump(pages: Mapping[int, bytes], flags: int) -> bytes:
    """makedumpfile's format, version 6: header, sub header, two bitmaps of a block each, descriptors, data."""
    header = bytearray(PAGE)
    header[:8] = b"KDUMP   "
    struct.pack_into("<i", header, 8, 6)
    struct.pack_into("<iiII", header, 428, PAGE, 1, 2, 0)
    sub = bytearray(PAGE)
    struct.pack_into("<Q", sub, 96, 2048)
    bitmap = bytearray(PAGE)
    for pfn in pages:
        bitmap[pfn // 8] |= 1 << pfn % 8
    packed = [zlib.compress(page) if flags & ZLIB else page for _, page in sorted(pages.items())]
    offset = 4 * PAGE + 24 * len(pages)
    descriptors = b""
    for data in packed:
        descriptors += struct.pack("<qIIQ", offset, len(data), flags, 0)
        offset += len(data)
    return bytes(header + sub + bitmap + bitmap) + descriptors + b"".join(packed)


def pages_of(path: Path, data: bytes) -> Iterator[tuple[int, bytes]]:
    (path / "vmcore").write_bytes(data)
    yield from open_dump(path / "vmcore", None).pages


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(elf(PAGES, [(256, 2), (300, 1), (1000, 1)]), id="elf"),
        pytest.param(
            elf(PAGES, [(256, 2), (256, 1), (300, 1), (1000, 1)]), id="elf with the text in a segment of its own, too"
        ),
        pytest.param(kdump(PAGES, 0), id="kdump"),
        pytest.param(kdump(PAGES, ZLIB), id="kdump, zlib"),
    ],
)
def test_each_page_is_found_once(data: bytes, tmp_path: Path) -> None:
    assert dict(pages_of(tmp_path, data)) == PAGES


def _damaged(at: int, value: bytes) -> bytes:
    data = bytearray(kdump(PAGES, ZLIB))
    data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "0 bytes are no dump", id="empty"),
        pytest.param(b"\0" * PAGE, "neither ELF nor KDUMP", id="zeros"),
        pytest.param(elf(PAGES, [(256, 2)])[:-PAGE], "ends behind the file", id="elf, cut off"),
        pytest.param(_damaged(428, struct.pack("<i", 512)), "blocks of 512 bytes", id="another block size"),
        pytest.param(_damaged(4 * PAGE, struct.pack("<q", 1 << 40)), "page 0x100 says", id="an offset out of the file"),
        pytest.param(_damaged(4 * PAGE + 8, struct.pack("<I", 70000)), "says 70000 bytes", id="a size above a page"),
        pytest.param(_damaged(4 * PAGE + 24 * 4, b"\xff\xff"), "page 0x100 cannot be unpacked", id="damaged data"),
        pytest.param(kdump(PAGES, LZO), "there is no liblzo2", id="lzo without its library"),
    ],
)
def test_what_is_no_dump_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadDump, match=words):
        list(pages_of(tmp_path, data))


def test_pages_are_compared_with_ram() -> None:
    ram = os.memfd_create("ram")
    os.ftruncate(ram, 1000 * PAGE)
    for pfn in (256, 300):
        os.pwrite(ram, PAGES[pfn], pfn * PAGE)
    found = compare([*PAGES.items(), (5, bytes(PAGE))], ram)
    os.close(ram)
    assert (found.pages, found.equal, found.zero, found.different, found.outside) == (5, 3, 1, 1, 1)
    assert found.named == (257,)
