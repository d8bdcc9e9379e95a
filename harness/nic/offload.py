"""What the chip computes on frames: checksums both ways, and TCP segmentation.

In: a whole frame without FCS or VLAN tag. Out: frames. Rule: pure functions; a frame that is not what its descriptor says goes out
as it is, as hardware does. Sums are RFC 1071's (guest.netpoll.wire.checksum).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from guest.netpoll.wire.checksum import checksum, ones_sum, pseudo_sum

ETH = 14
IPV4, IPV6, VLAN = 0x0800, 0x86DD, 0x8100
TCP, UDP = 6, 17
_EXTENSIONS = (0, 43, 60)  # IPv6: hop-by-hop, routing, destination options
FIN, PSH, CWR = 0x01, 0x08, 0x80
_IPV4 = struct.Struct("!BxHxxHxB")  # version and header length, total length, fragment, protocol
_PLAIN, _LEAST = struct.Struct("!HBxHxxHxB"), 42  # the same behind its EtherType; bytes of Ethernet, IPv4 and UDP
_CHECK_AT = {TCP: 16, UDP: 6}


class Layers(NamedTuple):
    """Where IP and TCP or UDP are in a frame. `end` excludes Ethernet's padding."""

    version: int
    protocol: int
    l4: int
    end: int

    def pseudo(self, frame: bytes | bytearray) -> int:
        """Sum of the pseudo header."""
        source, target = (ETH + 12, ETH + 16) if self.version == 4 else (ETH + 8, ETH + 24)
        size = target - source
        return pseudo_sum(
            bytes(frame[source:target]), bytes(frame[target : target + size]), self.protocol, self.end - self.l4
        )

    def total(self, frame: bytes) -> int:
        """Sum over pseudo header and TCP or UDP; in one go where the addresses lie just before, as without options they do."""
        addresses = ETH + 12 if self.version == 4 else ETH + 8
        if self.l4 - addresses == (8 if self.version == 4 else 32):
            return (ones_sum(frame[addresses : self.end]) + self.protocol + self.end - self.l4) % 65535
        return (ones_sum(frame[self.l4 : self.end]) + self.pseudo(frame)) % 65535


def layers(frame: bytes | bytearray) -> Layers | None:
    """None unless the frame is unfragmented TCP or UDP over IP with all its bytes there."""
    if len(frame) < ETH + 20:
        return None
    kind = frame[12] << 8 | frame[13]
    found = _ipv4(frame) if kind == IPV4 else _ipv6(frame) if kind == IPV6 else None
    if found is None or found.end > len(frame) or found.l4 + _CHECK_AT[found.protocol] + 2 > found.end:
        return None
    return found


def _ipv4(frame: bytes | bytearray) -> Layers | None:
    first, length, fragment, protocol = _IPV4.unpack_from(frame, ETH)
    if not 0x45 <= first <= 0x4F or fragment & 0x3FFF or protocol not in _CHECK_AT:
        return None
    return Layers(4, protocol, ETH + 4 * (first & 0xF), ETH + length)


def _ipv6(frame: bytes | bytearray) -> Layers | None:
    if len(frame) < ETH + 40 or frame[ETH] >> 4 != 6:
        return None
    end, at, protocol = ETH + 40 + (frame[ETH + 4] << 8 | frame[ETH + 5]), ETH + 40, frame[ETH + 6]
    while protocol in _EXTENSIONS and at + 8 <= len(frame):
        protocol, at = frame[at], at + 8 * (frame[at + 1] + 1)
    return Layers(6, protocol, at, end) if protocol in _CHECK_AT else None


def fill_checksum(frame: bytes) -> bytes:
    """TCP or UDP checksum of a frame whose field holds the pseudo header's sum (TXD_FLAG_TCPUDP_CSUM)."""
    found = layers(frame)
    if found is None:
        return frame
    at = found.l4 + _CHECK_AT[found.protocol]
    value = checksum(frame[found.l4 : found.end]) or 0xFFFF  # 0 would mean none to UDP, and is the same to TCP
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]


def received_sums(frame: bytes) -> tuple[int, int, int] | None:
    """Of a received frame: IP version, protocol, and the sum over pseudo header and TCP or UDP, 0xffff when it is right. None where
    the chip would not look: no TCP or UDP, a fragment, or UDP without checksum."""
    found = layers(frame)
    if found is None or (found.protocol == UDP and frame[found.l4 + 6 : found.l4 + 8] == b"\0\0"):
        return None
    return found.version, found.protocol, found.total(frame) or 0xFFFF


