"""AF_PACKET drivers against the kernel's own stack, over a veth in a namespace of their own.

Each test runs on the driver that sends and receives call by call, and on the one with rings.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import select
import threading
import time
from collections.abc import Iterator
from struct import Struct

import pytest

from guest.netpoll import (
    MessageTooLong,
    Net,
    Netpoll,
    SetupError,
    SkBuff,
    netpoll_parse_options,
    netpoll_queue,
    netpoll_send_skb,
    netpoll_send_udp,
    netpoll_send_udp_batch,
    netpoll_set_trap,
    netpoll_setup,
)
from guest.netpoll.core import DropRoutine, NetpollInfo
from guest.netpoll.drivers import af_packet
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import (
    NetdevError,
    NetdevEvent,
    NetDevice,
    dev_close,
    dev_open,
    register_netdev,
    unregister_netdev,
)
from guest.netpoll.skbuff import PACKET_OTHERHOST, DropReason
from guest.netpoll.wire import ethernet, vlan
from guest.tests.kernel_end import KERNEL_IP, KERNEL_MAC, KERNEL_SIX, OUR_IP, OUR_MAC, OUR_SIX, OURS, THEIRS, KernelEnd

pytestmark = pytest.mark.netns
DRIVERS = {"calls": AfPacketDevice, "rings": AfPacketRingDevice}
SIZES = [0, 1, 2, 3, 99, 100, 1471, 1472]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> type[AfPacketDevice]:
    return DRIVERS[request.param]


class Stack:
    """Our stack on `ours`, its loop, and what its rx_hook heard."""

    def __init__(self, dev: NetDevice, loop: Loop) -> None:
        self.net, self.dev, self.loop = dev.net, dev, loop
        self.heard: list[tuple[int, bytes]] = []

    def client(
        self, options: str = f"6665@{OUR_IP}/{OURS},6666@{KERNEL_IP}/{KERNEL_MAC}", drop: DropRoutine | None = None
    ) -> Netpoll:
        np = Netpoll(self.net, "test", rx_hook=self.hook, drop=drop)
        netpoll_parse_options(np, options)
        netpoll_setup(np, timeout=5)
        return np

    def hook(self, _np: Netpoll, source: int, data: bytes) -> None:
        self.heard.append((source, data))

    def until_heard(self, count: int) -> None:
        self.loop.run_until(lambda: len(self.heard) >= count, 5, f"{count} datagrams")

    def until_carrier(self, carrier: bool) -> None:
        self.loop.run_until(lambda: self.dev.carrier is carrier, 5, f"carrier {carrier}")

    def info(self) -> NetpollInfo:
        assert isinstance(self.dev.npinfo, NetpollInfo)
        return self.dev.npinfo


@contextlib.contextmanager
def stack(dev: NetDevice) -> Iterator[Stack]:
    register_netdev(dev)
    with Loop(dev.net) as loop:
        yield Stack(dev, loop)
        unregister_netdev(dev)


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


# -- links and devices that go ------------------------------------------------------------------------


def test_link_cut_held_and_delivered_after(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    events: list[NetdevEvent] = []
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS)) as ours:
        ours.net.netdev_chain.append(lambda event, _dev: events.append(event))
        np = ours.client(drop=netpoll_queue)
        ours.info().max_retries = ours.info().tries = 20
        netpoll_send_udp(np, b"before")
        assert sock.recv(10) == b"before"
        netns.down(THEIRS)
        ours.until_carrier(False)
        assert ours.dev.xoff
        messages = [b"held %d" % n for n in range(20)]
        assert [netpoll_send_udp(np, message) for message in messages] == [1] * 20
        assert (np.stats.queued, np.stats.lost) == (16, 4)
        netns.up(THEIRS)
        ours.loop.run_until(lambda: np.stats.late == 16, 5, "what was queued")
        assert [sock.recv(10) for _ in range(16)] == messages[:16]
        assert events.count(NetdevEvent.CHANGE) == 2


def test_link_cut_that_nobody_told_us_of(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    """No loop runs: the driver learns it from the refusal, or from netpoll's poll. No frame counts as sent."""
    dropped: list[SkBuff] = []
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client(drop=dropped.append)
        ours.info().max_retries = ours.info().tries = 20
        netns.down(THEIRS)
        assert netpoll_send_udp(np, b"lost") == 1
        assert [skb.drop_reason for skb in dropped] == [DropReason.RETRIES]
        assert np.stats.sent == 0
        assert not ours.dev.carrier


