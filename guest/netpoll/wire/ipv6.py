"""IPv6 fixed header (RFC 8200 section 3). Extension headers are payload here, as in netpoll.

In: the octets after the Ethernet header (padding allowed). Out: Header.
"""

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire.errors import Malformed, require

HEADER_LEN = 40

_LAYOUT = Struct(">IHBB16s16s")


@dataclass(frozen=True, slots=True)
class Header:
    """`payload_len` counts what follows the header; addresses are 16 octets."""

    src: bytes
    dst: bytes
    next_header: int
    payload_len: int
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0


def check_len(data: bytes | bytearray | memoryview) -> None:
    """Raise Truncated if the fixed header is not all there."""
    require("IPv6", data, HEADER_LEN)


def parse(data: bytes | bytearray | memoryview) -> Header:
    """The header at the start of `data`; raises Truncated, Malformed."""
    check_len(data)
    first, payload_len, next_header, hop_limit, src, dst = _LAYOUT.unpack_from(data)
    if first >> 28 != 6:
        raise Malformed(f"IPv6: version {first >> 28}")
    require("IPv6 payload", data, HEADER_LEN + payload_len)
    return Header(src, dst, next_header, payload_len, hop_limit, first >> 20 & 0xFF, first & 0xFFFFF)


def buffer_len(_header: Header) -> int:
    """Always HEADER_LEN."""
    return HEADER_LEN


def emit(header: Header, buf: bytearray | memoryview, at: int = 0) -> int:
    """Write the header at offset `at`; return the offset after it."""
    first = 6 << 28 | header.traffic_class << 20 | header.flow_label
    fields = (header.payload_len, header.next_header, header.hop_limit, header.src, header.dst)
    _LAYOUT.pack_into(buf, at, first, *fields)
    return at + HEADER_LEN


def payload(data: bytes | bytearray | memoryview) -> memoryview:
    """What payload_len says follows the header: padding cut off; raises as parse()."""
    header = parse(data)
    return memoryview(data)[HEADER_LEN : HEADER_LEN + header.payload_len]
