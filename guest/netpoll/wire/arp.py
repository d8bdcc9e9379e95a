"""ARP for IPv4 over Ethernet (RFC 826).

In: the octets after the Ethernet header. Out: Packet. Only hardware types 1 (Ethernet) and 6 (IEEE 802)
with 6-octet addresses and protocol IPv4 with 4-octet ones are accepted, as netpoll's arp_reply() does.
"""

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire.errors import Malformed, require

HEADER_LEN = 28
ARPHRD_ETHER = 1
ARPHRD_IEEE802 = 6
ARPOP_REQUEST = 1
ARPOP_REPLY = 2

_LAYOUT = Struct(">HHBBH6s4s6s4s")
_ETH_P_IP = 0x0800


@dataclass(frozen=True, slots=True)
class Packet:
    """Sender and target: `sha`/`tha` 6 octets, `spa`/`tpa` 4 octets."""

    operation: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes
    hardware: int = ARPHRD_ETHER


def check_len(data: bytes | bytearray | memoryview) -> None:
    """Raise Truncated if the packet is not all there."""
    require("ARP", data, HEADER_LEN)


def parse(data: bytes | bytearray | memoryview) -> Packet:
    """The packet at the start of `data`; raises Truncated, Malformed. Padding after it is ignored."""
    check_len(data)
    hardware, protocol, hlen, plen, operation, sha, spa, tha, tpa = _LAYOUT.unpack_from(data)
    if hardware not in (ARPHRD_ETHER, ARPHRD_IEEE802) or hlen != 6:
        raise Malformed(f"ARP: hardware type {hardware} with {hlen}-octet addresses is not Ethernet")
    if protocol != _ETH_P_IP or plen != 4:
        raise Malformed(f"ARP: protocol {protocol:#06x} with {plen}-octet addresses is not IPv4")
    return Packet(operation, sha, spa, tha, tpa, hardware)


def buffer_len(_packet: Packet) -> int:
    """Always HEADER_LEN."""
    return HEADER_LEN


def emit(packet: Packet, buf: bytearray | memoryview, at: int = 0) -> int:
    """Write the packet at offset `at`; return the offset after it."""
    fixed = (packet.hardware, _ETH_P_IP, 6, 4, packet.operation)
    _LAYOUT.pack_into(buf, at, *fixed, packet.sha, packet.spa, packet.tha, packet.tpa)
    return at + HEADER_LEN
