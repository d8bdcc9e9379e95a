"""Unpacking boot images: every packing, and every way in which a file can be wrong."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.bzimage import Unpacker, has_pvh_entry, payload, release_of, unpack_kernel
from images.errors import BadKernel


def elf(notes: bytes = b"", tail: bytes = b"") -> bytes:
    """An ELF file with one PT_NOTE segment: header (64 bytes), program header (56), notes, tail."""
    header = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    program = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    return header + program + notes + tail


PVH = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x1000000)
OTHER = struct.pack("<III4s4s", 4, 4, 6, b"Xen\0", b"abc\0")
KERNEL = elf(OTHER + PVH, b"Linux version 6.1.0-50-amd64 (x) " + bytes(range(256)) * 40)
SIZE = struct.pack("<I", len(KERNEL))


def bzimage(packed: bytes, version: int = 0x20F, sects: int = 4, offset: int = 0x2B1, release: bytes = b"") -> bytes:
    """Boot sector and setup of `sects` + 1 sectors, then `offset` bytes of decompressor, then the payload."""
    head = bytearray((sects + 1) * 512)
    head[0x1F1] = sects
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    if release:
        struct.pack_into("<H", head, 0x20E, 0x300)
        head[0x500 : 0x500 + len(release)] = release
    struct.pack_into("<II", head, 0x248, offset, len(packed))
    return bytes(head) + b"\xfd7zXZ\x00" + b"\xcc" * (offset - 6) + packed + b"after the payload"


PACKED = {
    "xz": lzma.compress(KERNEL, lzma.FORMAT_XZ, lzma.CHECK_CRC32) + SIZE,
    "gzip": gzip.compress(KERNEL, mtime=0),
    "lzma": lzma.compress(KERNEL, lzma.FORMAT_ALONE) + SIZE,
    "bzip2": bz2.compress(KERNEL) + SIZE,
    "none": KERNEL,
}


@pytest.mark.parametrize("name", PACKED)
def test_a_kernel_comes_out_as_it_went_in(name: str) -> None:
    # Before the payload stands the magic of XZ, as a decoy for whoever searches.
    assert unpack_kernel(bzimage(PACKED[name]), {}) == KERNEL


def test_a_vmlinux_is_passed_through() -> None:
    assert unpack_kernel(KERNEL, {}) == KERNEL


@pytest.mark.parametrize(("tool", "magic"), [("zstd", b"\x28\xb5\x2f\xfd"), ("lz4", b"\x02\x21\x4c\x18")])
def test_a_tool_gets_the_stream_without_the_length_behind_it(tool: str, magic: bytes) -> None:
    seen: list[bytes] = []

    def unpacker(packed: bytes) -> bytes:
        seen.append(packed)
        return KERNEL

    tools: dict[str, Unpacker] = {tool: unpacker}
    assert unpack_kernel(bzimage(magic + b"stream" + SIZE), tools) == KERNEL
    assert seen == [magic + b"stream"]


def test_zero_setup_sectors_mean_four() -> None:
    image = bytearray(bzimage(PACKED["xz"], sects=4))
    image[0x1F1] = 0
    assert unpack_kernel(bytes(image), {}) == KERNEL


BAD = {
    "empty": (b"", "no bzImage"),
    "no magic": (bytes(4096), "no bzImage"),
    "old protocol": (bzimage(PACKED["xz"], version=0x207), "2.07 is too old"),
    "cut off": (bzimage(PACKED["xz"])[:-200], "cut off"),
    "damaged stream": (bzimage(PACKED["xz"][:200] + b"\0" * 100 + PACKED["xz"][300:]), "damaged"),
    "stream ends early": (bzimage(PACKED["xz"][:300] + SIZE), "cut off"),
    "unknown packing": (bzimage(b"\x01\x02\x03\x04\x05\x06\x07\x08\x09"), "0102030405060708"),
    "lzo": (bzimage(b"\x89LZO" + b"\0" * 20), "packed with lzo"),
    "no ELF inside": (bzimage(gzip.compress(b"MZ not a kernel", mtime=0)), "no ELF"),
}


@pytest.mark.parametrize(("image", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said(image: bytes, said: str) -> None:
    with pytest.raises(BadKernel, match=said):
        unpack_kernel(image, {})


@given(st.integers(0, len(bzimage(PACKED["xz"]))), st.binary(max_size=8))
def test_no_damage_raises_anything_else(at: int, patch: bytes) -> None:
    image = bytearray(bzimage(PACKED["xz"]))
    image[at : at + len(patch)] = patch
    with contextlib.suppress(BadKernel):
        assert unpack_kernel(bytes(image), {}) == KERNEL


def test_payload_is_where_the_header_says() -> None:
    assert payload(bzimage(b"x" * 99, offset=0x100, sects=27)) == b"x" * 99


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(elf(PVH), True), (elf(OTHER + PVH), True), (elf(OTHER), False), (elf(), False)],
    ids=["pvh", "second note", "another Xen note", "no notes"],
)
def test_the_pvh_entry_is_found_in_the_notes(kernel: bytes, expected: bool) -> None:
    assert has_pvh_entry(kernel) is expected


def test_the_release_of_bzimage_and_vmlinux() -> None:
    assert release_of(bzimage(PACKED["xz"], release=b"6.12.107+deb13-amd64 (who@where) #1")) == "6.12.107+deb13-amd64"
    assert release_of(KERNEL) == "6.1.0-50-amd64"


@pytest.mark.parametrize(
    "image", [b"", b"text", elf(), bzimage(PACKED["xz"])], ids=["empty", "text", "elf", "no version"]
)
def test_a_file_without_a_release_is_no_kernel(image: bytes) -> None:
    with pytest.raises(BadKernel, match="neither a bzImage nor a vmlinux"):
        release_of(image)
