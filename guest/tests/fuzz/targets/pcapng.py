"""Captures into the strict reader.

In: a file's octets. Out of the reader: packets, or PcapngError with the offset of a block. Held: no other exception; a
file that is whole but for its tail reads to that tail without complaint; packets that the writer writes read the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from guest.netpoll.middleware.pcapng import (
    Direction,
    Interface,
    Packet,
    block,
    enhanced_packet,
    interface_description,
    name_resolution,
    section_header,
)
from guest.netpoll.middleware.pcapng_read import PcapngError, TruncatedError, read, whole_length
from guest.tests.fuzz.frames import CAPTURES, DATA, mixed_frames
from guest.tests.fuzz.table import Target

MAX_TIMESTAMP = 1 << 64  # nanoseconds, what the writer's unit leaves room for


def run(data: bytes) -> None:
    packets, error = _read(data)
    if error is not None:
        assert 0 <= error.offset <= len(data)
        assert str(error)
    for packet in packets:
        _check(packet)
    _check_tail(data, packets, error)


def _read(data: bytes) -> tuple[list[Packet], PcapngError | None]:
    """What was yielded, and how it ended."""
    packets: list[Packet] = []
    try:
        packets.extend(read(data))
    except PcapngError as error:
        return list(_yielded(data)), error
    return packets, None


def _yielded(data: bytes) -> Iterator[Packet]:
    """The packets before the error."""
    try:
        yield from read(data)
    except PcapngError:
        return


def _check(packet: Packet) -> None:
    assert len(packet.data) <= packet.original_length
    assert packet.timestamp >= 0
    interface = packet.interface
    mac = interface.mac if len(interface.mac) == 6 else b""
    comment = packet.comments[0] if packet.comments else ""
    if packet.timestamp >= MAX_TIMESTAMP:
        return
    again = replace(interface, number=0, mac=mac, ticks=1_000_000_000)
    options = {"original_length": packet.original_length, "direction": packet.direction, "comment": comment}
    stream = section_header("fuzz") + interface_description(again)
    stream += enhanced_packet(0, packet.timestamp, packet.data, **options)  # type: ignore[arg-type]  # a table's
    comments = (comment,) if comment else ()
    assert list(read(stream)) == [replace(packet, interface=again, comments=comments)]


def _check_tail(data: bytes, packets: list[Packet], error: PcapngError | None) -> None:
    """whole_length() cuts at the block that a truncation is about, and what it leaves reads without one."""
    if isinstance(error, TruncatedError):
        assert whole_length(data) == error.offset
        assert _read(data[: error.offset]) == (packets, None)
    elif error is None:
        assert whole_length(data) == len(data)


def encoded() -> Iterator[bytes]:
    interface = Interface(0, "tap0", description="guest's n0", mac=bytes(range(6)), snaplen=2048)
    head = section_header("netpoll", "Linux") + interface_description(interface)
    frame = next(mixed_frames())
    yield head
    yield head + name_resolution({bytes(4): "nobody", bytes(16): "nobody6"}) + enhanced_packet(0, 10**18, frame)
    whole = head + enhanced_packet(0, 1, frame, direction=Direction.INBOUND, comment="seen", original_length=99)
    yield whole
    yield whole + block(0x80000001, bytes(8)) + section_header("another")
    yield whole[:-3]
    yield whole[:-4] + bytes(4)
    yield _big_endian()
    for name in CAPTURES:
        capture = (DATA / name).read_bytes()
        sizes = islice(_block_ends(capture), 6)
        yield capture[: list(sizes)[-1]]


def _block_ends(capture: bytes) -> Iterator[int]:
    at = 0
    while at < len(capture):
        at += int.from_bytes(capture[at + 4 : at + 8], "little")
        yield at


def _big_endian() -> bytes:
    """A section of another machine's, with a packet in microseconds."""
    header = _block_be(0x0A0D0D0A, bytes.fromhex("1a2b3c4d 0001 0000 ffffffffffffffff"))
    interface = _block_be(1, bytes.fromhex("0001 0000 00000000"))
    packet = _block_be(6, bytes(4) + (1 << 40).to_bytes(8, "big") + bytes.fromhex("00000004 00000004 deadbeef"))
    return header + interface + packet


def _block_be(kind: int, body: bytes) -> bytes:
    size = (len(body) + 12).to_bytes(4, "big")
    return kind.to_bytes(4, "big") + size + body + size


TOKENS = (
    b"\x0a\x0d\x0d\x0a",
    b"\x4d\x3c\x2b\x1a",
    b"\x06\0\0\0",
    b"\x01\0\0\0",
    b"\x09\0\x01\0",
    b"\x02\0\x04\0",
    bytes(4),
)
TARGET = Target(run, encoded, TOKENS, max_len=700)
