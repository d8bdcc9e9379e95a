"""xmit_hash_policy: the kernel's formulas, worked out by hand and spelled out a second way; hostile frames."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.bonding.hash import bond_xmit_hash
from guest.netpoll.bonding.params import XmitPolicy

L2, L23, L34 = XmitPolicy.LAYER2, XmitPolicy.LAYER23, XmitPolicy.LAYER34


def eth(ethertype: int, dst5: int = 0x22, src5: int = 0x11) -> bytes:
    return bytes((2, 0, 0, 0, 0, dst5, 2, 0, 0, 0, 0, src5)) + ethertype.to_bytes(2, "big")


def ipv4(src: str, dst: str, payload: bytes, protocol: int = 17, frag: int = 0, ihl: int = 5) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x40 | ihl, 0, ihl * 4 + len(payload), 0, frag, 64, protocol, 0)
    return eth(0x0800) + head + ip_address(src).packed + ip_address(dst).packed + bytes(ihl * 4 - 20) + payload


def ipv6(src: str, dst: str, payload: bytes, protocol: int = 17) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
    return eth(0x86DD) + head + ip_address(src).packed + ip_address(dst).packed + payload


def ports(source: int, dest: int) -> bytes:
    return struct.pack(">HHHH", source, dest, 8, 0)


# 10.0.0.1 ^ 10.0.0.2 is 00 00 00 03 on the wire and 0x03000000 as a little-endian CPU loads it.
UDP4 = ipv4("10.0.0.1", "10.0.0.2", ports(6665, 6666))
GOLDEN = [
    ("layer2 IPv4", L2, UDP4, 0x22 ^ 0x11 ^ 0x0800),
    ("layer2 LACPDU", L2, eth(0x8809), 0x22 ^ 0x11 ^ 0x8809),
    # 0x00000833 ^ 0x03000000 = 0x03000833; ^>>16: 0x03000b33; ^>>8: 0x03030b38
    ("layer2+3 IPv4", L23, UDP4, 0x03030B38),
    # ports as loaded 1a 09 1a 0a -> 0x0a1a091a; ^ 0x03000000 = 0x091a091a; ^>>16: 0x091a0000; ^>>8: 0x09131a00; >>1
    ("layer3+4 IPv4", L34, UDP4, 0x09131A00 >> 1),
    ("layer3+4 not IP", L34, eth(0x0806) + bytes(28), 0x22 ^ 0x11 ^ 0x0806),
    ("layer2+3 not IP", L23, eth(0x88B5) + bytes(46), 0x22 ^ 0x11 ^ 0x88B5),
]


@pytest.mark.parametrize(("policy", "frame", "expected"), [case[1:] for case in GOLDEN], ids=[c[0] for c in GOLDEN])
def test_worked_out_by_hand(policy: XmitPolicy, frame: bytes, expected: int) -> None:
    assert bond_xmit_hash(frame, policy) == expected


def fold(value: int) -> int:
    value ^= value >> 16
    return value ^ (value >> 8)


def load(data: bytes) -> int:
    value = 0
    for (word,) in struct.iter_unpack("<I", data):
        value ^= word
    return value


LINUX = (Path(__file__).parent / "data" / "bonding_xmit_hash_linux_6.1.txt").read_text().splitlines()


@pytest.mark.parametrize(("column", "policy"), [(0, L2), (1, L23), (2, L34)], ids=["layer2", "layer2+3", "layer3+4"])
def test_linux_took_the_same_slave_of_three(column: int, policy: XmitPolicy) -> None:
    rows = [line.split() for line in LINUX if not line.startswith("#")]
    frames = [bytes.fromhex(row[3]).ljust(60, b"\0") for row in rows]
    assert len(frames) > 100
    assert [bond_xmit_hash(frame, policy) % 3 for frame in frames] == [int(row[column]) for row in rows]


FLOWS = [
    ("UDP", ipv4("10.1.2.3", "10.9.8.7", ports(5, 6)), load(ports(5, 6)[:4])),
    ("TCP", ipv4("10.1.2.3", "10.9.8.7", ports(50000, 80), protocol=6), load(ports(50000, 80)[:4])),
    ("options", ipv4("10.1.2.3", "10.9.8.7", ports(5, 6), ihl=7), load(ports(5, 6)[:4])),
    ("first fragment", ipv4("10.1.2.3", "10.9.8.7", ports(5, 6), frag=0x2000), 0),
    ("later fragment", ipv4("10.1.2.3", "10.9.8.7", ports(5, 6), frag=0x00B9), 0),
    ("DF is no fragment", ipv4("10.1.2.3", "10.9.8.7", ports(5, 6), frag=0x4000), load(ports(5, 6)[:4])),
    ("no ports", ipv4("10.1.2.3", "10.9.8.7", bytes(8), protocol=47), 0),
    ("ports cut off", ipv4("10.1.2.3", "10.9.8.7", b"\1\2\3"), 0),
    ("AH", ipv4("10.1.2.3", "10.9.8.7", bytes(4) + ports(9, 8), protocol=51), load(ports(9, 8)[:4])),
    ("echo", ipv4("10.1.2.3", "10.9.8.7", bytes((8, 0, 0, 0, 0x12, 0x34, 0, 1)), protocol=1), 8 | 0x1234 << 16),
    ("echo of id 0", ipv4("10.1.2.3", "10.9.8.7", bytes((8, 0, 0, 0, 0, 0, 0, 1)), protocol=1), 8 | 1 << 16),
]


@pytest.mark.parametrize(("frame", "l4"), [flow[1:] for flow in FLOWS], ids=[flow[0] for flow in FLOWS])
def test_layer34_takes_ports_where_there_are_any(frame: bytes, l4: int) -> None:
    assert bond_xmit_hash(frame, L34) == fold(l4 ^ load(frame[26:34])) >> 1


def test_icmp_error_is_hashed_as_the_flow_that_it_is_about() -> None:
    udp = ipv4("10.0.0.9", "10.0.0.7", ports(7, 9))
    error = ipv4("10.0.0.7", "10.0.0.9", bytes((3, 3, 0, 0, 0, 0, 0, 0)) + udp[14:], protocol=1)
    assert bond_xmit_hash(error, L34) == bond_xmit_hash(udp, L34)


def test_icmp_error_without_its_packet_is_hashed_by_layer2() -> None:
    error = ipv4("10.0.0.7", "10.0.0.9", bytes((3, 3, 0, 0, 0, 0, 0, 0)), protocol=1)
    assert bond_xmit_hash(error, L34) == bond_xmit_hash(error, L2)


def test_ipv6_folds_its_addresses_to_a_word() -> None:
    frame = ipv6("2001:db8::1", "2001:db8:1:2:3:4:5:6", ports(1000, 2000))
    assert bond_xmit_hash(frame, L34) == fold(load(ports(1000, 2000)[:4]) ^ load(frame[22:54])) >> 1
    assert bond_xmit_hash(frame, L23) == fold(0x22 ^ 0x11 ^ 0x86DD ^ load(frame[22:54]))


@pytest.mark.parametrize("policy", [L23, L34])
def test_both_directions_of_a_flow_hash_alike(policy: XmitPolicy) -> None:
    there = ipv4("10.0.0.1", "10.0.0.2", ports(7, 7))
    back = ipv4("10.0.0.2", "10.0.0.1", ports(7, 7))
    assert bond_xmit_hash(there, policy) == bond_xmit_hash(back, policy)


@pytest.mark.parametrize("slaves", [2, 3, 4, 8])
def test_flows_spread_evenly_over_the_slaves(slaves: int) -> None:
    seed = 20
    rng = random.Random(seed)
    counts = [0] * slaves
    total = 4000
    for _ in range(total):
        source = f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}"
        frame = ipv4(source, "10.0.0.2", ports(rng.randrange(32768, 61000), 6666))
        counts[bond_xmit_hash(frame, L34) % slaves] += 1
    assert min(counts) > 0.8 * total / slaves, f"{counts} with seed {seed}"


def test_even_ports_reach_both_of_two_slaves() -> None:
    """Why the kernel discards the lowest bit under layer3+4."""
    picks = {bond_xmit_hash(ipv4("10.0.0.1", "10.0.0.2", ports(port, 6666)), L34) % 2 for port in range(1024, 1056, 2)}
    assert picks == {0, 1}


@given(st.binary(max_size=120), st.sampled_from(list(XmitPolicy)))
def test_any_octets_give_32_bits(frame: bytes, policy: XmitPolicy) -> None:
    assert 0 <= bond_xmit_hash(frame, policy) < 1 << 32


@given(st.binary(max_size=90), st.sampled_from([0x0800, 0x86DD]), st.sampled_from(list(XmitPolicy)))
def test_any_packet_and_a_view_of_it_give_the_same(packet: bytes, ethertype: int, policy: XmitPolicy) -> None:
    frame = eth(ethertype) + packet
    assert bond_xmit_hash(memoryview(bytearray(frame)), policy) == bond_xmit_hash(frame, policy)
