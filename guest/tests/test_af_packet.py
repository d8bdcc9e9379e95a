"""AF_PACKET drivers against the kernel's own stack, over a veth in a namespace of their own.

Each test runs on the driver that sends and receives call by call, and on the one with rings.
"""

from __future__ import annotations

import ipaddress
import os

import pytest

from guest.netpoll import (
    MessageTooLong,
    Net,
    SkBuff,
    netpoll_send_skb,
    netpoll_send_udp,
    netpoll_set_trap,
)
from guest.netpoll.drivers import af_packet
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.netdevice import (
    NetDevice,
    dev_open,
)
from guest.netpoll.skbuff import PACKET_OTHERHOST
from guest.netpoll.wire import ethernet, vlan
from guest.tests.af_packet_stack import stack
from guest.tests.kernel_end import KERNEL_IP, KERNEL_MAC, KERNEL_SIX, OUR_IP, OUR_MAC, OUR_SIX, OURS, THEIRS, KernelEnd

pytestmark = pytest.mark.netns
SIZES = [0, 1, 2, 3, 99, 100, 1471, 1472]


# -- the kernel accepts our frames, and we its -------------------------------------------------------


def test_the_kernel_receives_what_we_send(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        for size in SIZES:
            message = os.urandom(size)
            assert netpoll_send_udp(np, message) == 0
            assert sock.recvfrom(2000) == (message, (OUR_IP, 6665))


def test_the_kernel_receives_what_we_send_over_ipv6(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    netns.enable_ipv6()
    sock = netns.udp(6666, KERNEL_SIX)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client(f"6665@{OUR_SIX}/{OURS},6666@{KERNEL_SIX}/{KERNEL_MAC}")
        for size in (0, 1, 100, 1452):
            message = os.urandom(size)
            assert netpoll_send_udp(np, message) == 0
            data, peer = sock.recvfrom(2000)
            assert (data, peer[:2]) == (message, (OUR_SIX, 6665))


def test_we_receive_what_the_kernel_sends(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    """Over a veth the kernel leaves the UDP checksum half done, and says so beside the frame."""
    netns.neighbour(OUR_IP)
    sock = netns.udp(6666)
    messages = [os.urandom(size) for size in SIZES]
    with stack(driver(Net(), OURS)) as ours:
        ours.client()
        for message in messages:
            sock.sendto(message, (OUR_IP, 6665))
        ours.until_heard(len(messages))
        assert ours.heard == [(6666, message) for message in messages]


def test_a_thousand_each_way_in_order(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    netns.neighbour(OUR_IP)
    sock = netns.udp(6666)
    messages = [b"%d" % n for n in range(1000)]
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        for at in range(0, 1000, 50):
            for message in messages[at : at + 50]:
                assert netpoll_send_udp(np, message) == 0
                sock.sendto(sock.recv(100), (OUR_IP, 6665))
            ours.until_heard(at + 50)
        assert [data for _, data in ours.heard] == messages


def test_the_kernel_finds_us_by_arp_while_trapped(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS)) as ours:
        ours.client()
        netpoll_set_trap(ours.net, 1)
        sock.sendto(b"who has", (OUR_IP, 6665))
        ours.until_heard(1)
        assert ours.heard == [(6666, b"who has")]


def test_the_kernel_finds_us_by_neighbour_discovery_while_trapped(
    netns: KernelEnd, driver: type[AfPacketDevice]
) -> None:
    netns.enable_ipv6()
    sock = netns.udp(6666, KERNEL_SIX)
    with stack(driver(Net(), OURS)) as ours:
        ours.client(f"6665@{OUR_SIX}/{OURS},6666@{KERNEL_SIX}/{KERNEL_MAC}")
        netpoll_set_trap(ours.net, 1)
        sock.sendto(b"who has", (OUR_SIX, 6665))
        ours.until_heard(1)
        assert ours.heard == [(6666, b"who has")]


def test_setup_takes_mac_mtu_and_address_from_the_interface(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    netns.mtu(OURS, 9000)
    netns.ip.addr("add", index=netns.index(OURS), address="10.9.0.7", prefixlen=24)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client(f"@/{OURS},@{KERNEL_IP}/")
        assert (np.local_ip, np.local_mac.hex(":")) == (ipaddress.ip_address("10.9.0.7"), OUR_MAC)
        assert np.max_payload == 8972
        assert ours.dev.running


def test_jumbo_frames(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    for name in (OURS, THEIRS):
        netns.mtu(name, 9000)
    netns.neighbour(OUR_IP)
    sock = netns.udp(6666)
    message = os.urandom(8972)
    with stack(driver(Net(), OURS)) as ours:
        netpoll_send_udp(ours.client(), message)
        assert sock.recv(10000) == message
        sock.sendto(message, (OUR_IP, 6665))
        ours.until_heard(1)
        assert ours.heard == [(6666, message)]


def test_what_the_mtu_does_not_hold(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        with pytest.raises(MessageTooLong):
            netpoll_send_udp(np, bytes(1473))
        netpoll_send_skb(np, SkBuff(bytes(1519), ours.dev, 0x800))  # a counted drop of the driver
        netpoll_send_skb(np, SkBuff(bytes(5), ours.dev, 0x800))
        assert ours.dev.stats["tx_errors"] == 2
        netpoll_send_udp(np, b"still works")
        assert sock.recv(100) == b"still works"


def test_a_tag_that_the_kernel_set_aside_is_where_the_wire_had_it(
    netns: KernelEnd, driver: type[AfPacketDevice]
) -> None:
    seen: list[tuple[int, bytes]] = []
    peer = netns.raw(THEIRS)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        ours.net.ptype_all.append(lambda skb: seen.append((skb.protocol, bytes(skb.data))))
        mac = ethernet.parse_mac(OUR_MAC)
        plain = mac + ethernet.parse_mac(KERNEL_MAC) + b"\x08\x00" + bytes(46)
        peer.send(vlan.insert(plain, 0xA007))
        peer.send(vlan.insert(plain, 0xA000))  # priority only: not of any VLAN
        ours.loop.run_until(lambda: len(seen) == 2, 5, "two tagged frames")
        assert seen == [(0x8100, vlan.insert(plain, 0xA007)), (0x0800, plain)]
        assert np.stats.received == 0


def test_other_hosts_frames_are_seen_if_promiscuous_and_never_taken(
    netns: KernelEnd, driver: type[AfPacketDevice]
) -> None:
    kinds: list[int] = []
    peer = netns.raw(THEIRS)
    with stack(driver(Net(), OURS, promisc=True)) as ours:
        np = ours.client()
        ours.net.ptype_all.append(lambda skb: kinds.append(skb.pkt_type))
        frame = np.frame(b"not for us") if np.frame else b""
        peer.send(bytes.fromhex("020000000009") + frame[6:])
        ours.loop.run_until(lambda: bool(kinds), 5, "another host's frame")
        assert kinds == [PACKET_OTHERHOST]


@pytest.mark.parametrize("known", [True, False], ids=["kernel leaves them out", "kernel before 4.20"])
def test_we_do_not_hear_ourselves_nor_our_own_machine(
    netns: KernelEnd, driver: type[AfPacketDevice], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        monkeypatch.setattr(af_packet, "PACKET_IGNORE_OUTGOING", 0x7FFF)  # refused, as an option not heard of is
    sock = netns.udp(6666)
    seen: list[bytes] = []
    other = netns.raw(OURS)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        ours.net.ptype_all.append(lambda skb: seen.append(bytes(skb.data)))
        netpoll_send_udp(np, b"out")
        assert sock.recv(10) == b"out"
        other.send(b"\xff" * 6 + bytes(54))
        netns.raw(THEIRS).send(b"\xff" * 12 + bytes(48))
        ours.loop.run_until(lambda: len(seen) == 1, 5, "the peer's frame")
        assert seen == [b"\xff" * 12 + bytes(48)]


class Master(NetDevice):
    """Takes over what its slave receives."""

    frames = 0

    def skb_bond(self, slave: NetDevice, skb: SkBuff) -> bool:
        self.frames += 1
        return super().skb_bond(slave, skb)


def test_every_frame_of_a_slave_goes_through_its_master(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    """Also one whose sk_buff was the master's before, and came back."""
    peer = netns.raw(THEIRS)
    with stack(driver(Net(), OURS)) as ours:
        dev_open(ours.dev)
        ours.dev.master = master = Master(ours.net, "bond0")
        for _ in range(5):
            peer.send(b"\xff" * 12 + bytes(48))
        ours.loop.run_until(lambda: master.frames == 5, 5, "five frames at the master")
