"""A second opinion on frames: which are whole UDP datagrams, written from the RFCs and sharing no code with the stack.

In: a frame. Out: its addresses, ports and payload, or None. The one rule: nothing of guest.netpoll is used here, and
nothing is fast here: what the stack's short cuts say is compared with this.
"""

from __future__ import annotations

from dataclasses import dataclass

UDP = 17
ICMPV6 = 58


@dataclass(frozen=True)
class Datagram:
    """A datagram whose lengths agree and whose checksums are right (a UDP checksum of 0 is right over IPv4)."""

    src: bytes
    dst: bytes
    source: int
    dest: int
    payload: bytes


def number(data: bytes | bytearray) -> int:
    """Big-endian."""
    return int.from_bytes(data, "big")


def word_sum(data: bytes) -> int:
    """RFC 1071: 16-bit words with end-around carry; an odd octet is followed by zero."""
    total = 0
    for at in range(0, len(data), 2):
        total += number(data[at : at + 2].ljust(2, b"\0"))
        total = (total & 0xFFFF) + (total >> 16)
    return total


def datagram(frame: bytes) -> Datagram | None:
    """The UDP datagram in an untagged Ethernet frame, None if it is anything else, or in fragments, or wrong."""
    packet = frame[14:]
    if frame[12:14] == b"\x08\x00":
        return _of_ipv4(packet)
    return _of_ipv6(packet) if frame[12:14] == b"\x86\xdd" else None


def _of_ipv4(packet: bytes) -> Datagram | None:
    if len(packet) < 20:
        return None
    size, total = (packet[0] & 15) * 4, number(packet[2:4])
    sane = packet[0] >> 4 == 4 and size >= 20 and size <= total <= len(packet)
    if not sane or word_sum(packet[:size]) != 0xFFFF:
        return None
    if packet[9] != UDP or number(packet[6:8]) & 0x3FFF:  # more fragments, or an offset
        return None
    return _of_udp(packet[12:16], packet[16:20], packet[size:total], may_be_zero=True)


def _of_ipv6(packet: bytes) -> Datagram | None:
    if len(packet) < 40 or packet[0] >> 4 != 6 or packet[6] != UDP:
        return None
    end = 40 + number(packet[4:6])
    if end > len(packet):
        return None
    return _of_udp(packet[8:24], packet[24:40], packet[40:end], may_be_zero=False)


def _of_udp(src: bytes, dst: bytes, segment: bytes, *, may_be_zero: bool) -> Datagram | None:
    if len(segment) < 8 or number(segment[4:6]) != len(segment):
        return None
    if segment[6:8] == b"\0\0":
        right = may_be_zero
    else:
        right = word_sum(pseudo_header(src, dst, UDP, len(segment)) + segment) == 0xFFFF
    return Datagram(src, dst, number(segment[:2]), number(segment[2:4]), segment[8:]) if right else None


def pseudo_header(src: bytes, dst: bytes, protocol: int, length: int) -> bytes:
    """RFC 768 for addresses of 4 octets, RFC 8200 section 8.1 for 16."""
    if len(src) == 4:
        return src + dst + bytes((0, protocol)) + length.to_bytes(2, "big")
    return src + dst + length.to_bytes(4, "big") + bytes(3) + bytes((protocol,))


def solicitation(frame: bytes) -> tuple[bytes, bytes, bytes] | None:
    """(source, target, link-layer address or b"") of a right neighbour solicitation (RFC 4861 7.1.1), else None.

    Not checked, as in netpoll: that the destination of one from :: is a solicited-node address.
    """
    packet = frame[14:]
    if (
        frame[12:14] != b"\x86\xdd"
        or len(packet) < 64
        or packet[0] >> 4 != 6
        or packet[6] != ICMPV6
        or packet[7] != 255
    ):
        return None
    message = packet[40 : 40 + number(packet[4:6])]
    if len(message) < 24 or len(message) != number(packet[4:6]) or message[:2] != b"\x87\0":
        return None
    if word_sum(pseudo_header(packet[8:24], packet[24:40], ICMPV6, len(message)) + message) != 0xFFFF:
        return None
    address = _link_layer_address(message[24:])
    return None if address is None else (packet[8:24], message[8:24], address)


def _link_layer_address(options: bytes) -> bytes | None:
    """Of the first option that has one; b"" without; None if an option has no length or too much of it."""
    while options:
        if len(options) < 2 or not options[1] or options[1] * 8 > len(options):
            return None
        if options[0] in (1, 2) and options[1] == 1:
            return options[2:8]
        options = options[options[1] * 8 :]
    return b""


def repaired(frame: bytes) -> bytes:
    """`frame` with right checksums wherever there is room for them, so that a fuzzer need not guess them."""
    data = bytearray(frame)
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
        size = min(max((data[14] & 15) * 4, 20), len(data) - 14)
        _put(data, 24, bytes(data[14 : 14 + size]))
        end = min(14 + number(data[16:18]), len(data))
        _repair_upper(data, 14 + size, end, bytes(data[26:30]), bytes(data[30:34]), data[23])
    elif frame[12:14] == b"\x86\xdd" and len(frame) >= 54:
        end = min(54 + number(data[18:20]), len(data))
        _repair_upper(data, 54, end, bytes(data[22:38]), bytes(data[38:54]), data[20])
    return bytes(data)


def _repair_upper(data: bytearray, at: int, end: int, src: bytes, dst: bytes, protocol: int) -> None:
    where = {UDP: 6, ICMPV6: 2}.get(protocol)
    if where is None or end - at < 8 or (protocol == UDP and data[at + 6 : at + 8] == b"\0\0"):
        return  # a UDP checksum of zero stays zero
    _put(data, at + where, bytes(data[at:end]), pseudo_header(src, dst, protocol, end - at))


def _put(data: bytearray, field: int, covered: bytes, before: bytes = b"") -> None:
    """The checksum over `before` and `covered`, which contains the old one, into data[field:]."""
    old = bytes(data[field : field + 2])
    others = word_sum(before + covered) + (0xFFFF - number(old))
    others = (others & 0xFFFF) + (others >> 16)
    data[field : field + 2] = (0xFFFF - others or 0xFFFF).to_bytes(2, "big")
