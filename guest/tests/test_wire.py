"""Codecs against frames of Linux 6.x, captured on a tap (checksums by the kernel), and against what is wrong.

Each golden frame goes both ways: parsed to the fields it is known to hold, and emitted from them to the
same octets. Each is then cut at every length, and must be refused with an error of its own tree.
"""

import ipaddress

import pytest

from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.wire import (
    BadChecksum,
    Malformed,
    Truncated,
    WireError,
    arp,
    checksum,
    ethernet,
    icmpv6,
    ipv4,
    ipv6,
    udp,
    vlan,
)

MAC1, MAC3 = bytes.fromhex("020000000001"), bytes.fromhex("020000000003")
IP1, IP2, IP3 = bytes([10, 9, 0, 1]), bytes([10, 9, 0, 2]), bytes([10, 9, 0, 3])
SIX1, SIX2, SIX3 = (ipaddress.ip_address(f"fd00::{n}").packed for n in (1, 2, 3))

UDP4 = bytes.fromhex(
    "020000000003020000000001080045000021c89c40004011"
    "5e1a0a0900010a0900031a091a0a000d73d968656c6c6f"
)  # fmt: skip
UDP4_OPTIONS = bytes.fromhex(
    "020000000003020000000001080046000027c89d40004011c90e0a0900010a090003"
    "940400001a091a0a000ff15e6f7074696f6e73"
)  # fmt: skip
ARP = bytes.fromhex(
    "ffffffffffff020000000001080600010800060400010200000000010a0900010000000000000a090002"
)  # fmt: skip
UDP6 = bytes.fromhex(
    "02000000000302000000000186dd60059520000d1140fd000000000000000000000000000001"
    "fd0000000000000000000000000000031a091a0a000d8de968656c6c6f"
)  # fmt: skip
SOLICIT = bytes.fromhex(
    "3333ff00000202000000000186dd6000000000203afffd000000000000000000000000000001"
    "ff0200000000000000000001ff00000287007d9700000000fd0000000000000000000000000000020101020000000001"
)  # fmt: skip
PROBE = bytes.fromhex(
    "3333ff00000102000000000186dd6000000000203aff00000000000000000000000000000000"
    "ff0200000000000000000001ff0000018700f07100000000fe80000000000000000000fffe0000010e01e3e5dc88be3b"
)  # fmt: skip


def test_udp_over_ipv4() -> None:
    eth = ethernet.parse(UDP4)
    ip = ipv4.parse(ethernet.payload(UDP4))
    segment = ipv4.payload(ethernet.payload(UDP4))
    header = udp.parse(segment)
    udp.verify(segment, ip.src, ip.dst)

    assert eth == ethernet.Header(MAC3, MAC1, ethernet.ETH_P_IP)
    assert ip == ipv4.Header(IP1, IP3, 17, 33, ttl=64, ident=0xC89C, frag=0x4000)
    assert header == udp.Header(6665, 6666, 13, 0x73D9)
    assert bytes(udp.payload(segment)) == b"hello"
    assert udp.checksum(6665, 6666, b"hello", IP1, IP3) == 0x73D9

    out = bytearray(len(UDP4))
    at = udp.emit(header, out, ipv4.emit(ip, out, ethernet.emit(eth, out)))
    out[at:] = b"hello"
    assert bytes(out) == UDP4


def test_ipv4_options() -> None:
    ip = ipv4.parse(UDP4_OPTIONS[14:])
    assert ip.options == bytes.fromhex("94040000")
    assert bytes(udp.payload(ipv4.payload(UDP4_OPTIONS[14:]))) == b"options"
    out = bytearray(ipv4.buffer_len(ip))
    assert ipv4.emit(ip, out) == 24
    assert bytes(out) == UDP4_OPTIONS[14:38]


def test_udp_over_ipv6() -> None:
    ip = ipv6.parse(UDP6[14:])
    segment = ipv6.payload(UDP6[14:])
    udp.verify(segment, ip.src, ip.dst)
    assert ip == ipv6.Header(SIX1, SIX3, 17, 13, hop_limit=64, flow_label=0x59520)
    assert bytes(udp.payload(segment)) == b"hello"
    out = bytearray(40)
    assert ipv6.emit(ip, out) == 40
    assert bytes(out) == UDP6[14:54]


def test_arp() -> None:
    request = arp.parse(ARP[14:])
    assert request == arp.Packet(arp.ARPOP_REQUEST, MAC1, IP1, bytes(6), IP2)
    out = bytearray(28)
    assert arp.emit(request, out) == arp.buffer_len(request) == 28
    assert bytes(out) == ARP[14:]


