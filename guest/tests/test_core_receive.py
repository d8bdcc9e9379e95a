"""netpoll_rx(): what is consumed, what passes on, what is eaten while trapped."""

from __future__ import annotations

import ipaddress
import random

import pytest

from guest.netpoll import Netpoll, netpoll_cleanup, netpoll_send_udp, netpoll_set_trap, netpoll_setup, netpoll_trap, rx
from guest.netpoll.core import RxHook
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.rx import MAX_FLOWS
from guest.netpoll.skbuff import PACKET_OTHERHOST, SkBuff, eth_type_trans, skb_get
from guest.netpoll.wire import checksum, ethernet, ipv4, ipv6, udp, vlan
from guest.tests.wired import RECEIVER, SENDER, SIX_A, SIX_B, Wired, inject, wired, wired6

PEER_MAC = bytes.fromhex("020000000001")


def frame4(payload: bytes = b"data") -> bytearray:
    """A frame that the receiver of `wired` takes."""
    mac = bytes.fromhex("020000000002")
    ends = Endpoints(PEER_MAC, mac, SENDER.ip, RECEIVER.ip, 6665, 6666)
    return bytearray(make_frame(ends).build(payload))


def frame6(payload: bytes = b"data") -> bytearray:
    mac = bytes.fromhex("020000000002")
    ends = Endpoints(PEER_MAC, mac, SIX_A.ip, SIX_B.ip, 6665, 6666)
    return bytearray(make_frame(ends).build(payload))


def put(frame: bytearray, at: int, value: bytes, *, fix_ip: bool = True, fix_udp: bool = False) -> bytes:
    """Replace octets; make the header checksum right again, and the UDP one if asked."""
    frame[at : at + len(value)] = value
    ihl = max(20, (frame[14] & 15) * 4)
    if fix_ip:
        frame[24:26] = bytes(2)
        frame[24:26] = checksum.checksum(frame[14 : 14 + ihl]).to_bytes(2, "big")
    if fix_udp:
        at, size = 14 + ihl, int.from_bytes(frame[16:18], "big") - ihl
        frame[at + 6 : at + 8] = bytes(2)
        initial = checksum.pseudo_sum(bytes(frame[26:30]), bytes(frame[30:34]), 17, size)
        value = checksum.checksum(frame[at : at + size], initial).to_bytes(2, "big")
        frame[at + 6 : at + 8] = value
    return bytes(frame)


def options4() -> bytes:
    """The same with a router alert option in the IPv4 header."""
    frame = frame4()
    frame[34:34] = bytes.fromhex("94040000")
    frame[16:18] = (36).to_bytes(2, "big")
    return put(frame, 14, b"\x46")


CONSUMED = {
    "plain": bytes(frame4()),
    "padded to 60 octets": bytes(frame4()) + bytes(14),
    "ip options": options4(),
    "no udp checksum": put(frame4(), 40, bytes(2)),
    "empty payload": bytes(frame4(b"")),
    "any source port": put(frame4(), 34, b"\x12\x34", fix_udp=True),
    "any source mac": bytes(frame4()[:6]) + bytes.fromhex("0a0b0c0d0e0f") + bytes(frame4()[12:]),
    "broadcast mac": b"\xff" * 6 + bytes(frame4()[6:]),
    "don't fragment": put(frame4(), 20, b"\x40\x00"),
    "ttl 1": put(frame4(), 22, b"\x01"),
}


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "non-NAPI"])
@pytest.mark.parametrize("case", CONSUMED)
def test_consumed(case: str, napi: bool) -> None:
    """The second time the flow is known, and takes the short way."""
    wire = wired(napi=napi)
    for _ in range(2):
        assert inject(wire, CONSUMED[case]) == []
    assert wire.payloads() == [b"" if case == "empty payload" else b"data"] * 2
    assert wire.rx.stats.received == 2


def put_len(frame: bytearray, total: int) -> bytearray:
    """Set the total length of the IP header."""
    frame[16:18] = total.to_bytes(2, "big")
    return frame


