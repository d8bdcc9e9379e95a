"""bond_xmit_hash(): which slave a flow takes. The formulas are those of Linux 5.19 to 6.x on a little-endian machine.

In: a frame and a policy. Out: a number of 32 bits; the caller takes it modulo the usable slaves. The one
rule: the same flow gives the same number as in the kernel, so that both ends can be predicted.

  layer2    dst[5] ^ src[5] ^ ethertype                     bond_eth_hash()
  layer2+3  the former ^ dip ^ sip, then folded             bond_ip_hash()
  layer3+4  ports ^ dip ^ sip, folded, shifted right by 1   the lowest bit of ports is often even
  folded    h ^= h >> 16, h ^= h >> 8

Addresses and ports enter as the CPU loads them from the frame. IPv6 addresses are the xor of their four
words. Ports are those of TCP, UDP, UDP-Lite, DCCP, SCTP and ESP's SPI; AH's stands 4 octets further. A
fragment has no ports. An ICMP message with an identifier puts that in place of ports, an ICMP error the
flow of the packet that it quotes. What is not IP is hashed as layer2.

Before 5.19 layer2 took the ethertype in the machine's byte order; 2.6.12 had dst[5] ^ src[5] alone, and
2.6.13's layer3+4 was (sport ^ dport) ^ ((sip ^ dip) & 0xffff). Left out: VLAN tags that the kernel keeps
beside the frame; a tagged frame here has ethertype 0x8100.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from guest.netpoll.bonding.params import XmitPolicy
from guest.netpoll.wire.ethernet import ETH_P_IP, ETH_P_IPV6, HEADER_LEN

Octets = bytes | bytearray | memoryview

IPPROTO_ICMP = 1
IPPROTO_ICMPV6 = 58
_PORT_OFFSET = {6: 0, 17: 0, 33: 0, 50: 0, 51: 4, 132: 0, 136: 0}  # proto_ports_offset()
_ICMP_HEADER = 8
_ICMP_WITH_ID = {0, 8, 13, 14, 128, 129}  # icmp_has_id(), one table for both versions
_ICMP_ERRORS = {IPPROTO_ICMP: {3, 4, 5, 11, 12}, IPPROTO_ICMPV6: {1, 2, 3, 4}}  # icmp_is_err(), icmpv6_is_err()


@dataclass(frozen=True, slots=True)
class _Flow:
    """struct flow_keys, as far as the hash reads it."""

    addresses: int  # src ^ dst
    ports: int
    protocol: int | None  # None for a fragment
    at: int  # where the payload of the IP header begins


def bond_xmit_hash(frame: Octets, policy: XmitPolicy) -> int:
    """The hash of `frame` (from its Ethernet header on); 0 if it is no frame at all."""
    if len(frame) < HEADER_LEN:
        return 0
    ethertype = int.from_bytes(frame[12:14], "big")
    flow = None if policy is XmitPolicy.LAYER2 else _flow_dissect(frame, ethertype)
    eth = frame[5] ^ frame[11] ^ ethertype
    if flow is None:
        return eth
    if policy is XmitPolicy.LAYER34:
        return _fold(flow.ports ^ flow.addresses) >> 1
    return _fold(eth ^ flow.addresses)


def _fold(value: int) -> int:
    value ^= value >> 16
    return value ^ value >> 8


def _flow_dissect(frame: Octets, ethertype: int) -> _Flow | None:
    """bond_flow_dissect(): the flow that the frame belongs to; None if it is not of IP."""
    flow = _flow_ip(frame, ethertype, HEADER_LEN)
    if flow is None or flow.protocol not in _ICMP_ERRORS or len(frame) < flow.at + _ICMP_HEADER:
        return flow
    kind, code = frame[flow.at], frame[flow.at + 1]
    if kind in _ICMP_ERRORS[flow.protocol]:
        return _flow_ip(frame, ethertype, flow.at + _ICMP_HEADER)
    if kind not in _ICMP_WITH_ID:
        return flow
    ident = int.from_bytes(frame[flow.at + 4 : flow.at + 6], "big") or 1
    return replace(flow, ports=kind | code << 8 | ident << 16)


def _flow_ip(frame: Octets, ethertype: int, at: int) -> _Flow | None:
    """bond_flow_ip(): addresses, protocol and ports of the IP packet at `at`; None if there is none."""
    protocol: int | None
    if ethertype == ETH_P_IP and len(frame) >= at + 20:
        fragment = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF
        protocol = None if fragment else frame[at + 9]
        addresses, payload = _words(frame[at + 12 : at + 20]), at + (frame[at] & 15) * 4
    elif ethertype == ETH_P_IPV6 and len(frame) >= at + 40:
        protocol = frame[at + 6]
        addresses, payload = _words(frame[at + 8 : at + 40]), at + 40
    else:
        return None
    return _Flow(addresses, _ports(frame, protocol, payload), protocol, payload)


def _ports(frame: Octets, protocol: int | None, at: int) -> int:
    """__skb_flow_get_ports(): both ports as one word; 0 if the protocol has none or they are cut off."""
    if protocol not in _PORT_OFFSET:
        return 0
    at += _PORT_OFFSET[protocol]
    return _words(frame[at : at + 4]) if len(frame) >= at + 4 else 0


def _words(data: Octets) -> int:
    """The xor of the 32-bit words of `data`, as a little-endian CPU loads them."""
    value = 0
    for at in range(0, len(data), 4):
        value ^= int.from_bytes(data[at : at + 4], "little")
    return value
