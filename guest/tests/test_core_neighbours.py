"""netpoll_rx() while trapped: ARP requests and neighbour solicitations are answered."""

from __future__ import annotations

import ipaddress

import pytest

from guest.netpoll import netpoll_send_udp, netpoll_set_trap
from guest.netpoll.drivers.loopback import LoopbackDevice
from guest.netpoll.netdevice import IFF_NOARP
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.wire import arp, ethernet, icmpv6, ipv6
from guest.tests.wired import RECEIVER, SENDER, SIX_A, SIX_B, Wired, inject, wired, wired6

ASKER = bytes.fromhex("0a0b0c0d0e0f")  # not the peer that the client is configured for


def arp_request(target: str = "10.0.0.2", **fields: int) -> bytes:
    packet = arp.Packet(arp.ARPOP_REQUEST, ASKER, SENDER.ip.packed, bytes(6), ipaddress.ip_address(target).packed)
    frame = bytearray(42)
    ethernet.emit(ethernet.Header(ethernet.BROADCAST, ASKER, ethernet.ETH_P_ARP), frame)
    arp.emit(packet, frame, 14)
    for name, value in fields.items():
        at = {"hardware": 14, "protocol": 16, "operation": 20}[name]
        frame[at : at + 2] = value.to_bytes(2, "big")
    return bytes(frame)


def watch(end: LoopbackDevice) -> list[bytes]:
    """Record what reaches an end of the wire."""
    seen: list[bytes] = []
    real = end.hardware_receive

    def record(frame: bytes) -> None:
        seen.append(frame)
        real(frame)

    end.hardware_receive = record  # type: ignore[method-assign]  # a tap on the cable
    return seen


def answers(wire: Wired, frame: bytes) -> list[bytes]:
    """What goes back over the wire for `frame`, while trapped."""
    seen = watch(wire.a)
    netpoll_set_trap(wire.net, 1)
    assert inject(wire, frame) == []
    netpoll_set_trap(wire.net, -1)
    return seen


def test_arp_is_answered_to_who_asked_while_trapped() -> None:
    """2.6.12 answered to the MAC address that the client was configured with."""
    (frame,) = answers(wired(), arp_request())
    reply = arp.parse(frame[14:])
    assert ethernet.parse(frame) == ethernet.Header(ASKER, bytes.fromhex("020000000002"), ethernet.ETH_P_ARP)
    assert reply == arp.Packet(
        arp.ARPOP_REPLY, bytes.fromhex("020000000002"), RECEIVER.ip.packed, ASKER, SENDER.ip.packed
    )


def test_arp_is_the_stacks_while_not_trapped() -> None:
    wire = wired()
    seen = watch(wire.a)
    assert inject(wire, arp_request()) == [arp_request()]
    assert seen == []


NOT_ANSWERED = {
    "another address": arp_request("10.0.0.3"),
    "loopback": arp_request("127.0.0.1"),
    "multicast": arp_request("224.0.0.1"),
    "a reply": arp_request(operation=2),
    "token ring": arp_request(hardware=4),
    "ipx": arp_request(protocol=0x8137),
    "cut off": arp_request()[:41],
}


@pytest.mark.parametrize("case", NOT_ANSWERED)
def test_arp_not_answered(case: str) -> None:
    assert answers(wired(), NOT_ANSWERED[case]) == []


def test_arp_not_answered_on_a_device_without() -> None:
    wire = wired()
    wire.b.flags |= IFF_NOARP
    assert answers(wire, arp_request()) == []


def test_an_arp_answer_that_cannot_leave_now_leaves_later() -> None:
    """Later kernels: arp_tx. The client's own drop routine never sees it."""
    dropped: list[SkBuff] = []
    wire = wired()
    wire.rx.drop = dropped.append
    wire.b.cable.set_hold(True)
    for _ in range(wire.b.tx_size):
        netpoll_send_udp(wire.rx, b"fill")
    seen = answers(wire, arp_request())
    assert seen == []
    wire.b.cable.set_hold(False)
    wire.interrupts()
    wire.net.context.run_work()
    assert arp.parse(seen[-1][14:]).operation == arp.ARPOP_REPLY
    assert dropped == []


def solicit(src: bytes = SIX_A.ip.packed, hops: int = 255, target: bytes = SIX_B.ip.packed) -> bytes:
    dst = icmpv6.solicited_node(target)
    lladdr = ASKER if any(src) else b""
    ask = icmpv6.Neighbour(icmpv6.NDISC_NEIGHBOUR_SOLICITATION, target, lladdr)
    frame = bytearray(54 + icmpv6.buffer_len(ask))
    ethernet.emit(ethernet.Header(b"\x33\x33" + dst[12:], ASKER, ethernet.ETH_P_IPV6), frame)
    ipv6.emit(ipv6.Header(src, dst, icmpv6.IPPROTO_ICMPV6, len(frame) - 54, hops), frame, 14)
    icmpv6.emit(ask, src, dst, frame, 54)
    return bytes(frame)


@pytest.mark.parametrize("probe", [False, True], ids=["solicitation", "duplicate address detection"])
def test_neighbour_solicitation_is_answered_while_trapped(probe: bool) -> None:
    (frame,) = answers(wired6(), solicit(bytes(16)) if probe else solicit())
    ip = ipv6.parse(frame[14:])
    told = icmpv6.parse(ipv6.payload(frame[14:]), ip.src, ip.dst)
    all_nodes = ipaddress.ip_address("ff02::1").packed
    assert ethernet.parse(frame).dst == (b"\x33\x33\0\0\0\1" if probe else ASKER)
    assert (ip.src, ip.dst, ip.hop_limit) == (SIX_B.ip.packed, all_nodes if probe else SIX_A.ip.packed, 255)
    assert (told.type, told.target, told.lladdr) == (136, SIX_B.ip.packed, bytes.fromhex("020000000002"))
    assert told.flags == (0x20000000 if probe else 0x60000000)


NOT_SOLICITED = {
    "another address": solicit(target=ipaddress.ip_address("fd00::3").packed),
    "routed": solicit(hops=254),
    "checksum": solicit()[:-1] + b"\0",
    "cut off": solicit()[:70],
}


@pytest.mark.parametrize("case", NOT_SOLICITED)
def test_neighbour_not_answered(case: str) -> None:
    assert answers(wired6(), NOT_SOLICITED[case]) == []