PASSED_ON = {
    "arp": bytes(frame4()[:12]) + b"\x08\x06" + bytes(46),
    "802.3": put(frame4(), 12, b"\x00\x26", fix_ip=False),
    "vlan tagged": vlan.insert(bytes(frame4()), 7),
    "another host's": bytes.fromhex("020000000009") + bytes(frame4()[6:]),
    "runt": bytes(frame4()[:20]),
    "ihl 4": put(frame4(), 14, b"\x44"),
    "version 5": put(frame4(), 14, b"\x55"),
    "options cut off": put(bytearray(frame4()[:34]), 14, b"\x4f", fix_ip=False),
    "header checksum": put(frame4(), 24, b"\x00\x00", fix_ip=False),
    "total length beyond the frame": put(frame4(), 16, b"\x00\x21", fix_udp=False),
    "total length inside the header": put(frame4(), 16, b"\x00\x13"),
    "total length inside udp": put(frame4(), 16, b"\x00\x1b"),
    "tcp": put(frame4(), 23, b"\x06"),
    "first fragment": put(frame4(), 20, b"\x20\x00"),
    "later fragment": put(frame4(), 20, b"\x00\x01"),
    "udp length short": put(frame4(), 38, b"\x00\x0b"),
    "udp length long": put(frame4(), 38, b"\x00\x0d"),
    "udp length under 8": put(put_len(frame4(), 27), 38, b"\x00\x07\x00\x00"),  # without a checksum to catch it
    "both lengths beyond the frame": put(put_len(frame4(), 33), 38, b"\x00\x0d\x00\x00"),
    "udp checksum": put(frame4(), 40, b"\xde\xad"),
    "payload changed": put(frame4(), 42, b"D"),
    "another address": put(frame4(), 33, b"\x03", fix_udp=True),
    "another peer": put(frame4(), 29, b"\x09", fix_udp=True),
    "another port": put(frame4(), 36, b"\x00\x07", fix_udp=True),
}


@pytest.mark.parametrize("known", [False, True], ids=["new flow", "known flow"])
@pytest.mark.parametrize("case", PASSED_ON)
def test_passed_on(case: str, known: bool) -> None:
    """2.6.12 took the wrong checksums and the fragments for its own."""
    wire = wired()
    if known:
        inject(wire, CONSUMED["plain"])
        wire.got.clear()
    assert inject(wire, PASSED_ON[case]) == [PASSED_ON[case]]
    assert wire.got == []


