"""Frames that a netpoll client must leave alone, and senders that are not who they say they are.

In: one connection's addresses, addresses that nobody has, a payload. Out: whole Ethernet frames, each right but for the one
thing that its kind names. Rule: the payload begins at the same octet in every kind, so that whoever is passed such a frame can
say which one it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any

from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.wire import arp, ethernet

PAYLOAD = 42  # octets before it: Ethernet's 14, then IPv4's 20 and UDP's 8, or ARP's 28 (what follows those is padding)
MORE_FRAGMENTS = 0x20  # of octet 20: RFC 791 section 3.1
IP_CHECK, UDP_CHECK = 24, 40


@dataclass(frozen=True, slots=True)
class Other:
    """Addresses that no endpoint of the testcase has."""

    ip: IPv4Address
    port: int
    mac: bytes

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Other:
        """As the plan gives them: `ip` and `mac` as text. Raises ValueError."""
        return cls(IPv4Address(plan["ip"]), int(plan["port"]), bytes.fromhex(str(plan["mac"]).replace(":", "")))


def forge(ends: Endpoints, part: str, other: Other) -> Endpoints:
    """The same connection with another sender: `part` is ip, port or mac. Raises KeyError."""
    field = {"ip": "local_ip", "port": "local_port", "mac": "local_mac"}[part]
    return replace(ends, **{field: getattr(other, part)})


def _fragment(frame: bytearray) -> None:
    """The first of several, though it is whole: the flag alone must keep a client from reading it."""
    frame[20] |= MORE_FRAGMENTS
    _set_check(frame, IP_CHECK, _check(frame, IP_CHECK) - (MORE_FRAGMENTS << 8))


def _bad_ip_checksum(frame: bytearray) -> None:
    _set_check(frame, IP_CHECK, _check(frame, IP_CHECK) ^ 0x5555)


def _bad_udp_checksum(frame: bytearray) -> None:
    """Never 0, which would say that there is none; neither 0xFFFF, which is the same in one's complement."""
    check = _check(frame, UDP_CHECK)
    _set_check(frame, UDP_CHECK, next(bad for bad in (check ^ 0x5555, check ^ 0x3333) if bad % 65535))


def _check(frame: bytearray, at: int) -> int:
    return int.from_bytes(frame[at : at + 2], "big")


def _set_check(frame: bytearray, at: int, value: int) -> None:
    """Modulo 65535, as one's complement goes."""
    frame[at : at + 2] = (value % 65535).to_bytes(2, "big")


_ELSEWHERE: dict[str, Callable[[Endpoints, Other], Endpoints]] = {
    "wrong-port": lambda ends, other: replace(ends, remote_port=other.port),
    "wrong-address": lambda ends, other: replace(ends, remote_ip=other.ip),
    "wrong-peer": lambda ends, other: forge(ends, "ip", other),
}
_DAMAGED: dict[str, Callable[[bytearray], None]] = {
    "bad-udp-checksum": _bad_udp_checksum,
    "bad-ip-checksum": _bad_ip_checksum,
    "fragment": _fragment,
}
KINDS = (*_ELSEWHERE, *_DAMAGED, "arp-request")


def strange_frame(kind: str, ends: Endpoints, other: Other, payload: bytes) -> bytes:
    """A frame that goes to the peer of `ends` and is not for its client. Raises KeyError for an unknown kind."""
    if kind == "arp-request":
        return _arp_request(ends, payload)
    if kind in _ELSEWHERE:
        return make_frame(_ELSEWHERE[kind](ends, other)).build(payload)
    frame = bytearray(make_frame(ends).build(payload))
    _DAMAGED[kind](frame)
    return bytes(frame)


def _arp_request(ends: Endpoints, payload: bytes) -> bytes:
    """Who has the peer's address? The payload is the padding, which nobody reads."""
    frame = bytearray(PAYLOAD)
    at = ethernet.emit(ethernet.Header(ethernet.BROADCAST, ends.local_mac, ethernet.ETH_P_ARP), frame)
    asked = arp.Packet(arp.ARPOP_REQUEST, ends.local_mac, ends.local_ip.packed, bytes(6), ends.remote_ip.packed)
    arp.emit(asked, frame, at)
    return bytes(frame) + payload
