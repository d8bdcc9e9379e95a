"""Linux boot images: the uncompressed kernel inside a bzImage, and whether it has a PVH entry.

In: bytes of a bzImage (or of an ELF vmlinux, passed through). Out: bytes of the ELF vmlinux. Rule: the payload is
where the setup header says (Documentation/arch/x86/boot.rst, `payload_offset`), never searched for.

Booting the unpacked kernel spares the guest the decompression, which takes seconds under software emulation.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Mapping

from images.elf import Elf, notes
from images.errors import BadKernel

SETUP_SECTS = 0x1F1
MAGIC = 0x202  # "HdrS"
VERSION = 0x206
KERNEL_VERSION = 0x20E  # where, past the first sector, the version string is
PAYLOAD = 0x248  # payload_offset, payload_length: from boot protocol 2.08 on
LENGTH = 4  # bytes: the unpacked size that follows the stream (not for gzip, whose own last word it is)
XEN_ELFNOTE_PHYS32_ENTRY = 18  # include/xen/interface/elfnote.h: the PVH entry point

Unpacker = Callable[[bytes], bytes]


def _gzip(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(data)


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)


def _lzma(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)


def _bzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data)


# How the payload begins (lib/decompress.c), what that is called, and who unpacks it; None: a tool that the caller brings.
FORMATS: tuple[tuple[bytes, str, Unpacker | None], ...] = (
    (b"\x7fELF", "none", bytes),
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\xfd7zXZ\x00", "xz", _xz),
    (b"\x5d\x00\x00", "lzma", _lzma),
    (b"BZh", "bzip2", _bzip2),
    (b"\x28\xb5\x2f\xfd", "zstd", None),
    (b"\x02\x21\x4c\x18", "lz4", None),
    (b"\x89LZO", "lzo", None),
)


def payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage, without the length that is appended to it. Raises BadKernel."""
    if len(image) < PAYLOAD + 8 or image[MAGIC : MAGIC + 4] != b"HdrS":
        raise BadKernel("no bzImage: the setup header's magic HdrS is missing", "give an x86 bzImage or a vmlinux")
    (version,) = struct.unpack_from("<H", image, VERSION)
    if version < 0x208:
        raise BadKernel(f"boot protocol {version >> 8}.{version & 255:02d} is too old", "2.08 (Linux 2.6.26) is needed")
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    start = ((image[SETUP_SECTS] or 4) + 1) * 512 + offset
    if length < 8 or start + length > len(image):
        raise BadKernel(f"bzImage is cut off: payload ends at {start + length}, file at {len(image)}", "copy it again")
    return image[start : start + length]


def unpack_kernel(image: bytes, tools: Mapping[str, Unpacker]) -> bytes:
    """The vmlinux (ELF) inside `image`; `tools` unpack what the standard library cannot ("zstd", "lz4", "lzo").

    Raises BadKernel: no kernel, damaged, or packed in a way that nobody here can unpack.
    """
    if image.startswith(b"\x7fELF"):
        return image
    packed = payload(image)
    for magic, name, own in FORMATS:
        if packed.startswith(magic):
            unpacker = own or tools.get(name)
            if unpacker is None:
                raise BadKernel(f"kernel is packed with {name}", "build it with CONFIG_KERNEL_XZ, _GZIP, _ZSTD or _LZ4")
            stream = packed if own else packed[:-LENGTH]  # tools complain about what follows their stream
            return _checked(_unpacked(unpacker, name, stream), name, packed)
    raise BadKernel(
        f"kernel is packed in an unknown way: it begins with {packed[:8].hex()}", "use another CONFIG_KERNEL_*"
    )


def _unpacked(unpacker: Unpacker, name: str, packed: bytes) -> bytes:
    try:
        return unpacker(packed)
    except (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError) as error:
        raise BadKernel(f"the kernel's {name} payload is damaged: {error}", "copy or build the kernel again") from error


def _checked(kernel: bytes, name: str, packed: bytes) -> bytes:
    """The last four bytes of a payload are its unpacked length (scripts/Makefile.lib, size_append; gzip's own ISIZE)."""
    (length,) = struct.unpack("<I", packed[-4:])
    if name != "none" and len(kernel) & 0xFFFFFFFF != length:
        raise BadKernel(f"the kernel's {name} payload is cut off: {len(kernel)} of {length} bytes", "copy it again")
    if not kernel.startswith(b"\x7fELF"):
        raise BadKernel("what the bzImage holds is no ELF file", "give an x86-64 kernel")
    return kernel


def release_of(image: bytes) -> str:
    """`uname -r` of a bzImage (its setup header says it) or of a vmlinux (its banner does). Raises BadKernel."""
    text = b""
    if image.startswith(b"\x7fELF"):
        text = image[max(0, image.find(b"Linux version ")) :][14:256]
    elif image[MAGIC : MAGIC + 4] == b"HdrS":
        (at,) = struct.unpack_from("<H", image, KERNEL_VERSION)
        text = image[at + 512 : at + 768] if at else b""
    match = re.match(rb"[0-9][\w.+~-]*", text)
    if not match:
        raise BadKernel("no Linux version in this file: it is neither a bzImage nor a vmlinux", "give one of the two")
    return match[0].decode()


def has_pvh_entry(vmlinux: bytes) -> bool:
    """Can QEMU boot this vmlinux with -kernel? It looks for this very note (hw/i386/x86.c, load_elfboot)."""
    return any(note.owner == "Xen" and note.kind == XEN_ELFNOTE_PHYS32_ENTRY for note in notes(Elf(vmlinux)))
