"""Bytes of a frame as keys of a `wire frame` event; hostile bytes included."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest.netpoll.wire import ethernet, ipv4, ipv6, udp, vlan
from harness.observe.frames import frame_keys

SMAC, DMAC = bytes.fromhex("5254006e7001"), bytes.fromhex("525400686f01")
SRC, DST = bytes([198, 51, 100, 10]), bytes([198, 51, 100, 100])
SRC6, DST6 = bytes.fromhex("fe80" + 27 * "0" + "1"), bytes.fromhex("fe80" + 27 * "0" + "2")

# A netconsole datagram, "hello\n" from 198.51.100.10:6665 to 198.51.100.100:6666, written out by hand from RFC 791 and RFC 768.
GOLDEN = bytes.fromhex(
    "525400686f01 5254006e7001 0800"
    "4500 0022 0001 0000 40 11 25f5 c633640a c6336464"
    "1a09 1a0a 000e 330d 68656c6c6f0a".replace(" ", "")
)


def ethernet_frame(body: bytes, ethertype: int = ethernet.ETH_P_IP) -> bytes:
    buffer = bytearray(ethernet.HEADER_LEN)
    ethernet.emit(ethernet.Header(DMAC, SMAC, ethertype), buffer)
    return bytes(buffer) + body


def udp_datagram(
    payload: bytes, src: bytes, dst: bytes, checksum: int | None = None, length: int | None = None
) -> bytes:
    buffer = bytearray(udp.HEADER_LEN)
    value = udp.checksum(6665, 6666, payload, src, dst) if checksum is None else checksum
    udp.emit(udp.Header(6665, 6666, len(payload) + 8 if length is None else length, value), buffer)
    return bytes(buffer) + payload


def ipv4_packet(body: bytes, protocol: int = 17, **fields: Any) -> bytes:
    header = ipv4.Header(SRC, DST, protocol, 20 + len(body) + len(fields.get("options", b"")), **fields)
    buffer = bytearray(ipv4.buffer_len(header))
    ipv4.emit(header, buffer)
    return bytes(buffer) + body


def ipv6_packet(body: bytes, next_header: int = 17) -> bytes:
    buffer = bytearray(ipv6.HEADER_LEN)
    ipv6.emit(ipv6.Header(SRC6, DST6, next_header, len(body)), buffer)
    return bytes(buffer) + body


PLAIN = udp_datagram(b"hello\n", SRC, DST)
FRAME = ethernet_frame(ipv4_packet(PLAIN))
LINK = {"dmac": "52:54:00:68:6f:01", "smac": "52:54:00:6e:70:01"}
ADDRESSES = {"sip": "198.51.100.10", "dip": "198.51.100.100"}
UDP = {"sport": 6665, "dport": 6666, "udp_len": 14}
GOOD = {**LINK, "ethertype": 0x0800, **ADDRESSES, **UDP, "ip_csum": "ok", "csum": "ok"}


def broken(frame: bytes, offset: int) -> bytes:
    return frame[:offset] + bytes([frame[offset] ^ 0x55]) + frame[offset + 1 :]


CASES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "golden": (GOLDEN, GOOD),
    "netconsole": (FRAME, GOOD),
    "padded-to-60": (FRAME + bytes(60 - len(FRAME)), GOOD),
    "ip-options": (ethernet_frame(ipv4_packet(PLAIN, options=b"\1\1\1\1")), GOOD),
    "payload-damaged": (broken(FRAME, -1 + len(FRAME)), {**GOOD, "csum": "bad"}),
    "udp-checksum-damaged": (broken(FRAME, 40), {**GOOD, "csum": "bad"}),
    "ip-checksum-damaged": (broken(FRAME, 24), {**GOOD, "ip_csum": "bad"}),
    "ttl-damaged": (broken(FRAME, 22), {**GOOD, "ip_csum": "bad"}),
    "no-udp-checksum": (ethernet_frame(ipv4_packet(udp_datagram(b"hello\n", SRC, DST, checksum=0))), {**GOOD, "csum": "none"}),
    "first-fragment": (
        ethernet_frame(ipv4_packet(PLAIN, frag=0x2000)), {key: GOOD[key] for key in GOOD if key != "csum"}),
    "later-fragment": (
        ethernet_frame(ipv4_packet(PLAIN, frag=0x0010)), {**LINK, "ethertype": 0x0800, **ADDRESSES, "ip_csum": "ok"}),
    "tcp": (ethernet_frame(ipv4_packet(bytes(20), protocol=6)), {**LINK, "ethertype": 0x0800}),
    "tagged": (vlan.insert(FRAME, 7 << 13 | 42), {**GOOD, "vlan": 42}),
    "arp": (ethernet_frame(bytes(28), 0x0806), {**LINK, "ethertype": 0x0806}),
    "lacp": (ethernet_frame(bytes(110), 0x8809), {**LINK, "ethertype": 0x8809}),
    "ipv6": (
        ethernet_frame(ipv6_packet(udp_datagram(b"hello\n", SRC6, DST6)), 0x86DD),
        {**LINK, "ethertype": 0x86DD, "sip": "fe80::1", "dip": "fe80::2", **UDP, "csum": "ok"}),
    "ipv6-without-checksum": (
        ethernet_frame(ipv6_packet(udp_datagram(b"hello\n", SRC6, DST6, checksum=0)), 0x86DD),
        {**LINK, "ethertype": 0x86DD, "sip": "fe80::1", "dip": "fe80::2", **UDP, "csum": "bad"}),
    "ipv6-neighbour-discovery": (ethernet_frame(ipv6_packet(bytes(24), 58), 0x86DD), {**LINK, "ethertype": 0x86DD}),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "keys"), CASES.values(), ids=CASES)
def test_keys(frame: bytes, keys: dict[str, Any]) -> None:
    assert frame_keys(frame) == {"len": len(frame), **keys}


MALFORMED = {
    "empty": (b"", "ethernet: 14 octets needed"),
    "half-a-header": (FRAME[:9], "ethernet: 14 octets needed"),
    "no-ip": (FRAME[:14], "IPv4: 20 octets needed"),
    "cut-in-ip": (FRAME[:20], "IPv4: 20 octets needed"),
    "cut-in-udp": (FRAME[:40], "IPv4 payload"),
    "not-version-4": (ethernet_frame(b"\x65" + FRAME[15:]), "IPv4: version 6"),
    "udp-too-short": (ethernet_frame(ipv4_packet(b"\x1a\x09\x1a\x0a")), "UDP: 8 octets needed"),
    "udp-length-beyond": (ethernet_frame(ipv4_packet(udp_datagram(b"hi", SRC, DST, length=99))), "UDP payload"),
    "udp-length-below": (ethernet_frame(ipv4_packet(udp_datagram(b"hi", SRC, DST, length=3))), "UDP: length 3"),
    "tag-cut": (vlan.insert(FRAME, 42)[:16], "802.1Q tag"),
}


@pytest.mark.parametrize(("frame", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_frames_say_so(frame: bytes, words: str) -> None:
    keys = frame_keys(frame)
    assert words in keys["malformed"]
    assert keys.get("csum", "bad") == "bad"


def test_a_checksum_that_was_left_to_the_hardware() -> None:
    assert frame_keys(broken(FRAME, 40), partial=True)["csum"] == "partial"


def test_a_bad_header_checksum_does_not_hide_the_flow() -> None:
    keys = frame_keys(broken(FRAME, 24))
    assert (keys["sip"], keys["sport"], keys["csum"]) == ("198.51.100.10", 6665, "ok")


@given(st.binary(max_size=120), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise(data: bytes, partial: bool) -> None:
    assert frame_keys(data, partial)["len"] == len(data)


@given(st.sampled_from([FRAME, CASES["ipv6"][0], CASES["tagged"][0]]), st.data())
@settings(max_examples=300, deadline=None)
def test_no_damaged_frame_raises(frame: bytes, data: st.DataObject) -> None:
    damaged = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    keys = frame_keys(bytes(damaged))
    assert keys["len"] == len(damaged)
    assert keys.get("csum") in (None, "ok", "bad", "none")