def test_neighbour_solicitation() -> None:
    message = icmpv6.parse(SOLICIT[54:], SIX1, icmpv6.solicited_node(SIX2))
    assert message == icmpv6.Neighbour(icmpv6.NDISC_NEIGHBOUR_SOLICITATION, SIX2, MAC1)
    out = bytearray(icmpv6.buffer_len(message))
    icmpv6.emit(message, SIX1, icmpv6.solicited_node(SIX2), out)
    assert bytes(out) == SOLICIT[54:]


def test_neighbour_probe_with_a_nonce_option_has_no_link_layer_address() -> None:
    ip = ipv6.parse(PROBE[14:])
    assert icmpv6.parse(PROBE[54:], ip.src, ip.dst).lladdr == b""


def test_vlan() -> None:
    tagged = vlan.insert(UDP4, 0xA007)
    assert ethernet.parse(tagged).ethertype == ethernet.ETH_P_8021Q
    tag = vlan.parse(ethernet.payload(tagged))
    assert tag == vlan.Header(priority=5, drop_eligible=0, vid=7, ethertype=ethernet.ETH_P_IP)
    assert bytes(vlan.payload(ethernet.payload(tagged))) == UDP4[14:]
    out = bytearray(4)
    assert vlan.emit(tag, out) == 4
    assert out == tagged[14:18]


@pytest.mark.parametrize("golden", [UDP4, UDP6], ids=["ipv4", "ipv6"])
def test_frame_template_sends_what_the_kernel_sends(golden: bytes) -> None:
    """Apart from the fields that netpoll sets differently: DF, TTL, flow label, identification."""
    four = golden is UDP4
    addresses = ("10.9.0.1", "10.9.0.3") if four else ("fd00::1", "fd00::3")
    local, remote = (ipaddress.ip_address(a) for a in addresses)
    frame = make_frame(Endpoints(MAC1, MAC3, local, remote, 6665, 6666)).build(b"hello")
    assert len(frame) == len(golden)
    assert frame[-13:] == golden[-13:]  # UDP, checksum included: it spans the addresses too
    assert frame[:14] == golden[:14]
    (ipv4 if four else ipv6).parse(frame[14:])


# -- what must be refused ---------------------------------------------------------------------------

PARSERS = {
    "ethernet": (ethernet.parse, UDP4[:14]),
    "vlan": (vlan.parse, b"\xa0\x07\x08\x00"),
    "arp": (arp.parse, ARP[14:]),
    "ipv4": (ipv4.parse, UDP4[14:]),
    "ipv4 options": (ipv4.parse, UDP4_OPTIONS[14:]),
    "ipv6": (ipv6.parse, UDP6[14:]),
    "udp": (udp.parse, UDP4[34:]),
    "icmpv6": (lambda data: icmpv6.parse(data, SIX1, icmpv6.solicited_node(SIX2)), SOLICIT[54:]),
}


@pytest.mark.parametrize("name", PARSERS)
def test_every_truncation_is_refused(name: str) -> None:
    parse, whole = PARSERS[name]
    parse(whole)
    for size in range(len(whole)):
        # ICMPv6 has no length of its own: cut, its checksum no longer matches
        with pytest.raises(BadChecksum if name == "icmpv6" and size >= 24 else Truncated):
            parse(whole[:size])


def patched(data: bytes, at: int, value: bytes, *, fix: bool = False) -> bytes:
    """`data` with octets replaced; with `fix`, its IPv4 header checksum computed anew."""
    out = bytearray(data)
    out[at : at + len(value)] = value
    if fix:
        size = (out[0] & 15) * 4
        out[10:12] = bytes(2)
        out[10:12] = checksum.checksum(out[:size]).to_bytes(2, "big")
    return bytes(out)


IP = UDP4[14:]
REFUSED = {
    "ipv4 version 5": (ipv4.parse, patched(IP, 0, b"\x55", fix=True), Malformed),
    "ipv4 ihl 4": (ipv4.parse, patched(IP, 0, b"\x44", fix=True), Malformed),
    "ipv4 ihl beyond data": (ipv4.parse, patched(IP, 0, b"\x4f"), Truncated),
    "ipv4 checksum": (ipv4.parse, patched(IP, 10, b"\x00\x00"), BadChecksum),
    "ipv4 total length beyond data": (ipv4.parse, patched(IP, 2, b"\x00\x22", fix=True), Truncated),
    "ipv4 total length inside header": (ipv4.parse, patched(IP, 2, b"\x00\x13", fix=True), Malformed),
    "ipv6 version 4": (ipv6.parse, patched(UDP6[14:], 0, b"\x40"), Malformed),
    "ipv6 payload beyond data": (ipv6.parse, patched(UDP6[14:], 4, b"\x00\x0e"), Truncated),
    "udp length 7": (udp.parse, patched(UDP4[34:], 4, b"\x00\x07"), Malformed),
    "udp length beyond data": (udp.parse, patched(UDP4[34:], 4, b"\x00\x0e"), Truncated),
    "arp for token ring": (arp.parse, patched(ARP[14:], 0, b"\x00\x04"), Malformed),
    "arp for ipx": (arp.parse, patched(ARP[14:], 2, b"\x81\x37"), Malformed),
    "arp with 16-octet addresses": (arp.parse, patched(ARP[14:], 5, b"\x10"), Malformed),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    parse, data, error = REFUSED[case]
    with pytest.raises(error):
        parse(data)
    assert issubclass(error, WireError)


def solicitation(options: bytes) -> bytes:
    """A solicitation with these options and a right checksum."""
    data = bytearray(SOLICIT[54:78] + options)
    data[2:4] = bytes(2)
    initial = checksum.pseudo_sum(SIX1, SIX2, 58, len(data))
    data[2:4] = checksum.checksum(data, initial).to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("options", "error"),
    [(bytes(8), Malformed), (b"\x01", Truncated), (b"\x01\x02" + bytes(6), Truncated)],
    ids=["length 0 would loop for ever", "half a header", "longer than the message"],
)
def test_neighbour_options_refused(options: bytes, error: type[WireError]) -> None:
    with pytest.raises(error):
        icmpv6.parse(solicitation(options), SIX1, SIX2)


