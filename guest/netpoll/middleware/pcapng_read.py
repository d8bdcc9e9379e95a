"""pcapng, the reading side: strict, for tests and for a judge that must not be fooled by a damaged capture.

In: the bytes of a capture, of any writer, in either byte order. Out: `Packet`s. The rule it keeps: damage is never
skipped over; it raises with the offset of the block, and only a tail cut by a kill has an error of its own.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guest.netpoll.middleware.pcapng import (
    BYTE_ORDER_MAGIC,
    EPB,
    EPB_FLAGS,
    IDB,
    IF_DESCRIPTION,
    IF_MACADDR,
    IF_NAME,
    IF_TSRESOL,
    OPT_COMMENT,
    OPT_END,
    SHB,
    Direction,
    Interface,
    Packet,
)

MAX_BLOCK = 16 << 20  # a longer block is damage, not a frame


class PcapngError(Exception):
    """The bytes are not a valid pcapng stream. `offset` is where the offending block starts."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"pcapng: {why} (block at byte {offset})")
        self.offset = offset


class TruncatedError(PcapngError):
    """The stream ends inside a block; everything before `offset` is whole."""


@dataclass(slots=True)
class _Section:
    """Byte order and interfaces since the last SHB."""

    order: str
    interfaces: list[Interface] = field(default_factory=list)


def read(data: bytes) -> Iterator[Packet]:
    """Packets of a whole stream, strictly: anything a careful writer would not have written is an error.

    Raises TruncatedError when the end is inside a block, PcapngError for all other damage; the packets before it
    have been yielded by then. Blocks of unknown type are skipped, as the format wants.
    """
    section: _Section | None = None
    for offset, order, block_type, body in blocks(data):
        if block_type == SHB:
            section = _Section(order)
            _check_section(offset, order, body)
        elif section is None:
            raise PcapngError(offset, "the stream does not start with a section header")
        elif block_type == IDB:
            section.interfaces.append(_read_interface(offset, section, body))
        elif block_type == EPB:
            yield _read_packet(offset, section, body)


def read_file(path: Path) -> list[Packet]:
    """All packets of a capture that a kill may have cut: a partial last block is left out, other damage raises."""
    data = path.read_bytes()
    return list(read(data[: whole_length(data)]))


def whole_length(data: bytes) -> int:
    """How many bytes from the start are whole blocks."""
    try:
        for _ in blocks(data):
            pass
    except TruncatedError as error:
        return error.offset
    return len(data)


def repair(path: Path) -> int:
    """Cut a partial last block off a file; returns how many bytes went."""
    data = path.read_bytes()
    whole = whole_length(data)
    if whole < len(data):
        os.truncate(path, whole)
    return len(data) - whole


def blocks(data: bytes) -> Iterator[tuple[int, str, int, bytes]]:
    """(offset, byte order '<' or '>', type, body) of each block; lengths at both ends checked."""
    offset, order = 0, "<"
    while offset < len(data):
        if len(data) - offset < 12:
            raise TruncatedError(offset, f"{len(data) - offset} bytes left, a block has at least 12")
        if data[offset : offset + 4] == SHB.to_bytes(4, "big"):
            order = _byte_order(offset, data)
        block_type, length = struct.unpack_from(order + "II", data, offset)
        if length < 12 or length % 4 or length > MAX_BLOCK:
            raise PcapngError(offset, f"block length {length}")
        if offset + length > len(data):
            raise TruncatedError(offset, f"block of {length} bytes, {len(data) - offset} are there")
        if struct.unpack_from(order + "I", data, offset + length - 4)[0] != length:
            raise PcapngError(offset, "the two lengths of the block differ")
        yield offset, order, block_type, data[offset + 8 : offset + length - 4]
        offset += length


def _byte_order(offset: int, data: bytes) -> str:
    magic = data[offset + 8 : offset + 12]
    for order in "<>":
        if magic == struct.pack(order + "I", BYTE_ORDER_MAGIC):
            return order
    raise PcapngError(offset, f"byte-order magic {magic.hex()}")


def _check_section(offset: int, order: str, body: bytes) -> None:
    if len(body) < 16:
        raise PcapngError(offset, "section header too short")
    major, minor = struct.unpack_from(order + "HH", body, 4)
    if major != 1 or minor not in (0, 2):
        raise PcapngError(offset, f"version {major}.{minor}")
    _read_options(offset, order, body[16:])


def _read_options(offset: int, order: str, data: bytes) -> list[tuple[int, bytes]]:
    """Option list of a block; bounds are checked, the end marker must be last."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise PcapngError(offset, "option header cut short")
        code, length = struct.unpack_from(order + "HH", data, at)
        at += 4
        if code == OPT_END:
            if length or at != len(data):
                raise PcapngError(offset, "end of options is not the end")
            return found
        if at + length > len(data):
            raise PcapngError(offset, f"option {code} of {length} bytes leaves the block")
        found.append((code, data[at : at + length]))
        at += length + -length % 4
    return found


def _read_interface(offset: int, section: _Section, body: bytes) -> Interface:
    if len(body) < 8:
        raise PcapngError(offset, "interface description too short")
    linktype, _, snaplen = struct.unpack_from(section.order + "HHI", body)
    options = dict(_read_options(offset, section.order, body[8:]))
    return Interface(
        number=len(section.interfaces),
        name=_text(offset, options.get(IF_NAME, b"")),
        linktype=linktype,
        snaplen=snaplen,
        description=_text(offset, options.get(IF_DESCRIPTION, b"")),
        mac=options.get(IF_MACADDR, b""),
        ticks=_ticks(offset, options.get(IF_TSRESOL, b"\x06")),
    )


def _ticks(offset: int, tsresol: bytes) -> int:
    if len(tsresol) != 1:
        raise PcapngError(offset, f"if_tsresol of {len(tsresol)} bytes")
    exponent = tsresol[0] & 0x7F
    return int((2 if tsresol[0] & 0x80 else 10) ** exponent)


def _read_packet(offset: int, section: _Section, body: bytes) -> Packet:
    if len(body) < 20:
        raise PcapngError(offset, "packet block too short")
    number, high, low, captured, original = struct.unpack_from(section.order + "IIIII", body)
    if number >= len(section.interfaces):
        raise PcapngError(offset, f"packet of interface {number}, which is not described")
    interface = section.interfaces[number]
    end = 20 + captured + -captured % 4
    if end > len(body) or captured > original or (interface.snaplen and captured > interface.snaplen):
        raise PcapngError(offset, f"captured length {captured} of {original}")
    options = _read_options(offset, section.order, body[end:])
    flags = next((value for code, value in options if code == EPB_FLAGS), bytes(4))
    if len(flags) != 4:
        raise PcapngError(offset, f"epb_flags of {len(flags)} bytes")
    return Packet(
        interface=interface,
        timestamp=(high << 32 | low) * 1_000_000_000 // interface.ticks,
        data=body[20 : 20 + captured],
        original_length=original,
        direction=_direction(offset, struct.unpack(section.order + "I", flags)[0]),
        comments=tuple(_text(offset, value) for code, value in options if code == OPT_COMMENT),
    )


def _direction(offset: int, flags: int) -> Direction:
    try:
        return Direction(flags & 3)
    except ValueError:
        raise PcapngError(offset, "epb_flags: direction 3") from None


def _text(offset: int, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PcapngError(offset, f"text is not UTF-8: {value[:20]!r}") from None
