"""UDP (RFC 768; over IPv6: RFC 8200 section 8.1).

In: the octets after the IP header, cut to what IP says. Out: Header. The checksum spans the IP
addresses, so verify() and emit() take them: 4 octets each for IPv4, 16 for IPv6.
"""

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire import checksum as inet
from guest.netpoll.wire.errors import BadChecksum, Malformed, require

HEADER_LEN = 8
IPPROTO_UDP = 17

_LAYOUT = Struct(">HHHH")


@dataclass(frozen=True, slots=True)
class Header:
    """`length` counts this header and the payload."""

    source: int
    dest: int
    length: int
    checksum: int


def check_len(data: bytes | bytearray | memoryview) -> None:
    """Raise Truncated if the header is not all there."""
    require("UDP", data, HEADER_LEN)


def parse(data: bytes | bytearray | memoryview) -> Header:
    """The header at the start of `data`; raises Truncated, Malformed. The checksum is verify()'s part."""
    check_len(data)
    header = Header(*_LAYOUT.unpack_from(data))
    if header.length < HEADER_LEN:
        raise Malformed(f"UDP: length {header.length} is less than the header's {HEADER_LEN}")
    require("UDP payload", data, header.length)
    return header


def verify(data: bytes | bytearray | memoryview, src: bytes, dst: bytes) -> None:
    """Raise BadChecksum unless the checksum matches. 0 means "not computed": fine in IPv4, not in IPv6."""
    header = parse(data)
    if header.checksum == 0:
        if len(src) == 16:
            raise BadChecksum("UDP over IPv6: no checksum")
        return
    initial = inet.pseudo_sum(src, dst, IPPROTO_UDP, header.length)
    inet.verify("UDP", data[: header.length], initial)


def buffer_len(_header: Header) -> int:
    """Always HEADER_LEN."""
    return HEADER_LEN


def emit(header: Header, buf: bytearray | memoryview, at: int = 0) -> int:
    """Write the header as it stands at offset `at`; return the offset after it."""
    _LAYOUT.pack_into(buf, at, header.source, header.dest, header.length, header.checksum)
    return at + HEADER_LEN


def checksum(source: int, dest: int, data: bytes | memoryview, src: bytes, dst: bytes) -> int:
    """The checksum of a datagram with payload `data`; a computed 0 is sent as 0xFFFF (RFC 768)."""
    length = HEADER_LEN + len(data)
    initial = inet.pseudo_sum(src, dst, IPPROTO_UDP, length) + source + dest + length
    return inet.checksum(data, initial) or 0xFFFF


def payload(data: bytes | bytearray | memoryview) -> memoryview:
    """What `length` says follows the header; raises as parse()."""
    return memoryview(data)[HEADER_LEN : parse(data).length]
