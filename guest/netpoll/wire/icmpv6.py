"""Neighbour discovery (RFC 4861): the solicitation that asks for us, and the advertisement that answers.

In: the octets after the IPv6 header. Out: Neighbour. IPv6's counterpart of arp.py, for netpoll's answers
while trapped (netpoll_neigh_reply() in later kernels). Other ICMPv6 types are Malformed here.
"""

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire import checksum
from guest.netpoll.wire.errors import Malformed, require

HEADER_LEN = 24
IPPROTO_ICMPV6 = 58
NDISC_NEIGHBOUR_SOLICITATION = 135
NDISC_NEIGHBOUR_ADVERTISEMENT = 136
OPT_SOURCE_LL_ADDR = 1
OPT_TARGET_LL_ADDR = 2
FLAG_SOLICITED = 0x40000000
FLAG_OVERRIDE = 0x20000000

_LAYOUT = Struct(">BBHI16s")
_LL_OPTION = Struct(">BB6s")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """`type` 135 or 136, `target` 16 octets, `lladdr` the 6 octets of the link-layer option or b""."""

    type: int
    target: bytes
    lladdr: bytes = b""
    flags: int = 0


def check_len(data: bytes | bytearray | memoryview) -> None:
    """Raise Truncated if the fixed part is not all there."""
    require("neighbour discovery", data, HEADER_LEN)


def parse(data: bytes | bytearray | memoryview, src: bytes, dst: bytes) -> Neighbour:
    """The message in `data` between two 16-octet addresses; raises Truncated, Malformed, BadChecksum."""
    check_len(data)
    kind, code, _, flags, target = _LAYOUT.unpack_from(data)
    if kind not in (NDISC_NEIGHBOUR_SOLICITATION, NDISC_NEIGHBOUR_ADVERTISEMENT) or code:
        raise Malformed(f"ICMPv6: type {kind} code {code} is not neighbour discovery")
    checksum.verify("ICMPv6", data, checksum.pseudo_sum(src, dst, IPPROTO_ICMPV6, len(data)))
    return Neighbour(kind, target, _link_layer_option(data), flags)


def _link_layer_option(data: bytes | bytearray | memoryview) -> bytes:
    """The first link-layer address among the options; each option is length * 8 octets, never 0."""
    at = HEADER_LEN
    while at < len(data):
        require("neighbour discovery option", data, at + 2)
        kind, units = data[at], data[at + 1]
        if units == 0:
            raise Malformed("neighbour discovery: an option of length 0")
        require("neighbour discovery option", data, at + units * 8)
        if kind in (OPT_SOURCE_LL_ADDR, OPT_TARGET_LL_ADDR) and units == 1:
            return bytes(data[at + 2 : at + 8])
        at += units * 8
    return b""


def buffer_len(message: Neighbour) -> int:
    """Octets with the link-layer option, if there is one."""
    return HEADER_LEN + (_LL_OPTION.size if message.lladdr else 0)


def emit(message: Neighbour, src: bytes, dst: bytes, buf: bytearray | memoryview, at: int = 0) -> int:
    """Write the message, checksum computed, at offset `at`; return the offset after it."""
    end = at + buffer_len(message)
    _LAYOUT.pack_into(buf, at, message.type, 0, 0, message.flags, message.target)
    if message.lladdr:
        solicit = message.type == NDISC_NEIGHBOUR_SOLICITATION
        option = OPT_SOURCE_LL_ADDR if solicit else OPT_TARGET_LL_ADDR
        _LL_OPTION.pack_into(buf, at + HEADER_LEN, option, 1, message.lladdr)
    initial = checksum.pseudo_sum(src, dst, IPPROTO_ICMPV6, end - at)
    buf[at + 2 : at + 4] = checksum.checksum(buf[at:end], initial).to_bytes(2, "big")
    return end


def solicited_node(target: bytes) -> bytes:
    """The multicast group that solicitations for `target` go to (RFC 4291 section 2.7.1)."""
    return b"\xff\x02" + bytes(9) + b"\x01\xff" + target[13:]
