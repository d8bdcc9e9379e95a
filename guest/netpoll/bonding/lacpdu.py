"""LACPDU and Marker PDU: the Slow Protocols' octets (IEEE 802.1AX-2014 6.4.2.3 and 6.5.3.3; 802.3ad clause 43).

In: the octets after the Ethernet header. Out: Lacpdu(actor, partner) or Marker. The one rule, from
6.4.2.3: version, TLV types and reserved fields of what is received are not validated (later versions
stay compatible that way); the subtype and the lengths are.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire.errors import Malformed, require
from guest.netpoll.wire.ethernet import ETH_P_SLOW
from guest.netpoll.wire.ethernet import Header as EthernetHeader
from guest.netpoll.wire.ethernet import emit as emit_ethernet

Octets = bytes | bytearray | memoryview

SLOW_MULTICAST = bytes.fromhex("0180c2000002")
SUBTYPE_LACP = 1
SUBTYPE_MARKER = 2
PDU_LEN = 110  # of both kinds
INFORMATION_LEN = 20
COLLECTOR_LEN = 16
MARKER_LEN = 16
MARKER_INFORMATION = 1
MARKER_RESPONSE = 2

# Port state, 6.4.2.3 i), lowest bit first
ACTIVITY = 0x01
TIMEOUT = 0x02  # set: short
AGGREGATION = 0x04
SYNCHRONIZATION = 0x08
COLLECTING = 0x10
DISTRIBUTING = 0x20
DEFAULTED = 0x40
EXPIRED = 0x80

STATE_NAMES = {
    ACTIVITY: "activity",
    TIMEOUT: "timeout",
    AGGREGATION: "aggregation",
    SYNCHRONIZATION: "synchronization",
    COLLECTING: "collecting",
    DISTRIBUTING: "distributing",
    DEFAULTED: "defaulted",
    EXPIRED: "expired",
}

_INFORMATION = Struct(">BBH6sHHHBxxx")  # type, length, system priority, system, key, port priority, port, state
_COLLECTOR = Struct(">BBH12x")
_HEAD = Struct(">BB")


@dataclass(frozen=True, slots=True)
class Information:
    """One end of a link: actor and partner TLV have this form."""

    system_priority: int
    system: bytes
    key: int
    port_priority: int
    port: int
    state: int


@dataclass(frozen=True, slots=True)
class Lacpdu:
    """`collector_max_delay` is in tens of microseconds."""

    actor: Information
    partner: Information
    collector_max_delay: int = 0
    version: int = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """`body` is what follows the TLV's type and length: port, system, transaction, padding; it is sent back."""

    response: bool
    body: bytes


def parse(data: Octets) -> Lacpdu | Marker:
    """The PDU at the start of `data`; raises Truncated, or Malformed also for a subtype that is neither."""
    require("slow protocol PDU", data, 2)
    if data[0] == SUBTYPE_LACP:
        return _parse_lacpdu(data)
    if data[0] == SUBTYPE_MARKER:
        return _parse_marker(data)
    raise Malformed(f"slow protocol subtype {data[0]}")


def _parse_lacpdu(data: Octets) -> Lacpdu:
    require("LACPDU", data, PDU_LEN)
    actor, partner = _information("actor", data, 2), _information("partner", data, 22)
    _, length, delay = _COLLECTOR.unpack_from(data, 42)
    if length != COLLECTOR_LEN:
        raise Malformed(f"LACPDU: length of the collector information is {length}, not {COLLECTOR_LEN}")
    return Lacpdu(actor, partner, delay, data[1])


def _information(what: str, data: Octets, at: int) -> Information:
    _, length, *values = _INFORMATION.unpack_from(data, at)
    if length != INFORMATION_LEN:
        raise Malformed(f"LACPDU: length of the {what} information is {length}, not {INFORMATION_LEN}")
    return Information(*values)


def _parse_marker(data: Octets) -> Marker:
    require("Marker PDU", data, PDU_LEN)
    kind, length = _HEAD.unpack_from(data, 2)
    if kind not in (MARKER_INFORMATION, MARKER_RESPONSE) or length != MARKER_LEN:
        raise Malformed(f"Marker PDU: TLV of type {kind} and length {length}")
    return Marker(kind == MARKER_RESPONSE, bytes(data[4 : 2 + MARKER_LEN]))


def emit(pdu: Lacpdu | Marker) -> bytes:
    """The PDU's 110 octets."""
    buf = bytearray(PDU_LEN)
    if isinstance(pdu, Marker):
        kind = MARKER_RESPONSE if pdu.response else MARKER_INFORMATION
        buf[: 4 + len(pdu.body)] = bytes((SUBTYPE_MARKER, 1, kind, MARKER_LEN)) + pdu.body
        return bytes(buf)
    _HEAD.pack_into(buf, 0, SUBTYPE_LACP, pdu.version)
    for number, at, side in ((1, 2, pdu.actor), (2, 22, pdu.partner)):
        fields = (side.system_priority, side.system, side.key, side.port_priority, side.port, side.state)
        _INFORMATION.pack_into(buf, at, number, INFORMATION_LEN, *fields)
    _COLLECTOR.pack_into(buf, 42, 3, COLLECTOR_LEN, pdu.collector_max_delay)
    return bytes(buf)


def frame(pdu: Lacpdu | Marker, source: bytes) -> bytes:
    """The whole Ethernet frame, 124 octets, from `source` to the Slow Protocols' group address."""
    buf = bytearray(14)
    emit_ethernet(EthernetHeader(SLOW_MULTICAST, source, ETH_P_SLOW), buf)
    return bytes(buf) + emit(pdu)


def state_text(state: int) -> str:
    """`activity+aggregation`; `-` for 0."""
    return "+".join(name for bit, name in STATE_NAMES.items() if state & bit) or "-"
