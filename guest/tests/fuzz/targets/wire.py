"""Every codec of guest.netpoll.wire on the same octets: refused with a WireError, or parsed and written back as they were.

In: octets that stand after whatever header goes before. The rule held is that of the package: emit(parse(x)) is x; of
a checksum that emit() computes, of the two zeros, it writes one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from guest.netpoll.wire import WireError, arp, checksum, ethernet, icmpv6, ipv4, ipv6, udp, vlan
from guest.tests.fuzz import reference
from guest.tests.fuzz.frames import LOCAL4, LOCAL6, PEER4, PEER6, mixed_frames, near_misses
from guest.tests.fuzz.table import Target


@dataclass(frozen=True)
class Codec:
    """`size(header)`: how many octets of the input emit() has to give back."""

    module: Any  # the codecs share a vocabulary, not a type
    payload: bool = True

    def size(self, header: Any) -> int:
        return int(self.module.buffer_len(header))


CODECS = (
    Codec(ethernet),
    Codec(vlan),
    Codec(arp, payload=False),
    Codec(ipv4),
    Codec(ipv6),
    Codec(udp),
)


def run(data: bytes) -> None:
    for codec in CODECS:
        _round_trip(codec, data)
    frame = bytes(12) + b"\x08\x00" + data
    _round_trip(CODECS[3], reference.repaired(frame)[14:])
    _neighbour(data)
    _neighbour(_with_checksum(data))
    _checksums(data)


def _round_trip(codec: Codec, data: bytes) -> None:
    header = _parsed(codec.module.parse, data)
    views = (memoryview(data), bytearray(data))
    assert all(_parsed(codec.module.parse, view) == header for view in views), "bytes and views are read differently"
    if header is None:
        return
    size = codec.size(header)
    buf = bytearray(b"\xaa" * (size + 2))
    assert codec.module.emit(header, buf, 1) == size + 1
    assert buf[0] == buf[-1] == 0xAA, "emit() wrote outside its place"
    assert _same(codec, bytes(buf[1:-1]), data[:size]), f"{header} was {data[:size].hex()}, is {buf[1:-1].hex()}"
    assert _parsed(codec.module.parse, data[: size - 1]) is None, "a header cut short was taken for whole"
    assert size <= _end(header, len(data)) <= len(data), "more was promised than is there"
    if isinstance(header, vlan.Header):
        assert header.priority < 8
        assert header.drop_eligible < 2
        assert header.vid < 4096
    if codec.payload:
        assert bytes(codec.module.payload(data)) == data[size : _end(header, len(data))]


def _parsed(parse: Callable[[Any], Any], data: bytes | memoryview | bytearray) -> Any:
    try:
        return parse(data)
    except WireError:
        return None


def _same(codec: Codec, out: bytes, data: bytes) -> bool:
    """Octet for octet, but for the other zero in an IPv4 checksum."""
    other_zero = codec.module is ipv4 and data[10:12] == b"\xff\xff"
    return out == (data[:10] + b"\0\0" + data[12:] if other_zero else data)


def _end(header: Any, have: int) -> int:
    """Where the payload ends, by the header's own length."""
    if isinstance(header, ipv4.Header):
        return header.total_len
    if isinstance(header, ipv6.Header):
        return ipv6.HEADER_LEN + header.payload_len
    return header.length if isinstance(header, udp.Header) else have


def _neighbour(data: bytes) -> None:
    message = _parsed(lambda octets: icmpv6.parse(octets, PEER6, LOCAL6), data)
    if message is None:
        return
    buf = bytearray(icmpv6.buffer_len(message))
    assert icmpv6.emit(message, PEER6, LOCAL6, buf) == len(buf)
    assert icmpv6.parse(buf, PEER6, LOCAL6) == message


def _with_checksum(data: bytes) -> bytes:
    """As ICMPv6 between the two addresses."""
    header = ipv6.Header(PEER6, LOCAL6, icmpv6.IPPROTO_ICMPV6, len(data))
    buf = bytearray(14 + ipv6.HEADER_LEN)
    ethernet.emit(ethernet.Header(bytes(6), bytes(6), ethernet.ETH_P_IPV6), buf)
    ipv6.emit(header, buf, 14)
    return reference.repaired(bytes(buf) + data)[54:]


def _checksums(data: bytes) -> None:
    assert checksum.is_valid(data) == (reference.word_sum(data) in (0, 0xFFFF))
    if any(data):
        assert checksum.checksum(data) == 0xFFFF - reference.word_sum(data)
    for src, dst in ((PEER4, LOCAL4), (PEER6, LOCAL6)):
        with contextlib.suppress(WireError):
            udp.verify(data, src, dst)


def encoded() -> Iterator[bytes]:
    for frame in (*mixed_frames(), *near_misses()):
        yield frame
        yield frame[14:]
        yield frame[34 if frame[12:14] == b"\x08\x00" else 54 :]
    yield vlan.insert(next(mixed_frames()), 0x6005)[14:]


TARGET = Target(
    run, encoded, tokens=(b"\x45\x00", b"\x60\x00", b"\x08\x00", b"\x86\xdd", b"\x87\x00", b"\x01\x01"), max_len=160
)
