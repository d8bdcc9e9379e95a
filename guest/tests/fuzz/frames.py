"""Frames as seeds: what each client of the fuzzed device would be sent, and what is none of theirs.

In: nothing. Out: whole frames, made by the stack's own templates and codecs, with a few as a kernel sent them. The
addresses are those that the targets set their clients up with.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from guest.netpoll.bonding import lacpdu
from guest.netpoll.bonding.port import PARTNER_ADMIN
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.middleware import pcapng_read
from guest.netpoll.netdevice import IPAddress
from guest.netpoll.wire import arp, ethernet, icmpv6, ipv4, ipv6, udp, vlan
from guest.tests.fuzz.reference import repaired

DATA = Path(__file__).parents[1] / "data"
CAPTURES = ("netconsole-debian-6.1.pcapng", "netconsole-debian-6.12.pcapng")
OUR_MAC, PEER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
LOCAL, OTHER, PEER = ("10.0.0.1", "10.0.0.3", "10.0.0.2")  # two addresses of ours, and the peer's
LOCAL4, PEER4 = ipaddress.ip_address(LOCAL).packed, ipaddress.ip_address(PEER).packed
LOCAL6, PEER6 = ipaddress.ip_address("fd00::1").packed, ipaddress.ip_address("fd00::2").packed


def udp_frame(dest: int, payload: bytes = b"hello", *, src: bytes = PEER4, dst: bytes = LOCAL4) -> bytes:
    """A datagram from the peer's port 6665, of the family of the addresses."""
    source, local = _address(src), _address(dst)
    return make_frame(Endpoints(PEER_MAC, OUR_MAC, source, local, 6665, dest)).build(payload)


def _address(packed: bytes) -> IPAddress:
    return ipaddress.ip_address(packed)


def arp_frame(target: bytes, operation: int = arp.ARPOP_REQUEST, hardware: int = 1) -> bytes:
    """The peer asks, by broadcast, who has `target`."""
    frame = bytearray(42)
    at = ethernet.emit(ethernet.Header(ethernet.BROADCAST, PEER_MAC, ethernet.ETH_P_ARP), frame)
    arp.emit(arp.Packet(operation, PEER_MAC, PEER4, bytes(6), target, hardware), frame, at)
    return bytes(frame) + bytes(18)


def neighbour_frame(target: bytes, src: bytes = PEER6, lladdr: bytes = PEER_MAC) -> bytes:
    """The peer solicits `target`; with src :: it detects duplicate addresses."""
    ask = icmpv6.Neighbour(icmpv6.NDISC_NEIGHBOUR_SOLICITATION, target, lladdr)
    group = icmpv6.solicited_node(target)
    size = icmpv6.buffer_len(ask)
    frame = bytearray(54 + size)
    at = ethernet.emit(ethernet.Header(b"\x33\x33" + group[12:], PEER_MAC, ethernet.ETH_P_IPV6), frame)
    at = ipv6.emit(ipv6.Header(src, group, icmpv6.IPPROTO_ICMPV6, size, 255), frame, at)
    icmpv6.emit(ask, src, group, frame, at)
    return bytes(frame)


def ipv4_frame(payload: bytes, **fields: int | bytes) -> bytes:
    """Any IPv4 packet from the peer to us; `fields` as of ipv4.Header."""
    header = ipv4.Header(PEER4, LOCAL4, **{"protocol": udp.IPPROTO_UDP, "total_len": 0, **fields})  # type: ignore[arg-type]  # a table's
    size = ipv4.buffer_len(header)
    header = ipv4.Header(PEER4, LOCAL4, **{"protocol": 17, **fields, "total_len": size + len(payload)})  # type: ignore[arg-type]  # same
    frame = bytearray(14 + size)
    ethernet.emit(ethernet.Header(OUR_MAC, PEER_MAC, ethernet.ETH_P_IP), frame)
    ipv4.emit(header, frame, 14)
    return bytes(frame) + payload


def datagram(payload: bytes, dest: int, check: int = 0) -> bytes:
    """UDP header and payload; a checksum of 0 is none."""
    header = bytearray(8)
    udp.emit(udp.Header(6665, dest, 8 + len(payload), check), header)
    return bytes(header) + payload


