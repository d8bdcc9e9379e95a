"""A captured frame as keys of the `wire frame` event.

In: the bytes of an Ethernet frame, whatever they are. Out: `len`, `dmac`, `smac`, `ethertype`, `vlan` where there is a tag, and
for UDP over IPv4 or IPv6 `sip`, `dip`, `sport`, `dport`, `udp_len`, `csum`, `ip_csum`. Rule: never raises; what cannot be
what it claims to be says so under `malformed` and keeps the keys that could be read before that.

`csum` is ok, bad, none (0: not computed, which IPv4 allows) or partial (the kernel says that the NIC was to compute it, as
between virtio peers); a datagram whose length is wrong is bad, one in fragments has no `csum`. `ip_csum` is ok or bad; IPv6
has none.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from guest.netpoll.wire import BadChecksum, WireError, checksum, ethernet, ipv4, ipv6, udp, vlan

FRAGMENT = 0x3FFF  # more fragments, or an offset: RFC 791 section 3.1
OFFSET = 0x1FFF

Keys = dict[str, Any]
ADDRESSES = (
    256  # whose words are remembered; a case has a handful, a guest that makes them up gets no more of our memory
)


@lru_cache(ADDRESSES)
def _mac(address: bytes) -> str:
    return ethernet.format_mac(address)


@lru_cache(ADDRESSES)
def _ip4(address: bytes) -> str:
    return str(IPv4Address(address))


@lru_cache(ADDRESSES)
def _ip6(address: bytes) -> str:
    return str(IPv6Address(address))


def frame_keys(frame: bytes, partial: bool = False) -> Keys:
    """Describe `frame`. `partial`: the kernel marked its checksum as not yet computed (TP_STATUS_CSUMNOTREADY)."""
    keys: Keys = {"len": len(frame)}
    try:
        _ethernet(memoryview(frame), keys, partial)
    except WireError as error:
        keys["malformed"] = str(error)
    return keys


def _ethernet(frame: memoryview, keys: Keys, partial: bool) -> None:
    header = ethernet.parse(frame)
    keys["dmac"], keys["smac"] = _mac(header.dst), _mac(header.src)
    keys["ethertype"], data = header.ethertype, ethernet.payload(frame)
    if header.ethertype == ethernet.ETH_P_8021Q:
        tag = vlan.parse(data)
        keys["vlan"], keys["ethertype"], data = tag.vid, tag.ethertype, vlan.payload(data)
    if keys["ethertype"] == ethernet.ETH_P_IP:
        _ipv4(data, keys, partial)
    elif keys["ethertype"] == ethernet.ETH_P_IPV6:
        _ipv6(data, keys, partial)


def _ipv4(data: memoryview, keys: Keys, partial: bool) -> None:
    try:
        header, state = ipv4.parse(data), "ok"
    except BadChecksum:
        header, state = ipv4.parse(_mended(data)), "bad"
    if header.protocol != ipv4.IPPROTO_UDP:
        return
    keys |= {"sip": _ip4(header.src), "dip": _ip4(header.dst), "ip_csum": state}
    if header.frag & OFFSET:
        return  # a later fragment: no UDP header
    body = data[ipv4.buffer_len(header) : header.total_len]
    whole = not header.frag & FRAGMENT
    _udp(body, header.src, header.dst, keys, partial, whole)


def _mended(data: memoryview) -> bytes:
    """The packet with a right header checksum, so that the rest of a damaged header can be read."""
    packet = bytearray(data)
    size = (packet[0] & 15) * 4
    packet[10:12] = bytes(2)
    packet[10:12] = checksum.checksum(packet[:size]).to_bytes(2, "big")
    return bytes(packet)


def _ipv6(data: memoryview, keys: Keys, partial: bool) -> None:
    header = ipv6.parse(data)
    if header.next_header != udp.IPPROTO_UDP:
        return
    keys |= {"sip": _ip6(header.src), "dip": _ip6(header.dst)}
    _udp(ipv6.payload(data), header.src, header.dst, keys, partial, whole=True)


def _udp(data: memoryview, src: bytes, dst: bytes, keys: Keys, partial: bool, whole: bool) -> None:
    udp.check_len(data)
    keys["sport"], keys["dport"] = int.from_bytes(data[0:2], "big"), int.from_bytes(data[2:4], "big")
    keys["udp_len"] = int.from_bytes(data[4:6], "big")
    if whole:
        keys["csum"] = "partial" if partial else _checksum(data, src, dst, keys)


def _checksum(data: memoryview, src: bytes, dst: bytes, keys: Keys) -> str:
    try:
        udp.verify(data, src, dst)
    except BadChecksum:
        return "bad"
    except WireError as error:
        keys["malformed"] = str(error)
        return "bad"
    return "ok" if bytes(data[6:8]) != bytes(2) else "none"