def test_neighbour_discovery_has_no_codes() -> None:
    data = bytearray(solicitation(b""))
    data[1] = 1
    with pytest.raises(Malformed, match="type 135 code 1 is not neighbour discovery"):
        icmpv6.parse(bytes(data), SIX1, SIX2)


UDP_CHECKSUMS = [
    ("right", UDP4[34:], (IP1, IP3), True),
    ("padded", UDP4[34:] + bytes(5), (IP1, IP3), True),
    ("not computed", patched(UDP4[34:], 6, bytes(2)), (IP1, IP3), True),
    ("not computed over ipv6", patched(UDP6[54:], 6, bytes(2)), (SIX1, SIX3), False),
    ("payload changed", patched(UDP4[34:], 8, b"H"), (IP1, IP3), False),
    ("other destination", UDP4[34:], (IP1, IP2), False),
]


@pytest.mark.parametrize(("_name", "data", "ends", "good"), UDP_CHECKSUMS, ids=[c[0] for c in UDP_CHECKSUMS])
def test_udp_verify(_name: str, data: bytes, ends: tuple[bytes, bytes], good: bool) -> None:
    if good:
        udp.verify(data, *ends)
    else:
        with pytest.raises(BadChecksum):
            udp.verify(data, *ends)


def test_a_computed_checksum_of_zero_is_sent_as_ffff() -> None:
    """Found by search: this payload makes the sum come out even."""
    for filler in range(0x10000):
        payload = filler.to_bytes(2, "big")
        if (checksum.pseudo_sum(IP1, IP3, 17, 10) + 6665 + 6666 + 10 + filler) % 65535 == 0:
            break
    assert udp.checksum(6665, 6666, payload, IP1, IP3) == 0xFFFF


@pytest.mark.parametrize("addresses", [("10.9.0.1", "10.9.0.3"), ("fd00::1", "fd00::3")], ids=["ipv4", "ipv6"])
def test_so_is_one_that_a_frame_template_computes(addresses: tuple[str, str]) -> None:
    """0 would mean "none", which IPv6 forbids. Of all payloads of two octets one or two come out even."""
    local, remote = (ipaddress.ip_address(a) for a in addresses)
    template = make_frame(Endpoints(MAC1, MAC3, local, remote, 6665, 6666))
    checks = [template.build(filler.to_bytes(2, "big"))[-4:-2] for filler in range(0x10000)]
    assert b"\xff\xff" in checks
    assert b"\0\0" not in checks


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes.fromhex("0001f203f4f5f6f7"), 0x220D),  # RFC 1071 section 3: sum ddf2
        (b"\xff\xff", 0x0000),
        (b"\x01", 0xFEFF),  # odd: padded behind
        (b"", 0x0000),
    ],
    ids=["rfc 1071", "all ones", "odd", "empty"],
)
def test_checksum(data: bytes, expected: int) -> None:
    assert checksum.checksum(data) == expected


MACS = [
    ("52:54:00:12:34:56", bytes.fromhex("525400123456")),
    ("2:0:0:0:0:F", bytes.fromhex("02000000000f")),
    ("52:54:00:12:34", None),
    ("52:54:00:12:34:56:78", None),
    ("52:54:00:12:34:", None),
    ("52:54:00:12:34:567", None),
    ("52:54:00:12:34:+5", None),
    ("52-54-00-12-34-56", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "mac"), MACS, ids=[m[0] for m in MACS])
def test_parse_mac(text: str, mac: bytes | None) -> None:
    if mac is None:
        with pytest.raises(Malformed):
            ethernet.parse_mac(text)
    else:
        assert ethernet.parse_mac(text) == mac
        assert ethernet.parse_mac(ethernet.format_mac(mac)) == mac
