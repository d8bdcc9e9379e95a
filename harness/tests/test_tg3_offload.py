"""What the tg3 model computes on frames: checksums and segmentation, against an independent reading of the RFCs."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest

from guest.netpoll.layout.bcm5787 import TX_HEADER_SHIFT, RxFlag, TxFlag
from harness.nic import offload
from harness.tests.tg3_rig import MAC, PEER, Driver

V4 = (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))
V6 = (bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("20010db8000000000000000000000002"))


def rfc1071(data: bytes) -> int:
    """The checksum word by word, as RFC 1071 writes it."""
    total = 0
    for high, low in zip(data[::2], [*data[1::2], *([0] if len(data) % 2 else [])], strict=True):
        total += high << 8 | low
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(version: int, protocol: int, length: int) -> bytes:
    source, target = V4 if version == 4 else V6
    return (
        source
        + target
        + (struct.pack("!BBH", 0, protocol, length) if version == 4 else struct.pack("!IHBB", length, 0, 0, protocol))
    )


def packet(version: int, protocol: int, l4: bytes, ident: int = 7) -> bytes:
    """An Ethernet frame around `l4`, IPv4's checksum right."""
    if version == 6:
        ip = struct.pack("!IHBB", 6 << 28, len(l4), protocol, 64) + V6[0] + V6[1]
        return MAC + PEER + b"\x86\xdd" + ip + l4
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), ident, 0x4000, 64, protocol, 0) + V4[0] + V4[1]
    ip = ip[:10] + struct.pack("!H", rfc1071(ip)) + ip[12:]
    return MAC + PEER + b"\x08\x00" + ip + l4


def udp(payload: bytes, check: int = 0) -> bytes:
    return struct.pack("!HHHH", 6665, 6666, 8 + len(payload), check) + payload


def tcp(payload: bytes, flags: int = 0x18, sequence: int = 0xFFFFFF00, options: bytes = b"", check: int = 0) -> bytes:
    return (
        struct.pack("!HHIIBBHHH", 1, 2, sequence, 9, (20 + len(options)) << 2, flags, 512, check, 0) + options + payload
    )


def right(version: int, protocol: int, l4: bytes) -> bool:
    return rfc1071(pseudo(version, protocol, len(l4)) + l4) == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [offload.TCP, offload.UDP])
@pytest.mark.parametrize("size", [0, 1, 2, 999, 1400])
def test_a_checksum_is_filled_in_as_linux_asks_for_it(version: int, protocol: int, size: int) -> None:
    """CHECKSUM_PARTIAL: the field holds the pseudo header's sum, not complemented."""
    data = random.Random(size).randbytes(size)
    l4 = udp(data) if protocol == offload.UDP else tcp(data)
    partial = ~rfc1071(pseudo(version, protocol, len(l4))) & 0xFFFF
    l4 = udp(data, partial) if protocol == offload.UDP else tcp(data, check=partial)
    at = 54 if version == 6 else 34
    driver = Driver()
    driver.send(packet(version, protocol, l4), flags=TxFlag.TCPUDP_CSUM)
    (sent,) = driver.wire.sent
    assert right(version, protocol, sent[at : at + len(l4)])
    driver.arrive(MAC + sent[6:])
    ((_, bd),) = driver.receive()
    assert bd[3] & RxFlag.TCPUDP_CSUM
    assert bd[4] & 0xFFFF == 0xFFFF


def test_a_udp_checksum_of_zero_is_sent_as_ones() -> None:
    l4 = udp(b"\0\0")
    rest = (~rfc1071(pseudo(4, 17, len(l4)) + l4)) & 0xFFFF
    l4 = udp(struct.pack("!H", ~rest & 0xFFFF))
    partial = ~rfc1071(pseudo(4, 17, len(l4))) & 0xFFFF
    done = offload.fill_checksum(packet(4, 17, l4[:6] + struct.pack("!H", partial) + l4[8:]))
    assert done[40:42] == b"\xff\xff"


NOT_LOOKED_AT = {
    "udp without checksum": packet(4, 17, udp(b"data")),
    "a fragment": packet(4, 17, udp(b"data", 1))[:20] + b"\x20\x00" + packet(4, 17, udp(b"data", 1))[22:],
    "icmp": packet(4, 1, b"\x08\x00" + bytes(30)),
    "arp": MAC + PEER + b"\x08\x06" + bytes(46),
    "cut short": packet(4, 6, tcp(b"data"))[:40],
    "a length that lies": packet(4, 17, udp(b"data", 1))[:16] + b"\xff\xff" + packet(4, 17, udp(b"data", 1))[18:],
    "nothing": MAC + PEER + b"\x08\x00",
}


