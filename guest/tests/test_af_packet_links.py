"""AF_PACKET drivers when links and interfaces come, go and change, on each driver."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest

from guest.netpoll import (
    Net,
    SetupError,
    SkBuff,
    netpoll_queue,
    netpoll_send_udp,
)
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.netdevice import (
    NetdevError,
    NetdevEvent,
)
from guest.netpoll.skbuff import DropReason
from guest.tests.af_packet_stack import stack
from guest.tests.kernel_end import KERNEL_IP, OUR_IP, OURS, THEIRS, KernelEnd

pytestmark = pytest.mark.netns


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
