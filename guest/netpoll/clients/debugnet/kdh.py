"""FreeBSD's kernel dump header, version 4: what a dump says of itself (sys/kerneldump.h), 512 bytes, big-endian.

In: the 512 bytes. Out: Header. The one rule: a header whose words do not sum (XOR) to 0 is told apart, never believed silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

MAGIC = b"FreeBSD Kernel Dump"
VERSION = 4
SIZE = 512
SUFFIXES = {0: "", 1: ".gz", 2: ".zst"}  # by KERNELDUMP_COMP_*

# magic, architecture, version, archversion, length, time, keysize, blocksize, hostname, versionstring, panicstring, compression,
# extent, (unused), parity
_LAYOUT = Struct(">20s12sIIQQII64s192s175sBQ4sI")
_WORDS = Struct(">128I")


@dataclass(frozen=True, slots=True)
class Header:
    """struct kerneldumpheader. `length` and `extent` in bytes, `time` in seconds since the epoch."""

    length: int
    architecture: str = "amd64"
    archversion: int = 2
    time: int = 0
    keysize: int = 0
    blocksize: int = 512
    hostname: str = ""
    versionstring: str = ""
    panicstring: str = ""
    compression: int = 0
    extent: int = 0


class HeaderError(ValueError):
    """Not a kernel dump header, or a damaged one."""


def emit(header: Header) -> bytes:
    """The 512 bytes; texts are cut to their fields, each with a NUL after it."""
    fields = (
        MAGIC,
        _text(header.architecture, 12),
        VERSION,
        header.archversion,
        header.length,
        header.time,
        header.keysize,
        header.blocksize,
        _text(header.hostname, 64),
        _text(header.versionstring, 192),
        _text(header.panicstring, 175),
        header.compression,
        header.extent,
        b"",
    )
    return _LAYOUT.pack(*fields, _parity(_LAYOUT.pack(*fields, 0)))


def parse(data: bytes) -> Header:
    """Raises HeaderError."""
    if len(data) < SIZE:
        raise HeaderError(f"{len(data)} bytes are no kernel dump header of {SIZE}")
    magic, arch, _, archversion, length, time, keysize, blocksize, host, version, panic, compression, extent, _, _ = (
        _LAYOUT.unpack_from(data)
    )
    if not magic.startswith(MAGIC):
        raise HeaderError("no kernel dump header: the magic is wrong")
    if _parity(data[:SIZE]):
        raise HeaderError("a damaged kernel dump header: the parity is wrong")
    return Header(
        length,
        _string(arch),
        archversion,
        time,
        keysize,
        blocksize,
        _string(host),
        _string(version),
        _string(panic),
        compression,
        extent,
    )


def _parity(data: bytes) -> int:
    parity = 0
    for word in _WORDS.unpack(data):
        parity ^= word
    return parity


def _text(text: str, room: int) -> bytes:
    return text.encode(errors="replace")[: room - 1]


def _string(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="backslashreplace")