@pytest.mark.parametrize("frame", NOT_LOOKED_AT.values(), ids=NOT_LOOKED_AT.keys())
def test_what_is_no_whole_tcp_or_udp_has_no_checksum_flag(frame: bytes) -> None:
    assert offload.received_sums(frame) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_short_way_says_what_the_long_one_says(seed: int) -> None:
    """Frames of any length, some with their checksums right, most with one octet of the headers changed."""
    rng = random.Random(seed)
    taken = 0
    for _ in range(200):
        data = rng.randbytes(rng.randint(0, 60))
        protocol, body = rng.choice([(17, udp(data, rng.randint(0, 1))), (6, tcp(data)), (1, udp(data))])
        frame = bytearray(packet(rng.choice([4, 4, 6]), protocol, body)) + bytes(rng.choice([0, 0, 7]))
        if rng.random() < 0.7:
            frame[rng.randrange(12, min(len(frame), 48))] = rng.choice(
                [0, 5, 6, 17, 40, 0x45, 0x46, rng.randrange(256)]
            )
        found = offload.plain_sums(bytes(frame))
        if found is not None:
            taken += 1
            version, of, total = offload.received_sums(bytes(frame)) or (0, 0, 0)
            assert found == (of, offload.ip_sum(bytes(frame)), total)
            assert version == 4
    assert taken > 20


@pytest.mark.parametrize("frame", NOT_LOOKED_AT.values(), ids=NOT_LOOKED_AT.keys())
def test_nor_does_the_short_way_take_it(frame: bytes) -> None:
    assert offload.plain_sums(frame) is None


@pytest.mark.parametrize("name", sorted(set(NOT_LOOKED_AT) - {"udp without checksum"}))
def test_nor_is_one_filled_in(name: str) -> None:
    assert offload.fill_checksum(NOT_LOOKED_AT[name]) == NOT_LOOKED_AT[name]


def test_a_wrong_checksum_is_left_to_the_host() -> None:
    driver = Driver()
    driver.arrive(packet(4, 17, udp(b"data", 0x1234)))
    ((_, bd),) = driver.receive()
    assert bd[3] & RxFlag.TCPUDP_CSUM
    assert bd[4] & 0xFFFF != 0xFFFF
    assert bd[4] >> 16 == 0xFFFF, "the IP header's is right"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("options", [b"", b"\x01\x01\x08\x0a" + b"\x11" * 8], ids=["bare", "timestamps"])
@pytest.mark.parametrize(("size", "mss"), [(1, 500), (500, 500), (501, 500), (14600, 1448), (64000, 1400)])
def test_segments_are_what_software_would_have_made(version: int, options: bytes, size: int, mss: int) -> None:
    data = random.Random(size).randbytes(size)
    header = (40 if version == 6 else 20) + 20 + len(options)
    whole = packet(version, 6, tcp(data, 0x99, options=options))  # CWR, ACK, PSH, FIN
    pieces = [whole[at : at + 1000] for at in range(0, len(whole), 1000)]  # as scattered as skb fragments
    driver = Driver()
    field = header >> 2 << TX_HEADER_SHIFT | mss
    driver.queue(pieces, TxFlag.CPU_PRE_DMA | TxFlag.CPU_POST_DMA, field)
    driver.bell()
    l4 = 54 if version == 6 else 34
    payloads, sequences = [], []
    for number, sent in enumerate(driver.wire.sent):
        end = l4 + 20 + len(options)
        length = struct.unpack_from("!H", sent, 18 if version == 6 else 16)[0] + (54 if version == 6 else 14)
        segment = sent[l4:length]
        assert right(version, 6, segment)
        payloads.append(sent[end:length])
        sequences.append(struct.unpack_from("!I", sent, l4 + 4)[0])
        last = number == len(driver.wire.sent) - 1
        assert sent[l4 + 13] == 0x10 | (0x80 if number == 0 else 0) | (0x09 if last else 0)
        if version == 4:
            assert rfc1071(sent[14:34]) == 0
            assert struct.unpack_from("!H", sent, 18)[0] == 7 + number
    assert b"".join(payloads) == data
    assert all(len(each) == mss for each in payloads[:-1])
    assert all((b - a) & 0xFFFFFFFF == mss for a, b in pairwise(sequences))


@pytest.mark.parametrize("seed", range(30))
def test_no_descriptor_makes_the_engine_fail(seed: int) -> None:
    rng, driver = random.Random(seed), Driver()
    for _ in range(100):
        flags = rng.getrandbits(16)
        driver.send(rng.randbytes(rng.randint(1, 1500)), flags=flags, mss=rng.getrandbits(16), vlan=rng.getrandbits(16))
    driver.send(MAC + PEER + b"\x88\xb5" + b"alive" * 20)
    assert driver.wire.sent[-1].endswith(b"alive" * 20)
