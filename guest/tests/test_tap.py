"""The tap driver, an old one without NAPI, against the kernel's own stack behind the tap."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from guest.netpoll import (
    Net,
    Netpoll,
    SetupError,
    netpoll_parse_options,
    netpoll_queue,
    netpoll_send_udp,
    netpoll_set_trap,
    netpoll_setup,
)
from guest.netpoll.core import DropRoutine, NetpollInfo, RxHook
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.drivers.tap import TapDevice
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import NetDevice, register_netdev, unregister_netdev
from guest.tests.arrows import recorded
from guest.tests.kernel_end import KERNEL_IP, KERNEL_MAC, OUR_IP, OURS, KernelEnd

pytestmark = pytest.mark.netns
KERNEL, US = "10.8.0.1", "10.8.0.2"
MESSAGES = [os.urandom(size) for size in (0, 1, 100, 1472)]


@contextmanager
def tap(name: str = "tap0", rx_hook: RxHook | None = None, drop: DropRoutine | None = None) -> Iterator[Netpoll]:
    """Our end of a new tap, with a client; yields the client. The loop is `np.net`'s only one."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun may not be opened here")
    net = Net()
    dev = TapDevice(net, name)
    register_netdev(dev)
    np = Netpoll(net, "tap", rx_hook=rx_hook, drop=drop)
    netpoll_parse_options(np, f"6665@{US}/{name},6666@{KERNEL}/")
    try:
        netpoll_setup(np, timeout=5)
        yield np
    finally:
        unregister_netdev(dev)


def kernel_address(kernel: KernelEnd, name: str = "tap0") -> None:
    kernel.ip.addr("add", index=kernel.index(name), address=KERNEL, prefixlen=24)


def test_both_ways_and_arp_while_trapped(netns: KernelEnd) -> None:
    heard: list[bytes] = []
    with tap(rx_hook=lambda _np, _source, data: heard.append(data)) as np, Loop(np.net) as loop:
        kernel_address(netns)
        sock = netns.udp(6666, KERNEL)
        netpoll_set_trap(np.net, 1)
        for message in MESSAGES:
            assert netpoll_send_udp(np, message) == 0
            assert sock.recv(2000) == message
            sock.sendto(message, (US, 6665))
        loop.run_until(lambda: len(heard) == len(MESSAGES), 5, "the kernel's datagrams")
        assert heard == MESSAGES


def test_our_end_has_a_mac_of_its_own(netns: KernelEnd) -> None:
    with tap() as np:
        kernels = netns.ip.link("get", index=netns.index("tap0"))[0].get("address")
        assert np.local_mac.hex(":") != kernels
        assert not np.local_mac[0] & 1


def test_kernels_end_down_and_up(netns: KernelEnd) -> None:
    with tap(drop=netpoll_queue) as np, Loop(np.net) as loop:
        kernel_address(netns)
        sock = netns.udp(6666, KERNEL)
        assert np.dev is not None
        dev, npinfo = np.dev, np.dev.npinfo
        assert isinstance(npinfo, NetpollInfo)
        npinfo.max_retries = npinfo.tries = 20
        netns.down("tap0")
        assert netpoll_send_udp(np, b"held") == 1
        assert not dev.carrier
        netns.up("tap0")
        loop.run_until(lambda: np.stats.late == 1, 5, "the queued frame")
        assert sock.recv(10) == b"held"


def test_tap_deleted(netns: KernelEnd) -> None:
    with tap() as np, Loop(np.net) as loop:
        netns.delete("tap0")
        assert netpoll_send_udp(np, b"gone") == 1
        loop.run_until(lambda: np.dev is None, 5, "the device to be unregistered")
        loop.run_once(0)
        assert not loop.run_once(0)


def test_a_tap_that_another_process_has(netns: KernelEnd) -> None:
    assert netns
    with tap(), pytest.raises(SetupError) as caught, tap():
        pass
    assert caught.value.errno == errno.EBUSY


def test_closing_removes_the_tap_and_every_descriptor(netns: KernelEnd) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with tap():
        assert netns.index("tap0")
    with pytest.raises(OSError, match="no interface"):
        netns.index("tap0")
    assert sorted(os.listdir("/proc/self/fd")) == before


# -- the receive diagrams, on drivers of real devices --------------------------------------------------


def answer(np: Netpoll, _source: int, data: bytes) -> None:
    netpoll_send_udp(np, b"re: " + data)


def test_diagram_non_napi_on_a_tap(netns: KernelEnd) -> None:
    """Slide "Receiving Packets (non-NAPI)", and an answer from the hook, in hardirq."""
    contexts: list[bool] = []

    def hook(np: Netpoll, source: int, data: bytes) -> None:
        contexts.append(np.net.context.in_irq())
        answer(np, source, data)

    with tap(rx_hook=hook) as np, Loop(np.net) as loop:
        kernel_address(netns)
        sock = netns.udp(6666, KERNEL)
        mac = np.local_mac.hex(":")
        netns.ip.neigh("add", dst=US, lladdr=mac, ifindex=netns.index("tap0"), state=0x80)
        loop.run_once(0)
        with recorded(TapDevice) as arrows:
            sock.sendto(b"ping", (US, 6665))
            loop.run_until(lambda: bool(contexts), 5, "the ping")
        assert sock.recv(20) == b"re: ping"
        assert contexts == [True]
        assert arrows == [
            ("", "irq routine"),
            ("irq routine", "netif_rx"),
            ("netif_rx", "netpoll_rx"),
            ("netpoll_rx", "netpoll_send_udp"),
            ("netpoll_send_udp", "netpoll_send_skb"),
            ("netpoll_send_skb", "dev->hard_start_xmit"),
        ]


def test_diagram_napi_on_rings(netns: KernelEnd) -> None:
    """Slides "Receiving Packets (NAPI)" and "Sending Packets in the Receive Path", in softirq."""
    contexts: list[bool] = []

    def hook(np: Netpoll, source: int, data: bytes) -> None:
        contexts.append(np.net.context.in_softirq())
        answer(np, source, data)

    net = Net()
    dev: NetDevice = AfPacketRingDevice(net, OURS)
    register_netdev(dev)
    np = Netpoll(net, "ring", rx_hook=hook)
    netpoll_parse_options(np, f"6665@{OUR_IP}/{OURS},6666@{KERNEL_IP}/{KERNEL_MAC}")
    with Loop(net) as loop:
        netpoll_setup(np, timeout=5)
        netns.neighbour(OUR_IP)
        sock = netns.udp(6666)
        loop.run_once(0)
        with recorded(AfPacketRingDevice) as arrows:
            sock.sendto(b"ping", (OUR_IP, 6665))
            loop.run_until(lambda: bool(contexts), 5, "the ping")
        assert sock.recv(20) == b"re: ping"
        assert contexts == [True]
        assert arrows == [
            ("", "irq routine"),
            ("irq routine", "netif_rx_schedule"),
            ("", "net_rx_action"),
            ("net_rx_action", "dev->poll"),
            ("dev->poll", "netif_receive_skb"),
            ("netif_receive_skb", "netpoll_rx"),
            ("netpoll_rx", "netpoll_send_udp"),
            ("netpoll_send_udp", "netpoll_send_skb"),
            ("netpoll_send_skb", "dev->hard_start_xmit"),
        ]
        unregister_netdev(dev)
