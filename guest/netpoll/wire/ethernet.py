"""Ethernet II header (IEEE 802.3 clause 3.2.6, type interpretation); no FCS, as drivers see frames.

In: a frame. Out: Header(dst, src, ethertype). An 802.3 length field (< 0x600) is kept as it is.
"""

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire.errors import Malformed, require

HEADER_LEN = 14
ADDR_LEN = 6
ETH_ZLEN = 60  # shortest frame on a real wire, without FCS
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
ETH_P_8021Q = 0x8100
ETH_P_IPV6 = 0x86DD
ETH_P_SLOW = 0x8809
BROADCAST = b"\xff" * 6

_LAYOUT = Struct(">6s6sH")


@dataclass(frozen=True, slots=True)
class Header:
    """Addresses are 6 octets each."""

    dst: bytes
    src: bytes
    ethertype: int


def check_len(data: bytes | bytearray | memoryview) -> None:
    """Raise Truncated if there is no room for the header."""
    require("ethernet", data, HEADER_LEN)


def parse(data: bytes | bytearray | memoryview) -> Header:
    """The header at the start of `data`; raises Truncated."""
    check_len(data)
    return Header(*_LAYOUT.unpack_from(data))


def buffer_len(_header: Header) -> int:
    """Always HEADER_LEN."""
    return HEADER_LEN


def emit(header: Header, buf: bytearray | memoryview, at: int = 0) -> int:
    """Write the header at offset `at`; return the offset after it."""
    _LAYOUT.pack_into(buf, at, header.dst, header.src, header.ethertype)
    return at + HEADER_LEN


def payload(data: bytes | bytearray | memoryview) -> memoryview:
    """What follows the header."""
    check_len(data)
    return memoryview(data)[HEADER_LEN:]


def is_multicast(addr: bytes) -> bool:
    """True for group addresses, broadcast included (I/G bit)."""
    return bool(addr[0] & 1)


def format_mac(addr: bytes) -> str:
    """`52:54:00:12:34:56`."""
    return bytes(addr).hex(":")


def parse_mac(text: str) -> bytes:
    """Six octets from six hexadecimal pairs (one or two digits each) between colons; raises Malformed."""
    parts = text.split(":")
    digits = set("0123456789abcdefABCDEF")
    if len(parts) != ADDR_LEN or not all(0 < len(part) <= 2 and set(part) <= digits for part in parts):
        raise Malformed(f"MAC address {text!r}: six hexadecimal octets between colons expected")
    return bytes(int(part, 16) for part in parts)