def plain_sums(frame: bytes) -> tuple[int, int, int] | None:
    """Of a received frame that is IPv4 without options and TCP or UDP, as most are: the protocol, and what `ip_sum` and `received_sums`
    say of it, in a third of their time. None for any other: ask those."""
    if len(frame) < _LEAST:
        return None
    kind, first, length, fragment, protocol = _PLAIN.unpack_from(frame, ETH - 2)
    end = ETH + length
    if kind != IPV4 or first != 0x45 or fragment & 0x3FFF or end > len(frame):
        return None
    if (protocol == TCP and length >= 40) or (protocol == UDP and length >= 28 and frame[40:42] != b"\0\0"):
        sums = int.from_bytes(frame[26:end], "big") << (8 if length & 1 else 0)
        total = (sums + protocol + length - 20) % 65535
        return protocol, int.from_bytes(frame[ETH:34], "big") % 65535 or 0xFFFF, total or 0xFFFF
    return None


def segment(frame: bytes, mss: int, header: int) -> Iterator[bytes]:
    """TCP segmentation: frames of at most `mss` bytes of payload. `header`: length of the IP and TCP headers together.

    As linux/net/ipv4/tcp_offload.c does it in software: the sequence number advances, FIN and PSH stay with the last
    segment, CWR with the first; IPv4's identification counts up.
    """
    start = ETH + header
    version = frame[ETH] >> 4 if len(frame) > ETH else 0
    l4 = ETH + (4 * (frame[ETH] & 0xF) if version == 4 else 40)
    if version not in (4, 6) or mss == 0 or len(frame) <= start or start < l4 + 20:
        yield frame
        return
    payload = frame[start:]
    for number, at in enumerate(range(0, len(payload), mss)):
        piece = payload[at : at + mss]
        made = bytearray(frame[:start]) + piece
        _fix_tcp(made, l4, at, first=at == 0, last=at + mss >= len(payload))
        _fix_ip(made, version, l4, number)
        whole = Layers(version, TCP, l4, len(made))
        struct.pack_into("!H", made, l4 + 16, checksum(made[l4:], whole.pseudo(made)) or 0xFFFF)
        yield bytes(made)


def _fix_tcp(made: bytearray, l4: int, offset: int, first: bool, last: bool) -> None:
    sequence = struct.unpack_from("!I", made, l4 + 4)[0]
    struct.pack_into("!I", made, l4 + 4, (sequence + offset) & 0xFFFF_FFFF)
    if not last:
        made[l4 + 13] &= ~(FIN | PSH)
    if not first:
        made[l4 + 13] &= ~CWR
    made[l4 + 16 : l4 + 18] = b"\0\0"


def _fix_ip(made: bytearray, version: int, l4: int, number: int) -> None:
    if version == 6:
        struct.pack_into("!H", made, ETH + 4, len(made) - ETH - 40)
        return
    ident = struct.unpack_from("!H", made, ETH + 4)[0]
    struct.pack_into("!HH", made, ETH + 2, len(made) - ETH, (ident + number) & 0xFFFF)
    made[ETH + 10 : ETH + 12] = b"\0\0"
    struct.pack_into("!H", made, ETH + 10, checksum(made[ETH:l4]))


def fill_ip_checksum(frame: bytes) -> bytes:
    """IPv4's own checksum (TXD_FLAG_IP_CSUM)."""
    if len(frame) < ETH + 20 or frame[12:14] != b"\x08\x00":
        return frame
    done, end = bytearray(frame), ETH + 4 * (frame[ETH] & 0xF)
    done[ETH + 10 : ETH + 12] = b"\0\0"
    struct.pack_into("!H", done, ETH + 10, checksum(done[ETH:end]))
    return bytes(done)


def tag(frame: bytes, tci: int) -> bytes:
    """Insert an 802.1Q tag."""
    return frame[:12] + struct.pack("!HH", VLAN, tci) + frame[12:]


def untag(frame: bytes) -> tuple[bytes, int | None]:
    """The frame without its 802.1Q tag, and the tag's TCI."""
    if frame[12:14] == b"\x81\x00" and len(frame) >= 18:
        return frame[:12] + frame[16:], frame[14] << 8 | frame[15]
    return frame, None


def ip_sum(frame: bytes) -> int:
    """The sum over an IPv4 header, 0xffff when it is right."""
    return ones_sum(frame[ETH : ETH + 4 * (frame[ETH] & 0xF)]) or 0xFFFF