def mixed_frames() -> Iterator[bytes]:
    """One of each kind that a device sees: ours, others', damaged."""
    yield udp_frame(6666)
    yield udp_frame(6666, b"")
    yield udp_frame(514, b"<13>Oct 11 22:14:15 host app: text", dst=_packed(OTHER))
    yield udp_frame(6666, b"over six", src=PEER6, dst=LOCAL6)
    yield udp_frame(7, b"to nobody's port")
    yield udp_frame(6666, src=_packed("10.0.0.9"))
    yield vlan.insert(udp_frame(6666), 5)
    yield ipv4_frame(datagram(b"options", 6666), options=b"\x94\x04\x00\x00")
    yield ipv4_frame(datagram(b"first piece", 6666), frag=0x2000)
    yield ipv4_frame(b"another piece", frag=2)
    yield ipv4_frame(b"not udp", protocol=6)
    yield arp_frame(LOCAL4)
    yield arp_frame(_packed("10.0.0.9"))
    yield arp_frame(LOCAL4, operation=arp.ARPOP_REPLY)
    yield neighbour_frame(LOCAL6)
    yield neighbour_frame(LOCAL6, src=bytes(16), lladdr=b"")
    yield neighbour_frame(PEER6)
    yield lacpdu.frame(lacpdu.Lacpdu(PARTNER_ADMIN, PARTNER_ADMIN), PEER_MAC)
    yield udp_frame(6666)[:40]


NEAR_MISSES: tuple[tuple[str, int, str], ...] = (  # of a frame, what to change: where, to what
    ("IPv4: header of 16 octets", 14, "44"),
    ("IPv4: version 5", 14, "55"),
    ("IPv4: longer than the frame", 16, "00ff"),
    ("IPv4: shorter than its header", 16, "0013"),
    ("IPv4: TCP", 23, "06"),
    ("IPv4: more fragments", 20, "2000"),
    ("IPv4: don't fragment", 20, "4000"),
    ("IPv4: another's address", 30, "0a000009"),
    ("IPv4: UDP shorter than its header", 38, "0007"),
    ("IPv4: UDP shorter than IP", 38, "000c"),
    ("IPv4: UDP longer than IP", 38, "00ff"),
    ("IPv4: no UDP checksum", 40, "0000"),
    ("options: longer than the frame", 16, "00ff"),
    ("options: shorter than the header with them", 16, "0015"),
    ("IPv6: version 4", 14, "40"),
    ("IPv6: longer than the frame", 18, "00ff"),
    ("IPv6: UDP shorter than its header", 18, "0006"),
    ("IPv6: hop by hop", 20, "00"),
    ("IPv6: UDP longer than IPv6", 58, "00ff"),
    ("IPv6: no UDP checksum", 60, "0000"),
    ("neighbour: hop limit", 21, "fe"),
    ("neighbour: code", 55, "01"),
    ("neighbour: an advertisement", 54, "88"),
    ("neighbour: option without length", 79, "00"),
    ("neighbour: option too long", 79, "02"),
    ("neighbour: another option first", 78, "0e"),
)


def near_misses() -> Iterator[bytes]:
    """Good frames with one field changed and the checksums put right; tiny ones, too."""
    good = {
        "IPv4": udp_frame(6666),
        "options": ipv4_frame(datagram(b"options", 6666), options=b"\x94\x04\x00\x00"),
        "IPv6": udp_frame(6666, b"over six", src=PEER6, dst=LOCAL6),
        "neighbour": neighbour_frame(LOCAL6),
    }
    for what, at, value in NEAR_MISSES:
        frame, octets = good[what.partition(":")[0]], bytes.fromhex(value)
        yield repaired(frame[:at] + octets + frame[at + len(octets) :])
    for frame in good.values():
        yield repaired(frame + b"padding")
        yield b"\x02\xff" + frame[2:]  # to another's address
        yield frame[:-1]
        yield frame[:22] + b"\x3f" + frame[23:]  # a time to live that the checksum does not know of
    yield ipv4_frame(datagram(b"all options", 6666), options=b"\x01" * 40)
    yield ipv4_frame(b"\x1a\x09\x1a\x0a\0\6") + bytes(20)  # IP and UDP agree on less than a UDP header
    yield _without_checksum()


def _without_checksum() -> bytes:
    """Over IPv6, with a payload that makes the checksum come out as the 0 that means there is none."""
    frame = udp_frame(6666, b"\0\0", src=PEER6, dst=LOCAL6)
    return frame[:60] + b"\0\0" + frame[60:62]


def _packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def captured_frames(count: int = 4) -> Iterator[bytes]:
    """The first frames of each capture of a real kernel's netconsole."""
    for name in CAPTURES:
        for packet in islice(pcapng_read.read((DATA / name).read_bytes()), count):
            yield packet.data


def captured_payloads(step: int = 40) -> Iterator[list[bytes]]:
    """UDP payloads of each capture, some from all over it."""
    for name in CAPTURES:
        packets = list(pcapng_read.read((DATA / name).read_bytes()))
        yield [packet.data[42:] for packet in packets[::step]]
