"""Properties of the codecs, over inputs that hypothesis makes up: round trips, and refusal without surprise."""

import contextlib
import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.wire import WireError, arp, checksum, ethernet, icmpv6, ipv4, ipv6, udp, vlan

u16 = st.integers(0, 0xFFFF)
mac = st.binary(min_size=6, max_size=6)
ip4 = st.binary(min_size=4, max_size=4)
ip6 = st.binary(min_size=16, max_size=16)
payloads = st.binary(max_size=200)


def word_sum(data: bytes) -> int:
    """RFC 1071 as it is written: 16-bit words, end-around carry."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(payloads)
def test_checksum_equals_the_loop_over_words(data: bytes) -> None:
    expected = ~word_sum(data) & 0xFFFF
    if any(data):
        assert checksum.checksum(data) == expected
    whole = data + bytes(len(data) % 2) + checksum.checksum(data).to_bytes(2, "big")
    assert checksum.is_valid(whole)


@given(st.builds(ethernet.Header, mac, mac, u16))
def test_ethernet(header: ethernet.Header) -> None:
    buf = bytearray(20)
    assert ethernet.emit(header, buf, 3) == 17
    assert ethernet.parse(buf[3:]) == header


@given(st.builds(vlan.Header, st.integers(0, 7), st.integers(0, 1), st.integers(0, 4095), u16))
def test_vlan(header: vlan.Header) -> None:
    buf = bytearray(vlan.buffer_len(header))
    vlan.emit(header, buf)
    assert vlan.parse(buf) == header


@given(st.builds(arp.Packet, u16, mac, ip4, mac, ip4, st.sampled_from([1, 6])))
def test_arp(packet: arp.Packet) -> None:
    buf = bytearray(arp.buffer_len(packet))
    arp.emit(packet, buf)
    assert arp.parse(bytes(buf) + bytes(18)) == packet


@given(ip4, ip4, st.integers(0, 255), payloads, u16, u16, st.integers(0, 10))
def test_ipv4(src: bytes, dst: bytes, proto: int, data: bytes, ident: int, frag: int, words: int) -> None:
    options = bytes(4 * words)
    header = ipv4.Header(src, dst, proto, 20 + len(options) + len(data), 9, 1, ident, frag, options)
    buf = bytearray(ipv4.buffer_len(header))
    ipv4.emit(header, buf)
    packet = bytes(buf) + data + b"padding"
    assert ipv4.parse(packet) == header
    assert bytes(ipv4.payload(packet)) == data


@given(ip6, ip6, st.integers(0, 255), payloads, st.integers(0, 255), st.integers(0, 0xFFFFF))
def test_ipv6(src: bytes, dst: bytes, proto: int, data: bytes, tclass: int, label: int) -> None:
    header = ipv6.Header(src, dst, proto, len(data), 255, tclass, label)
    buf = bytearray(ipv6.buffer_len(header))
    ipv6.emit(header, buf)
    assert ipv6.parse(bytes(buf) + data) == header
    assert bytes(ipv6.payload(bytes(buf) + data + b"padding")) == data


@given(ip6, ip6, ip6, st.sampled_from([b"", bytes(range(6))]), st.sampled_from([135, 136]))
def test_neighbour(src: bytes, dst: bytes, target: bytes, lladdr: bytes, kind: int) -> None:
    message = icmpv6.Neighbour(kind, target, lladdr, 0x60000000)
    buf = bytearray(icmpv6.buffer_len(message))
    icmpv6.emit(message, src, dst, buf)
    assert icmpv6.parse(buf, src, dst) == message


@given(mac, mac, ip4 | ip6, st.data(), u16, u16, payloads)
def test_frame_template_parses_and_verifies(
    local_mac: bytes, remote_mac: bytes, src: bytes, data: st.DataObject, sport: int, dport: int, msg: bytes
) -> None:
    dst = data.draw(ip4 if len(src) == 4 else ip6)
    local, remote = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    template = make_frame(Endpoints(local_mac, remote_mac, local, remote, sport, dport))
    for _ in range(2):  # the identification counts on
        frame = template.build(msg)
    family = ipv4 if len(src) == 4 else ipv6
    header = family.parse(frame[14:])
    segment = family.payload(frame[14:])
    udp.verify(segment, header.src, header.dst)
    assert ethernet.parse(frame) == ethernet.Header(remote_mac, local_mac, template.protocol)
    assert (header.src, header.dst) == (src, dst)
    assert udp.parse(segment).checksum == udp.checksum(sport, dport, msg, src, dst)
    out = bytearray(template.header_len)
    at = ethernet.emit(ethernet.parse(frame), out)
    at = ipv4.emit(header, out, at) if isinstance(header, ipv4.Header) else ipv6.emit(header, out, at)
    udp.emit(udp.parse(segment), out, at)
    assert frame == bytes(out) + msg
    assert bytes(udp.payload(segment)) == msg
    assert len(frame) == template.header_len + len(msg)


PARSERS = [ethernet.parse, vlan.parse, arp.parse, ipv4.parse, ipv6.parse, udp.parse, ipv4.payload, ipv6.payload]


@pytest.mark.parametrize("parse", PARSERS, ids=lambda f: f"{f.__module__.rpartition('.')[2]}.{f.__name__}")
@given(data=st.binary(max_size=80))
def test_noise_is_parsed_or_refused(parse: object, data: bytes) -> None:
    assert callable(parse)
    with contextlib.suppress(WireError):
        parse(data)


@given(st.binary(max_size=80), ip6, ip6)
def test_noise_as_neighbour_discovery(data: bytes, src: bytes, dst: bytes) -> None:
    """With a checksum that matches, so that the options are reached."""
    if len(data) >= 4:
        whole = bytearray(b"\x87\x00\x00\x00" + data[4:])
        initial = checksum.pseudo_sum(src, dst, 58, len(whole))
        whole[2:4] = checksum.checksum(whole, initial).to_bytes(2, "big")
        data = bytes(whole)
    with contextlib.suppress(WireError):
        icmpv6.parse(data, src, dst)


@pytest.mark.parametrize("version", [4, 6])
def test_many_frames_together_are_what_they_are_one_by_one(version: int) -> None:
    rng = random.Random(version)
    local, remote = (ipaddress.ip_address(f"192.0.2.{n}" if version == 4 else f"2001:db8::{n}") for n in (1, 2))
    ends = Endpoints(bytes(range(6)), bytes(range(6, 12)), local, remote, 6665, 6666)
    messages = [
        rng.randbytes(rng.randint(0, 1400)) for _ in range(70000 if version == 4 else 100)
    ]  # over the identification's end
    single, together = make_frame(ends), make_frame(ends)
    wanted = [single.build(message) for message in messages]
    assert [*together.build_many(messages[:50]), *together.build_many(messages[50:])] == wanted


@pytest.mark.parametrize("headroom", [0, 12])
@pytest.mark.parametrize("size", [0, 1, 18, 19, 1400])
@pytest.mark.parametrize("version", [4, 6])
def test_a_run_of_frames_is_what_they_are_one_by_one(version: int, size: int, headroom: int) -> None:
    rng = random.Random(size)
    local, remote = (ipaddress.ip_address(f"192.0.2.{n}" if version == 4 else f"2001:db8::{n}") for n in (1, 2))
    ends = Endpoints(bytes(range(6)), bytes(range(6, 12)), local, remote, 6665, 6666)
    together, single = make_frame(ends), make_frame(ends)
    for count in (1, 64, 65530, 7) if size == 1 else (1, 64, 7):  # over the identification's end
        messages = [rng.randbytes(size) for _ in range(count)]
        run = together.build_run(messages, headroom)
        assert [run.frame(number) for number in range(run.count)] == [single.build(message) for message in messages]
        before = [run.first + number * run.stride - headroom for number in range(run.count)]
        assert {bytes(run.octets[at : at + headroom]) for at in before} == {bytes(headroom)}
        assert run.first + (run.count - 1) * run.stride + run.size == len(run.octets)


@pytest.mark.parametrize("size", [2, 3, 18, 19, 1472])
def test_a_run_with_every_checksum_there_is(size: int) -> None:
    """The last octet pairs count through all sums, so that some checksum is 0, and is sent as 65535; messages of 0 and of -0, too."""
    ends = Endpoints(
        bytes(6), bytes(6), ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2"), 6665, 6666
    )
    sums = random.Random(size).sample(range(65536), 500) if size > 100 else range(65536)
    check = int.from_bytes(make_frame(ends).build(bytes(size))[40:42])
    messages = [bytes(size - 2) + each.to_bytes(2) for each in (*sums, check, 65535 - check)] + [b"\xff" * size]
    if size & 1:
        messages = [message[1:] + b"\0" for message in messages]
    together, single = make_frame(ends), make_frame(ends)
    run = together.build_run(messages)
    assert [run.frame(number) for number in range(run.count)] == [single.build(message) for message in messages]
    assert 0xFFFF in {int.from_bytes(run.frame(number)[40:42]) for number in range(run.count)}


@pytest.mark.parametrize(("local", "remote", "at"), [("10.0.0.1", "10.0.0.2", 34), ("fd00::1", "fd00::2", 54)])
@given(messages=st.lists(st.binary(max_size=100), max_size=5))
def test_a_partial_checksum_is_what_a_device_completes(local: str, remote: str, at: int, messages: list[bytes]) -> None:
    """virtio 5.1.6.2: the sum from csum_start on, the field's own content included, goes to csum_offset."""
    ends = Endpoints(b"\2" * 6, b"\4" * 6, ipaddress.ip_address(local), ipaddress.ip_address(remote), 5, 7)
    whole = make_frame(ends).build_many(messages)
    for partial, wanted in zip(make_frame(ends).build_partial(messages), whole, strict=True):
        segment = partial[at:] + bytes(len(partial) % 2)
        total = sum(int.from_bytes(segment[i : i + 2]) for i in range(0, len(segment), 2))
        check = ~(total % 65535) & 0xFFFF or 0xFFFF
        assert partial[: at + 6] + check.to_bytes(2) + partial[at + 8 :] == wanted