def test_a_known_flow_goes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again, too, when its route has changed and its frames come with another time to live."""
    wire = wired()
    near, far = (put(frame4(), 22, ttl) for ttl in (b"\x40", b"\x3f"))
    inject(wire, near)
    inject(wire, far)
    monkeypatch.setattr(rx, "_netpoll_rx", lambda *_: pytest.fail("the long way"))
    inject(wire, far)
    assert wire.payloads() == [b"data"] * 3


def test_a_known_flow_takes_what_a_new_one_takes() -> None:
    """Its way is short; any frame has the same fate on both. Half of them have their checksums made right again."""
    seeded = random.Random(42)
    fates = set()
    for _ in range(2000):
        at, value = seeded.randrange(12, 46), seeded.randbytes(seeded.choice((1, 1, 2)))
        frame = put(frame4(), at, value, fix_ip=seeded.random() < 0.5, fix_udp=seeded.random() < 0.5 and at > 33)
        new, known = wired(), wired()
        inject(known, CONSUMED["plain"])
        known.got.clear()
        fate = inject(new, frame), list(new.got)
        assert (inject(known, frame), known.got) == fate, frame.hex()
        fates.add(bool(new.got))
    assert fates == {True, False}


@pytest.mark.parametrize("case", PASSED_ON)
def test_eaten_while_trapped(case: str) -> None:
    wire = wired()
    netpoll_set_trap(wire.net, 1)
    assert inject(wire, PASSED_ON[case]) == []
    assert wire.got == []
    netpoll_set_trap(wire.net, -1)
    assert inject(wire, PASSED_ON[case]) == [PASSED_ON[case]]


def test_a_wrong_udp_checksum_is_counted() -> None:
    wire = wired()
    inject(wire, PASSED_ON["udp checksum"])
    assert wire.b.stats["rx_csum_errors"] == 1


def test_a_checksum_that_the_device_vouches_for_is_not_computed() -> None:
    """A local sender leaves it half done (CHECKSUM_PARTIAL); the driver says so."""
    wire = wired()
    skb = SkBuff(PASSED_ON["udp checksum"])
    eth_type_trans(skb, wire.b)
    skb.ip_summed = 1
    assert wire.info(wire.b).netpoll_rx(skb)
    assert wire.payloads() == [b"data"]


@pytest.mark.parametrize("known", [False, True], ids=["new flow", "known flow"])
def test_a_shared_frame_is_left_alone(known: bool) -> None:
    wire = wired()
    if known:
        inject(wire, CONSUMED["plain"])
    skb = SkBuff(bytes(frame4()))
    eth_type_trans(skb, wire.b)
    assert not wire.info(wire.b).netpoll_rx(skb_get(skb))
    assert skb.users == 2


def test_ethernet_only() -> None:
    wire = wired()
    wire.b.type = 32  # InfiniBand
    assert inject(wire, CONSUMED["plain"]) == [CONSUMED["plain"]]


# -- over IPv6 ----------------------------------------------------------------------------------------


PASSED_ON6 = {
    "runt": bytes(frame6()[:60]),
    "version 4": put(frame6(), 14, b"\x40", fix_ip=False),
    "payload length beyond the frame": put(frame6(), 18, b"\x00\x0d", fix_ip=False),
    "extension header": put(frame6(), 20, b"\x00", fix_ip=False),
    "no udp checksum": put(frame6(), 60, bytes(2), fix_ip=False),
    "udp checksum": put(frame6(), 60, b"\xde\xad", fix_ip=False),
    "udp length": put(frame6(), 58, b"\x00\x0b", fix_ip=False),
    "payload of 7": put(frame6(), 18, b"\x00\x07", fix_ip=False),
}


def test_ipv6_both_ways() -> None:
    wire = wired6()
    assert inject(wire, bytes(frame6())) == []
    assert wire.got == [(6665, b"data")]
    netpoll_send_udp(wire.rx, b"odd")
    sent = wire.a.rx_ring[0]
    ip = ipv6.parse(sent[14:])
    udp.verify(ipv6.payload(sent[14:]), ip.src, ip.dst)
    assert bytes(udp.payload(ipv6.payload(sent[14:]))) == b"odd"


@pytest.mark.parametrize("payload", [b"", b"x", bytes(1452)], ids=["empty", "odd", "all the MTU holds"])
def test_ipv6_message_sizes(payload: bytes) -> None:
    """The second time the flow is known. Padding behind the packet is no part of it."""
    wire = wired6()
    for _ in range(2):
        assert inject(wire, bytes(frame6(payload)) + bytes(3)) == []
    assert wire.payloads() == [payload] * 2


@pytest.mark.parametrize("case", PASSED_ON6)
def test_ipv6_passed_on(case: str) -> None:
    wire = wired6()
    assert inject(wire, PASSED_ON6[case]) == [PASSED_ON6[case]]
    assert wire.got == []


# -- several clients ----------------------------------------------------------------------------------


def listener(wire: Wired, hook: RxHook, **fields: object) -> Netpoll:
    """Another receiving client on the receiver's device."""
    np = Netpoll(wire.net, "more", dev_name="wire1", rx_hook=hook)
    for name, value in ({"remote_ip": SENDER.ip, "local_port": 6666} | fields).items():
        setattr(np, name, value)
    netpoll_setup(np)
    return np


def test_every_client_that_matches_gets_the_frame() -> None:
    """The slides' TODO: "allow more than one netpoll client to register an rx hook"."""
    heard: list[str] = []
    wire = wired()
    listener(wire, lambda *_: heard.append("same"))
    listener(wire, lambda *_: heard.append("port 7"), local_port=7)
    listener(wire, lambda *_: heard.append("any port"), local_port=0)
    listener(wire, lambda *_: heard.append("any peer"), remote_ip=ipaddress.ip_address("0.0.0.0"))
    listener(wire, lambda *_: heard.append("other peer"), remote_ip=ipaddress.ip_address("10.0.0.9"))
    assert inject(wire, CONSUMED["plain"]) == []
    assert wire.payloads() == [b"data"]
    assert heard == ["same", "any port", "any peer"]


