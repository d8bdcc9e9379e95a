"""IPv4 header (RFC 791), options kept as octets.

In: the octets after the Ethernet header (padding allowed). Out: Header. parse() holds the checks of
netpoll_rx() in the kernel's order: ihl, version, options present, header checksum, total length.
"""

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire import checksum
from guest.netpoll.wire.errors import Malformed, require

HEADER_LEN = 20
IPPROTO_UDP = 17

_LAYOUT = Struct(">BBHHHBBH4s4s")


@dataclass(frozen=True, slots=True)
class Header:
    """`total_len` counts this header and the payload; `frag` is flags and offset as on the wire."""

    src: bytes
    dst: bytes
    protocol: int
    total_len: int
    ttl: int = 64
    tos: int = 0
    ident: int = 0
    frag: int = 0
    options: bytes = b""


def check_len(data: bytes | bytearray | memoryview) -> None:
    """Raise Truncated if the fixed header is not all there."""
    require("IPv4", data, HEADER_LEN)


def parse(data: bytes | bytearray | memoryview) -> Header:
    """The header at the start of `data`; raises Truncated, Malformed, BadChecksum."""
    check_len(data)
    first, tos, total_len, ident, frag, ttl, protocol, _, src, dst = _LAYOUT.unpack_from(data)
    ihl = (first & 15) * 4
    if ihl < HEADER_LEN:
        raise Malformed(f"IPv4: header length {ihl} is less than {HEADER_LEN}")
    if first >> 4 != 4:
        raise Malformed(f"IPv4: version {first >> 4}")
    require("IPv4 options", data, ihl)
    checksum.verify("IPv4", data[:ihl])
    if total_len < ihl:
        raise Malformed(f"IPv4: total length {total_len} is less than the header's {ihl}")
    require("IPv4 payload", data, total_len)
    options = bytes(data[HEADER_LEN:ihl])
    return Header(src, dst, protocol, total_len, ttl, tos, ident, frag, options)


def buffer_len(header: Header) -> int:
    """Octets of the header with its options."""
    return HEADER_LEN + len(header.options)


def emit(header: Header, buf: bytearray | memoryview, at: int = 0) -> int:
    """Write the header, checksum computed, at offset `at`; return the offset after it; raises Malformed."""
    size = buffer_len(header)
    if size > 60 or size % 4:
        raise Malformed(f"IPv4: {len(header.options)} octets of options (a multiple of 4, at most 40)")
    fields = (header.tos, header.total_len, header.ident, header.frag, header.ttl, header.protocol)
    _LAYOUT.pack_into(buf, at, 0x40 | size // 4, *fields, 0, header.src, header.dst)
    buf[at + HEADER_LEN : at + size] = header.options
    buf[at + 10 : at + 12] = checksum.checksum(buf[at : at + size]).to_bytes(2, "big")
    return at + size


def payload(data: bytes | bytearray | memoryview) -> memoryview:
    """What total_len says follows the header: padding cut off; raises as parse()."""
    header = parse(data)
    return memoryview(data)[buffer_len(header) : header.total_len]
