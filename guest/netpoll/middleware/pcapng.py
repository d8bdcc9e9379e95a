"""pcapng (draft-ietf-opsawg-pcapng), the writing side: captures that are evidence.

In: frames with nanosecond timestamps that the caller took. Out: one section, an interface block a device, an enhanced
packet block a frame with its direction and an optional comment. The rule the writer keeps: what is on disk is a valid
capture whenever the process is killed and however full the disk is.

For that every block leaves in one `write`, a write that fails is cut off again, and no block crosses a page of the file: a
kernel that is asked to kill a process stops its write between two pages. Room that a block does not fit into is filled with
a block of a type for local use, which readers skip. Only a block longer than a page (a frame of over 4000 bytes) can still
be cut; the reader in `pcapng_read` names such a tail, and its `repair` removes it.

Blocks: SHB section header, IDB interface description, EPB enhanced packet, NRB name resolution; all little-endian.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SHB, IDB, NRB, EPB = 0x0A0D0D0A, 0x00000001, 0x00000004, 0x00000006
BYTE_ORDER_MAGIC = 0x1A2B3C4D
LINKTYPE_ETHERNET = 1
NANOSECONDS = 9  # if_tsresol: a power of ten, negative exponent

FILLER = 0x80000001  # the top bit marks block types, and option codes, for local use
PAGE = 4096

OPT_END, OPT_COMMENT, OPT_PAD = 0, 1, 0x8000
SHB_OS, SHB_USERAPPL = 3, 4
IF_NAME, IF_DESCRIPTION, IF_MACADDR, IF_TSRESOL, IF_OS = 2, 3, 6, 9, 12
EPB_FLAGS = 2
NRB_IPV4, NRB_IPV6 = 1, 2


class Direction(enum.IntEnum):
    """epb_flags bits 0-1, seen from the interface that captured."""

    UNKNOWN = 0
    INBOUND = 1
    OUTBOUND = 2


@dataclass(frozen=True, slots=True)
class Interface:
    """An IDB: `number` is what packets refer to, `ticks` how many timestamp units make a second."""

    number: int
    name: str
    linktype: int = LINKTYPE_ETHERNET
    snaplen: int = 0  # 0: no limit
    description: str = ""
    mac: bytes = b""
    ticks: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Packet:
    """An EPB. `timestamp` is nanoseconds since the epoch (of whatever clock the writer was given)."""

    interface: Interface
    timestamp: int
    data: bytes
    original_length: int
    direction: Direction = Direction.UNKNOWN
    comments: tuple[str, ...] = ()


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"option {code}: {len(value)} bytes do not fit in its 16-bit length")
    return struct.pack("<HH", code, len(value)) + _pad(value)


def _options(pairs: list[tuple[int, bytes]]) -> bytes:
    """Encode options; empty values are left out. The end marker is always there: `grown` counts on it."""
    return b"".join(_option(code, value) for code, value in pairs if value) + struct.pack("<HH", OPT_END, 0)


def block(block_type: int, body: bytes) -> bytes:
    """One block: type, total length, body (already a multiple of 4), total length again."""
    total = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", block_type) + total + body + total


def grown(whole: bytes, by: int) -> bytes:
    """A block of ours made longer by 4 or 8 bytes, with empty options for local use before its end marker."""
    kind, body = struct.unpack_from("<I", whole)[0], whole[8:-4]
    return block(kind, body[:-4] + struct.pack("<HH", OPT_PAD, 0) * (by // 4) + body[-4:])


def section_header(application: str, system: str = "") -> bytes:
    """SHB of a section whose length is not known beforehand (-1)."""
    fixed = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    return block(SHB, fixed + _options([(SHB_OS, system.encode()), (SHB_USERAPPL, application.encode())]))


def interface_description(interface: Interface) -> bytes:
    """IDB with if_name and if_tsresol 9, whatever `interface.ticks` says: we only write nanoseconds."""
    if interface.mac and len(interface.mac) != 6:
        raise ValueError(f"interface {interface.name}: MAC of {len(interface.mac)} bytes")
    fixed = struct.pack("<HHI", interface.linktype, 0, interface.snaplen)
    pairs = [
        (IF_NAME, interface.name.encode()),
        (IF_DESCRIPTION, interface.description.encode()),
        (IF_MACADDR, interface.mac),
        (IF_TSRESOL, bytes([NANOSECONDS])),
    ]
    return block(IDB, fixed + _options(pairs))


def enhanced_packet(
    number: int,
    timestamp: int,
    data: bytes,
    *,
    original_length: int | None = None,
    direction: Direction = Direction.UNKNOWN,
    comment: str = "",
) -> bytes:
    """EPB of one frame of interface `number`; `timestamp` in nanoseconds, 0 <= timestamp < 2**64."""
    length = len(data) if original_length is None else original_length
    fixed = struct.pack("<IIIII", number, timestamp >> 32, timestamp & 0xFFFFFFFF, len(data), length)
    flags = struct.pack("<I", direction) if direction else b""
    return block(EPB, fixed + _pad(data) + _options([(OPT_COMMENT, comment.encode()), (EPB_FLAGS, flags)]))


def name_resolution(names: Mapping[bytes, str]) -> bytes:
    """NRB: packed IPv4 (4 bytes) or IPv6 (16 bytes) address -> host name, for readers to show."""
    records = bytearray()
    for address, name in names.items():
        kind = {4: NRB_IPV4, 16: NRB_IPV6}.get(len(address))
        if kind is None or not name:
            raise ValueError(f"name record {address!r} -> {name!r}: need a packed address and a name")
        value = address + name.encode() + b"\0"
        records += struct.pack("<HH", kind, len(value)) + _pad(value)
    return block(NRB, bytes(records) + struct.pack("<HH", 0, 0) + _options([]))


class Writer:
    """Appends blocks to a file descriptor. A context manager; closing it closes the descriptor.

    Regular files stay valid through kills and through a full disk; a pipe (`wireshark -k -i -`) works too.
    """

    def __init__(self, fd: int, *, application: str = "netpoll", system: str = "") -> None:
        self._fd = fd
        self._interfaces = 0
        status = os.fstat(fd)
        self._position = status.st_size if stat.S_ISREG(status.st_mode) else None  # None: no pages to mind
        self._write(section_header(application, system))

    @classmethod
    def create(cls, path: Path, *, application: str = "netpoll", system: str = "") -> Self:
        """A new capture at `path`, replacing what is there. Raises OSError."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            return cls(fd, application=application, system=system)
        except BaseException:
            os.close(fd)
            raise

    def add_interface(self, name: str, *, description: str = "", mac: bytes = b"", snaplen: int = 0) -> int:
        """Declare a device, at any time before its first packet; the number is what `packet` takes."""
        number = self._interfaces
        interface = Interface(number, name, snaplen=snaplen, description=description, mac=mac)
        self._write(interface_description(interface))
        self._interfaces += 1
        return number

    def add_names(self, names: Mapping[bytes, str]) -> None:
        """Name addresses (packed IPv4 or IPv6) for readers of the capture."""
        self._write(name_resolution(names))

    def packet(
        self,
        interface: int,
        timestamp: int,
        data: bytes,
        *,
        direction: Direction = Direction.UNKNOWN,
        comment: str = "",
        original_length: int | None = None,
    ) -> None:
        """Append a frame; `timestamp` in nanoseconds. Raises ValueError for an undeclared interface, OSError."""
        if not 0 <= interface < self._interfaces:
            raise ValueError(f"interface {interface} was not declared ({self._interfaces} are)")
        self._write(
            enhanced_packet(
                interface,
                timestamp,
                data,
                original_length=original_length,
                direction=direction,
                comment=comment,
            )
        )

    def _write(self, data: bytes) -> None:
        """Append a block, inside one page of the file if it can be."""
        if self._position is not None:
            room = PAGE - self._position % PAGE
            if room < len(data) <= PAGE:
                self._append(block(FILLER, bytes(room - 12)))
            rest = -(self._position + len(data)) % PAGE
            if rest in (4, 8):  # too little for a filler
                data = grown(data, rest)
        self._append(data)

    def _append(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            self._cut(written)
            raise
        if self._position is not None:
            self._position += written

    def _cut(self, written: int) -> None:
        """Take back the part of a block that went out before the disk was full."""
        if written and self._position is not None:
            os.ftruncate(self._fd, self._position)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