def test_cleanup_of_one_leaves_the_other() -> None:
    heard: list[bytes] = []
    wire = wired()
    inject(wire, CONSUMED["plain"])
    listener(wire, lambda _np, _source, data: heard.append(data))
    inject(wire, CONSUMED["plain"])
    netpoll_cleanup(wire.rx)
    inject(wire, CONSUMED["plain"])
    assert (wire.payloads(), heard) == ([b"data"] * 2, [b"data"] * 2)


def test_flows_are_remembered_up_to_a_bound() -> None:
    """Nobody fills our memory by sending from every port."""
    wire = wired()
    for port in range(1, 2 * MAX_FLOWS):
        inject(wire, put(frame4(), 34, port.to_bytes(2, "big"), fix_udp=True))
    assert wire.rx.stats.received == 2 * MAX_FLOWS - 1
    assert len(wire.info(wire.b).flows) <= MAX_FLOWS


def test_a_hook_may_clean_its_own_client_up() -> None:
    wire = wired()
    wire.rx.rx_hook = lambda np, _source, _data: netpoll_cleanup(np)
    assert inject(wire, CONSUMED["plain"]) == []
    assert inject(wire, CONSUMED["plain"]) == [CONSUMED["plain"]]


def test_a_hook_that_raises_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    wire = wired()

    def broken(_np: Netpoll, _source: int, _data: bytes) -> None:
        raise ZeroDivisionError

    wire.rx.rx_hook = broken
    assert inject(wire, CONSUMED["plain"]) == []
    assert inject(wire, CONSUMED["plain"]) == []
    assert wire.rx.stats.hook_errors == 2
    assert "rx: rx_hook failed" in caplog.text


def test_the_frame_is_there_while_the_hook_runs() -> None:
    wire = wired()
    macs: list[bytes] = []

    def hook(np: Netpoll, _source: int, _data: bytes) -> None:
        assert np.rx_skb is not None
        macs.append(bytes(np.rx_skb.data[6:12]))

    wire.rx.rx_hook = hook
    inject(wire, CONSUMED["plain"])
    assert macs == [PEER_MAC]
    assert wire.rx.rx_skb is None


def test_a_client_that_only_sends_takes_nothing() -> None:
    wire = wired()
    netpoll_cleanup(wire.rx)
    netpoll_setup(Netpoll(wire.net, "sender", dev_name="wire1", remote_ip=SENDER.ip))
    netpoll_set_trap(wire.net, 1)
    assert inject(wire, CONSUMED["plain"]) == [CONSUMED["plain"]]


def test_what_arrives_while_netpoll_polls_is_netpolls_or_eaten() -> None:
    """RX_DROP: the context of a poll is none in which the rest of a stack could take a frame."""
    wire = wired(tx_ring=1, rx_hook=lambda _np, _source, data: heard.append(data))
    heard: list[bytes] = []
    passed: list[SkBuff] = []
    wire.net.ptype_all.append(passed.append)
    netpoll_send_udp(wire.tx, b"fills the ring")
    wire.a.hardware_receive(PASSED_ON["tcp"])
    wire.a.hardware_receive(reply_to_a())
    netpoll_send_udp(wire.tx, b"polls")
    assert heard == [b"reply"]
    assert passed == []
    assert wire.a.stats["rx_trapped"] == 1
    assert netpoll_trap(wire.net) == 0


def reply_to_a() -> bytes:
    ends = Endpoints(bytes.fromhex("020000000002"), PEER_MAC, RECEIVER.ip, SENDER.ip, 6666, 6665)
    return make_frame(ends).build(b"reply")


def test_an_untrap_too_many_is_an_error() -> None:
    wire = wired()
    with pytest.raises(ValueError, match="without netpoll_set_trap"):
        netpoll_set_trap(wire.net, -1)
    assert netpoll_trap(wire.net) == 0


def test_other_hosts_frames_are_not_parsed_at_all() -> None:
    wire = wired()
    skb = SkBuff(bytes(frame4()), wire.b, ethernet.ETH_P_IP)
    skb.pkt_type = PACKET_OTHERHOST
    assert not wire.info(wire.b).netpoll_rx(skb)
    assert ipv4.parse(bytes(skb.data[14:])).dst == RECEIVER.ip.packed  # it would have matched