def test_interface_taken_down_and_up(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        ours.info().max_retries = ours.info().tries = 20
        netns.down(OURS)
        assert netpoll_send_udp(np, b"lost") == 1
        netns.up(OURS)
        ours.until_carrier(True)
        ours.loop.run_until(lambda: not ours.dev.xoff, 5, "the queue to wake")
        assert netpoll_send_udp(np, b"sent") == 0
        assert sock.recv(10) == b"sent"


def test_after_a_crash_polling_alone_finds_the_link_again(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client(drop=netpoll_queue)
        ours.info().max_retries = ours.info().tries = 20
        netns.down(THEIRS)
        netpoll_send_udp(np, b"held")
        ours.net.context.crash()
        netns.up(THEIRS)
        assert netpoll_send_udp(np, b"last words") == 0
        assert [sock.recv(100), sock.recv(100)] == [b"held", b"last words"]
        ours.net.context.crashed = False  # for the cleanup


def test_interface_deleted_while_sending(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    dropped: list[SkBuff] = []
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client(drop=dropped.append)
        netpoll_send_udp(np, b"x")
        netns.delete(OURS)
        assert netpoll_send_udp(np, b"gone") == 1
        assert dropped[0].drop_reason is DropReason.NOT_RUNNING
        ours.loop.run_until(lambda: np.dev is None, 5, "the device to be unregistered")
        assert ours.net.devices == {}
        assert netpoll_send_udp(np, b"gone") == 1


def test_interface_deleted_while_idle(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        netns.delete(OURS)
        ours.loop.run_until(lambda: np.dev is None, 5, "the device to be unregistered")
        assert ours.dev.operstate == "notpresent"
        ours.loop.run_once(0)
        assert not ours.loop.run_once(0)  # nothing left that makes the loop spin


@pytest.mark.parametrize("name", ["nul\0inside", "\ud800", "much-longer-than-a-name"])
def test_a_name_that_no_interface_can_have(netns: KernelEnd, driver: type[AfPacketDevice], name: str) -> None:
    assert netns
    with pytest.raises(NetdevError, match="No such device"):
        driver(Net(), name).open()  # not registered, as inside a middleware


def test_no_such_interface(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    assert netns
    with stack(driver(Net(), "nosuch0")) as ours:
        with pytest.raises(SetupError, match="failed to open nosuch0: nosuch0: No such device") as caught:
            ours.client(f"@{OUR_IP}/nosuch0,@{KERNEL_IP}/")
        assert caught.value.errno == errno.ENODEV


def test_mtu_changes_are_followed(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        netns.mtu(OURS, 1000)
        ours.loop.run_until(lambda: np.max_payload == 972, 5, "the new MTU")


def test_renames_are_followed(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        netns.ip.link("set", index=netns.index(OURS), ifname="renamed0")
        ours.loop.run_until(lambda: np.dev_name == "renamed0", 5, "the new name")
        assert list(ours.net.devices) == ["renamed0"]
        assert ours.dev.name == "renamed0"


def test_no_descriptor_is_left(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    assert netns
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with stack(driver(Net(), OURS, gso=True)) as ours:
            ours.client()
        with stack(driver(Net(), "nosuch0")) as ours, contextlib.suppress(SetupError):
            ours.client(f"@{OUR_IP}/nosuch0,@{KERNEL_IP}/")
    assert sorted(os.listdir("/proc/self/fd")) == before


# -- descriptors and buffers that run out -------------------------------------------------------------


def tap_that_nobody_reads(name: str) -> int:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun may not be opened here")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, Struct("16sH22x").pack(name.encode(), 0x1002))
    return fd


def read_all(fd: int) -> list[bytes]:
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(os.read(fd, 2000))
    return frames


def test_a_nic_that_takes_no_more_stops_the_queue_and_nothing_is_lost(
    netns: KernelEnd, driver: type[AfPacketDevice]
) -> None:
    """The driver's ENOBUFS - through a queueing discipline these frames would vanish without a word."""
    fd = tap_that_nobody_reads("tap0")
    with stack(driver(Net(), "tap0")) as ours:
        np = ours.client(f"6665@{OUR_IP}/tap0,6666@{KERNEL_IP}/{KERNEL_MAC}")
        ours.info().max_retries = ours.info().tries = 20
        netns.ip.link("set", index=netns.index("tap0"), txqlen=1000)
        sent = 0
        while netpoll_send_udp(np, b"%d" % sent) == 0:
            sent += 1
        assert ours.dev.xoff
        assert ours.dev.stats["tx_stopped"] >= 1
        assert not any(events & select.EPOLLOUT for _, events in ours.dev.irq_fds())  # it would be ready at once
        taken = [frame[42:] for frame in read_all(fd) if frame[12:14] == b"\x08\x00"]
        assert taken == [b"%d" % n for n in range(len(taken))]
        assert sent - len(taken) in (0, *range(1, 256))  # what is in our ring is still ours
        assert netpoll_send_udp(np, b"there is room again") == 0
        left = [frame[42:] for frame in read_all(fd)]
        assert left[-1] == b"there is room again"
        assert len(taken) + len(left) == sent + 1
    os.close(fd)


@pytest.mark.parametrize("coalesce", [1, 64])
def test_what_a_nic_refused_leaves_when_it_takes_frames_again_though_nobody_sends(
    netns: KernelEnd, coalesce: int
) -> None:
    """Frames that stayed in the ring are rung for by the timer, not by the next send, which may never come."""
    fd = tap_that_nobody_reads("tap0")
    with stack(AfPacketRingDevice(Net(), "tap0", tx_coalesce=coalesce)) as ours:
        np = ours.client(f"6665@{OUR_IP}/tap0,6666@{KERNEL_IP}/{KERNEL_MAC}")
        ours.info().max_retries = ours.info().tries = 20
        netns.ip.link("set", index=netns.index("tap0"), txqlen=1000)
        sent = 0
        while netpoll_send_udp(np, b"%d" % sent) == 0:
            sent += 1
        came: list[bytes] = []

        def all_came() -> bool:
            came.extend(frame[42:] for frame in read_all(fd) if frame[12:14] == b"\x08\x00")
            return len(came) >= sent

        ours.loop.run_until(all_came, 5, f"{sent} frames that were reported sent")
        assert came == [b"%d" % n for n in range(sent)]
    os.close(fd)


@pytest.mark.parametrize("rings", [False, True], ids=["calls", "rings"])
def test_frames_that_the_nic_does_not_finish_fill_buffer_or_ring(netns: KernelEnd, rings: bool) -> None:
    """A token bucket holds completed frames back, as a stalled DMA engine would: the queue really stops."""
    if not netns.throttle(OURS, rate=4000, burst=1600):
        pytest.skip("this kernel has no token bucket (sch_tbf)")
    sock = netns.udp(6666)
    net = Net()
    dev: AfPacketDevice = (
        AfPacketRingDevice(net, OURS, tx_ring=32, qdisc_bypass=False)
        if rings
        else AfPacketDevice(net, OURS, sndbuf=20_000, qdisc_bypass=False)
    )
    with stack(dev) as ours:
        np = ours.client(drop=netpoll_queue)
        ours.info().max_retries = ours.info().tries = 20
        sent = 0
        while netpoll_send_udp(np, b"%d" % sent) == 0 and sent < 1000:
            sent += 1
        assert dev.xoff
        if isinstance(dev, AfPacketRingDevice):
            assert dev.tx_status().count(0) <= 2  # the bucket goes on dripping
        assert np.stats.queued == 1
        ours.loop.run_until(lambda: np.stats.late == 1, 10, "room for what is queued")
        assert [sock.recv(10) for _ in range(sent + 1)] == [b"%d" % n for n in range(sent + 1)]


# -- batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gso", [False, True], ids=["one by one", "cut up by the kernel"])
def test_batches(netns: KernelEnd, driver: type[AfPacketDevice], gso: bool) -> None:
    sock = netns.udp(6666)
    messages = [b"%04d" % n for n in range(150)] + [b"", b"odd one", *(bytes([n]) * 1472 for n in range(100))]
    with stack(driver(Net(), OURS, gso=gso)) as ours:
        np = ours.client()
        for at in range(0, len(messages), 60):
            batch = messages[at : at + 60]
            assert netpoll_send_udp_batch(np, batch) == len(batch)
            assert [sock.recv(2000) for _ in batch] == batch
        assert np.stats.sent == len(messages)


def test_a_kernel_that_cannot_cut_up_is_asked_once(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS, gso=True)) as ours:
        np = ours.client()
        asked: list[bytes] = []

        class OldKernel:
            """Refuses the header type, as Linux before 6.2 does."""

            def send(self, data: bytes) -> int:
                asked.append(data)
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

            def close(self) -> None:
                pass

        assert isinstance(ours.dev, AfPacketDevice)
        real, ours.dev._gso_sock = ours.dev._gso_sock, OldKernel()  # type: ignore[assignment]  # no old kernel here
        if real is not None:
            real.close()
        for _ in range(2):
            assert netpoll_send_udp_batch(np, [b"a", b"b"]) == 2
            assert [sock.recv(10), sock.recv(10)] == [b"a", b"b"]
        assert len(asked) == 1


def test_threads_share_a_ring(netns: KernelEnd) -> None:
    """Two senders and the loop, over few descriptors: everything arrives once, each sender's in order."""
    sock = netns.udp(6666)
    sock.setblocking(False)
    room = threading.Semaphore(100)  # as many as the receiver's buffer has room for, without rights to make it larger
    got: list[bytes] = []

    def all_came() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(sock.recv(10))
                room.release()
        return len(got) == 4000

    with stack(AfPacketRingDevice(Net(), OURS, tx_ring=32, tx_coalesce=8)) as ours:
        np = ours.client()
        senders = [
            threading.Thread(target=send_numbered, args=(np, who, 2000, room), daemon=True) for who in (b"a", b"b")
        ]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + 60
        while not all_came():
            assert time.monotonic() < deadline, f"4000 datagrams awaited within 60 s, {len(got)} came"
            ours.loop.run_once(0.001)
        for sender in senders:
            sender.join()
        assert np.stats.sent == 4000
    for who in (b"a", b"b"):
        assert [m for m in got if m.startswith(who)] == [b"%s%d" % (who, n) for n in range(2000)]


def send_numbered(np: Netpoll, who: bytes, count: int, room: threading.Semaphore) -> None:
    for n in range(count):
        room.acquire()
        netpoll_send_udp(np, b"%s%d" % (who, n))


def test_closing_under_a_sending_thread_harms_nobody(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    assert netns
    errors: list[BaseException] = []

    def send_on() -> None:
        try:
            while not done.is_set():
                netpoll_send_udp(np, b"x")
        except BaseException as error:
            errors.append(error)

    done = threading.Event()
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        thread = threading.Thread(target=send_on)
        thread.start()
        for _ in range(20):
            dev_close(ours.dev)
            dev_open(ours.dev)
        done.set()
        thread.join()
    assert errors == []
    assert np.stats.dropped + np.stats.sent > 0


def test_coalesced_frames_leave_when_the_device_is_closed(netns: KernelEnd) -> None:
    sock = netns.udp(6666)
    with stack(AfPacketRingDevice(Net(), OURS, tx_coalesce=100)) as ours:
        netpoll_send_udp(ours.client(), b"x")
        dev_close(ours.dev)
        assert sock.recv(10) == b"x"


def test_coalesced_frames_leave_by_the_loop(netns: KernelEnd) -> None:
    sock = netns.udp(6666)
    with stack(AfPacketRingDevice(Net(), OURS, tx_coalesce=100)) as ours:
        np = ours.client()
        for n in range(5):
            netpoll_send_udp(np, b"%d" % n)
        sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            sock.recv(10)
        ours.loop.run_once(0)
        assert [sock.recv(10) for _ in range(5)] == [b"%d" % n for n in range(5)]


@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_small_ring_keeps_what_is_written_and_not_rung_for(netns: KernelEnd, size: int) -> None:
    """A descriptor whose status word is not published yet is not free, also where the ring is shorter than the look ahead."""
    sock = netns.udp(6666)
    messages = [number.to_bytes(2, "big") * 20 for number in range(4 * size)]
    with stack(AfPacketRingDevice(Net(), OURS, tx_ring=size)) as ours:
        np = ours.client()
        for at in range(0, len(messages), 2 * size):  # twice around in one batch, with one doorbell wished for
            batch = messages[at : at + 2 * size]
            assert netpoll_send_udp_batch(np, batch) == len(batch)
            assert [sock.recv(100) for _ in batch] == batch


@pytest.mark.parametrize("at_once", [1, 7, 31])
def test_a_receive_ring_is_gone_around_many_times(netns: KernelEnd, at_once: int) -> None:
    """32 descriptors and 500 frames, in runs that end before, at and beyond the ring's end."""
    netns.neighbour(OUR_IP)
    sock = netns.udp(6666)
    messages = [b"%d" % n for n in range(500)]
    with stack(AfPacketRingDevice(Net(), OURS, rx_ring=32)) as ours:
        ours.client()
        for at in range(0, len(messages), at_once):
            for message in messages[at : at + at_once]:
                sock.sendto(message, (OUR_IP, 6665))
            ours.until_heard(min(at + at_once, len(messages)))
        assert ours.heard == [(6666, message) for message in messages]
        assert ours.dev.stats["rx_missed_errors"] == 0


def test_frames_that_find_the_receive_ring_full_are_counted(netns: KernelEnd) -> None:
    netns.neighbour(OUR_IP)
    sock = netns.udp(6666)
    with stack(AfPacketRingDevice(Net(), OURS, rx_ring=32)) as ours:
        ours.client()
        for n in range(100):
            sock.sendto(b"%d" % n, (OUR_IP, 6665))
        while ours.loop.run_once(0):
            pass
        dev_close(ours.dev)
        count = len(ours.heard)
        assert ours.heard == [(6666, b"%d" % n) for n in range(count)]
        assert 0 < count <= 32
        assert ours.dev.stats["rx_missed_errors"] >= 100 - count
