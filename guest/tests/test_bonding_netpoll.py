"""Netpoll over a bond: the slides' nesting call by call, who gets a frame that could not be sent, and sending after a crash."""

from __future__ import annotations

import errno
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from guest.netpoll.bonding import Bond, LacpRate, Mode
from guest.netpoll.bonding.port import MuxState
from guest.netpoll.core import Netpoll, NetpollInfo, netpoll_cleanup, netpoll_setup
from guest.netpoll.drivers.loopback import LoopbackDevice
from guest.netpoll.errors import SetupError
from guest.netpoll.lockdep import Checker
from guest.netpoll.napi import do_irq
from guest.netpoll.netdevice import NetdevError, NetdevTx, unregister_netdev
from guest.netpoll.poll import netpoll_poll
from guest.netpoll.send import NET_XMIT_DROP, NET_XMIT_SUCCESS, netpoll_send_udp, netpoll_send_udp_batch
from guest.netpoll.skbuff import DropReason, SkBuff, kfree_skb
from guest.netpoll.txq import netpoll_queue
from guest.tests.bonding_bench import Bench

XMIT = {
    Mode.ROUNDROBIN: "bond_xmit_roundrobin",
    Mode.ACTIVEBACKUP: "bond_xmit_activebackup",
    Mode.XOR: "bond_xmit_xor",
    Mode.BROADCAST: "bond_xmit_broadcast",
    Mode.AD: "bond_3ad_xmit_xor",
    Mode.TLB: "bond_tlb_xmit",
    Mode.ALB: "bond_alb_xmit",
}
KERNEL_NAMES = {
    "netpoll_send_udp",
    "netpoll_send_skb",
    "netpoll_poll_dev",
    "poll_napi",
    "bond_dev_queue_xmit",
    *XMIT.values(),
}
FLOWING = MuxState.COLLECTING_DISTRIBUTING
DEVICE_OPERATIONS = {"hard_start_xmit", "poll_controller", "poll"}


def calls(action: Callable[[], object]) -> list[str]:
    """The calls of kernel functions and device operations in the order in which they begin, devices named."""
    seen: list[str] = []

    def note(frame: FrameType, event: str, _arg: object) -> None:
        name = frame.f_code.co_name
        if event != "call":
            return
        if name in KERNEL_NAMES:
            seen.append(name)
        elif name in DEVICE_OPERATIONS and isinstance(dev := frame.f_locals.get("self"), Bond | LoopbackDevice):
            seen.append(f"{dev.name}->{name}")

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return seen


def pair(left: Mode, right: Mode, **bench: Any) -> tuple[Bench, Bond, Bond]:
    made = Bench(**bench)
    bonds = made.bond(mode=left), made.bond(False, mode=right)
    made.run(4)
    return made, *bonds


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.BROADCAST], ids=lambda mode: mode.value)
def test_bonded_send_as_in_the_slides(mode: Mode) -> None:
    bench, left, right = pair(mode, mode)
    client = bench.client(left, right)
    seen = calls(lambda: netpoll_send_udp(client, b"text"))
    slave = seen[-1].split("->")[0]
    assert slave in ("l0", "l1")
    assert seen == [
        "netpoll_send_udp",
        "netpoll_send_skb",
        "bond0->hard_start_xmit",
        XMIT[mode],
        "bond_dev_queue_xmit",
        "netpoll_send_skb",
        f"{slave}->hard_start_xmit",
    ]


def test_bonded_send_with_the_slaves_queue_stopped_as_in_the_slides() -> None:
    """netpoll_poll: the bond's poll_controller polls the slave's, then its NAPI poll; then the frame goes out."""
    bench, left, right = pair(Mode.AD, Mode.AD)
    client = bench.client(left, right)
    slave = left.usable_slaves[0].dev
    for dev in bench.l:
        while not dev.xoff:
            dev.hard_start_xmit(SkBuff(bytes(60), dev))  # nobody serves interrupts, so the ring fills up
    seen = calls(lambda: netpoll_send_udp(client, b"text"))
    start = seen.index("bond_dev_queue_xmit")
    assert seen[:start] == ["netpoll_send_udp", "netpoll_send_skb", "bond0->hard_start_xmit", "bond_3ad_xmit_xor"]
    nested = seen[start : seen.index(f"{slave.name}->hard_start_xmit") + 1]
    assert nested == [
        "bond_dev_queue_xmit",
        "netpoll_send_skb",
        "netpoll_poll_dev",
        f"{slave.name}->poll_controller",
        "poll_napi",
        f"{slave.name}->poll",
        f"{slave.name}->hard_start_xmit",
    ]
    assert client.stats.sent == 1


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("napi", [True, False], ids=["napi", "no napi"])
def test_datagrams_pass_both_ways_once(mode: Mode, napi: bool) -> None:
    facing = Mode.ACTIVEBACKUP if mode is Mode.BROADCAST else mode
    bench, left, right = pair(mode, facing, napi=napi)
    at_left: list[bytes] = []
    at_right: list[bytes] = []
    clients = bench.client(left, right, at_left), bench.client(right, left, at_right)
    sent = [b"%d" % number for number in range(50)]
    for text in sent:
        assert [netpoll_send_udp(client, text) for client in clients] == [NET_XMIT_SUCCESS] * 2
        bench.settle()
    assert (at_left, at_right) == (sent, sent)
    assert [client.stats.sent for client in clients] == [50, 50], "once for each frame, not for each layer"


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_a_bond_without_links_gives_the_frame_to_the_drop_routine_once(mode: Mode) -> None:
    bench, left, right = pair(mode, Mode.XOR)
    dropped: list[SkBuff] = []
    client = bench.client(left, right, drop=dropped.append)
    bench.cut(0, 1)
    assert netpoll_send_udp(client, b"text") == NET_XMIT_DROP
    [skb] = dropped
    assert (skb.dev, skb.drop_reason, skb.users) == (left, DropReason.RETRIES, 1)
    assert (client.stats.sent, client.stats.dropped) == (0, 1)
    kfree_skb(skb)


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.AD], ids=lambda mode: mode.value)
def test_what_was_queued_leaves_by_whichever_slave_comes_back(mode: Mode) -> None:
    bench, left, right = pair(mode, Mode.XOR)
    got: list[bytes] = []
    client = bench.client(left, right, drop=netpoll_queue)
    bench.client(right, left, got)
    bench.cut(0, 1)
    bench.run(0.3)
    for text in (b"one", b"two", b"three"):
        assert netpoll_send_udp(client, text) == NET_XMIT_DROP
    assert client.stats.queued == 3
    bench.mend(1)
    bench.run(0.5)
    assert got == [b"one", b"two", b"three"]
    assert (client.stats.late, client.stats.lost) == (3, 0)


def test_a_send_outlives_the_failover_in_its_own_retries() -> None:
    """l0's driver knows that its cable is gone, nobody ticks: the bond's poll_controller looks, a retry takes l1."""
    bench, left, right = pair(Mode.ACTIVEBACKUP, Mode.XOR)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    bench.l[0].cable.set_link(False)
    do_irq(bench.l[0])
    began = bench.clock.now
    assert netpoll_send_udp(client, b"text") == NET_XMIT_SUCCESS
    assert bench.clock.now - began < 0.2
    assert left.curr_active_slave is left.slaves[1]
    assert client.stats.dropped == 0
    bench.settle()
    assert got == [b"text"]


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_after_a_crash_one_poll_finds_the_surviving_cable(mode: Mode) -> None:
    bench, left, right = pair(mode, Mode.AD if mode is Mode.AD else Mode.XOR)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    bench.left.context.crash()
    bench.l[0].cable.set_link(False)
    bench.clock.now += 0.2  # the link monitor would have looked
    netpoll_poll(client)
    for number in range(20):
        assert netpoll_send_udp(client, b"last words %d" % number) == NET_XMIT_SUCCESS
    bench.settle()
    assert got == [b"last words %d" % number for number in range(20)]


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_after_a_crash_no_more_is_lost_than_a_dead_cards_ring_holds(mode: Mode) -> None:
    """A driver that nobody interrupts takes frames until its ring is full; that makes netpoll poll, and see."""
    bench, left, right = pair(mode, Mode.AD if mode is Mode.AD else Mode.XOR, tx_ring=8)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    bench.left.context.crash()
    bench.l[0].cable.set_link(False)
    for number in range(60):
        assert netpoll_send_udp(client, b"%d" % number) == NET_XMIT_SUCCESS
        bench.settle()
    lost = {b"%d" % number for number in range(60)} - set(got)
    assert len(lost) <= 8
    assert got[-40:] == [b"%d" % number for number in range(20, 60)]
    assert client.stats.dropped == 0


def test_after_a_crash_more_is_sent_than_the_rings_hold() -> None:
    bench, left, right = pair(Mode.XOR, Mode.XOR, tx_ring=8)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    bench.left.context.crash()
    for number in range(200):
        assert netpoll_send_udp(client, b"%d" % number) == NET_XMIT_SUCCESS
        bench.settle()
    assert got == [b"%d" % number for number in range(200)]


def test_after_a_crash_the_aggregator_is_kept_up_for_as_long_as_netpoll_polls() -> None:
    bench = Bench()
    left = bench.bond(mode=Mode.AD)
    right = bench.bond(False, mode=Mode.AD, lacp_rate=LacpRate.FAST)
    bench.run(4)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    bench.left.context.crash()
    for number in range(40):
        bench.run(0.5)
        netpoll_poll(client)
        assert netpoll_send_udp(client, b"%d" % number) == NET_XMIT_SUCCESS
    bench.settle()
    assert got == [b"%d" % number for number in range(40)]
    bench.run(4)
    assert not [slave for slave in right.slaves if slave.port and slave.port.mux_state is FLOWING], "silence is noticed"


def count_doorbells(dev: LoopbackDevice, rung: Counter[str]) -> None:
    plain = dev.hardware

    def hardware() -> None:
        rung[dev.name] += 1
        plain()

    dev.hardware = hardware  # type: ignore[method-assign]


def test_a_batch_rings_each_slaves_doorbell_once() -> None:
    bench, left, right = pair(Mode.ROUNDROBIN, Mode.XOR)
    client = bench.client(left, right)
    rung = Counter[str]()
    for dev in bench.l:
        count_doorbells(dev, rung)
    assert netpoll_send_udp_batch(client, [b"%d" % number for number in range(10)]) == 10
    assert rung == {"l0": 1, "l1": 1}


def test_replies_come_through_a_polled_bond_after_a_crash() -> None:
    bench, left, right = pair(Mode.ACTIVEBACKUP, Mode.XOR)
    got: list[bytes] = []
    bench.client(left, right, got)
    other = bench.client(right, left)
    bench.left.context.crash()
    netpoll_send_udp(other, b"are you there?")
    bench.settle()
    assert got == []
    left.poll_controller()
    assert got == [b"are you there?"]


def test_slaves_get_and_lose_netpoll_with_the_bond() -> None:
    bench = Bench(3)
    left = bench.bond(mode=Mode.ACTIVEBACKUP)
    right = bench.bond(False, mode=Mode.XOR)
    left.release(bench.l[2])
    client = bench.client(left, right)
    assert all(slave.np is not None and slave.dev.npinfo is not None for slave in left.slaves)
    left.enslave(bench.l[2])
    assert bench.l[2].npinfo is not None, "a newcomer inherits it"
    left.release(bench.l[2])
    assert bench.l[2].npinfo is None
    chain = len(bench.left.netdev_chain)
    netpoll_cleanup(client)
    assert all(slave.np is None and slave.dev.npinfo is None for slave in left.slaves)
    assert len(bench.left.netdev_chain) == chain - 3
    netpoll_setup(client)
    assert netpoll_send_udp(client, b"text") == NET_XMIT_SUCCESS


def test_a_slave_has_no_clients_of_its_own() -> None:
    bench = Bench()
    left, right = bench.bond(mode=Mode.XOR), bench.bond(False, mode=Mode.XOR)
    client = bench.client(left, right)
    netpoll_cleanup(client)
    client.dev_name = "l0"
    with pytest.raises(SetupError, match="l0 is a slave of bond0") as caught:
        netpoll_setup(client)
    assert caught.value.errno == errno.EBUSY
    left.release(bench.l[0])
    netpoll_setup(client)
    with pytest.raises(NetdevError, match="netpoll clients of its own"):
        left.enslave(bench.l[0])


def test_a_slave_that_cannot_poll_forbids_netpoll_to_the_bond() -> None:
    bench = Bench()
    bench.l[1].supports_netpoll = False
    left, right = bench.bond(mode=Mode.XOR), bench.bond(False, mode=Mode.XOR)
    with pytest.raises(SetupError, match="doesn't support polling"):
        bench.client(left, right)
    left.release(bench.l[1])
    assert left.supports_netpoll


def test_a_slave_that_vanishes_takes_only_its_own_netpoll_along() -> None:
    bench, left, right = pair(Mode.ACTIVEBACKUP, Mode.XOR)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    unregister_netdev(bench.l[0])
    assert netpoll_send_udp(client, b"text") == NET_XMIT_SUCCESS
    bench.settle()
    assert got == [b"text"]


def test_a_send_from_inside_a_slaves_driver_goes_to_the_drop_routine() -> None:
    bench, left, right = pair(Mode.ACTIVEBACKUP, Mode.XOR)
    dropped: list[SkBuff] = []
    client = bench.client(left, right, drop=dropped.append)
    first = bench.l[0]
    inner: list[int] = []
    plain = first.hard_start_xmit

    def noisy(skb: SkBuff) -> NetdevTx:
        first.hard_start_xmit = plain  # type: ignore[method-assign]
        inner.append(netpoll_send_udp(client, b"printk in the driver"))
        return plain(skb)

    first.hard_start_xmit = noisy  # type: ignore[method-assign]
    assert netpoll_send_udp(client, b"text") == NET_XMIT_SUCCESS
    assert inner == [NET_XMIT_DROP]
    assert [skb.drop_reason for skb in dropped] == [DropReason.RECURSION]


def test_a_failover_found_while_polling_tells_neighbours_later_in_process_context() -> None:
    bench, left, right = pair(Mode.ACTIVEBACKUP, Mode.XOR)
    client = bench.client(left, right)
    arps: list[bytes] = []
    bench.right.ptype_all.append(lambda skb: arps.append(bytes(skb.data[12:14])))
    checker = Checker(bench.left.context)
    for dev in (left, *bench.l):
        checker.watch(dev)
    bench.l[0].cable.set_link(False)
    do_irq(bench.l[0])
    assert netpoll_send_udp(client, b"text") == NET_XMIT_SUCCESS
    assert left.curr_active_slave is left.slaves[1]
    bench.settle()
    assert arps.count(b"\x08\x06") == 1
    assert [str(violation) for violation in checker.violations] == []


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_the_checker_of_contexts_and_locks_has_no_complaint(mode: Mode) -> None:
    bench, left, right = pair(mode, Mode.AD if mode is Mode.AD else Mode.XOR, tx_ring=8)
    client = bench.client(left, right, drop=netpoll_queue)
    checker = Checker(bench.left.context)
    for dev in (left, *bench.l):
        checker.watch(dev)
    for number in range(60):
        netpoll_send_udp(client, b"%d" % number)
        if number == 20:
            bench.cut(0)
        if number % 10 == 0:
            bench.run(0.2)
        if number == 40:
            bench.mend(0)
    bench.run(3)
    assert [str(violation) for violation in checker.violations] == []


def fill_up(dev: LoopbackDevice) -> None:
    """Frames of nobody's until the ring is full; the cable holds on to them."""
    dev.cable.set_hold(True)
    while not dev.xoff:
        dev.hard_start_xmit(SkBuff(bytes(60), dev))


def broadcast_pair() -> tuple[Bench, Netpoll, list[bytes]]:
    """The peer listens to l0's cable alone."""
    bench, left, right = pair(Mode.BROADCAST, Mode.ACTIVEBACKUP)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    return bench, client, got


def test_broadcast_polls_a_full_slave_for_a_tick_while_another_cpu_is_in_its_poll_routine() -> None:
    """As the kernel's __netpoll_send_skb() does for each slave. The first polls find poll_lock taken."""
    bench, client, got = broadcast_pair()
    fill_up(bench.l[0])
    bench.l[0].cable.set_hold(False)
    npinfo = bench.l[0].npinfo
    assert isinstance(npinfo, NetpollInfo)
    npinfo.poll_lock.acquire()
    waits = Counter[str]()

    def delay(seconds: float) -> None:
        bench.clock.delay(seconds)
        waits["udelay"] += 1
        if waits["udelay"] == 3:
            npinfo.poll_lock.release()

    bench.left.context.delay = delay
    assert netpoll_send_udp(client, b"text") == NET_XMIT_SUCCESS
    assert waits == {"udelay": 3}
    bench.settle()
    assert got == [b"text"]


def test_broadcast_leaves_copies_in_the_queue_of_a_slave_that_stays_full_and_they_leave_in_order() -> None:
    bench, client, got = broadcast_pair()
    fill_up(bench.l[0])
    began = bench.clock.now
    texts = [b"%d" % number for number in range(5)]
    assert [netpoll_send_udp(client, text) for text in texts] == [NET_XMIT_SUCCESS] * 5
    assert bench.clock.now - began < 0.005, "a tick for the first, one look for each of the others"
    bench.settle()
    assert got == []
    bench.l[0].cable.set_hold(False)
    bench.run(0.2)
    assert got == texts
    assert (client.stats.sent, client.stats.queued, client.stats.lost) == (5, 0, 0), (
        "the slave's copies are not the client's"
    )


def test_broadcast_by_slaves_that_are_all_full_gives_the_frame_back_whole() -> None:
    bench, client, got = broadcast_pair()
    for dev in bench.l:
        fill_up(dev)
    client.drop = netpoll_queue
    assert netpoll_send_udp(client, b"text") == NET_XMIT_DROP
    assert client.stats.queued == 1
    for dev in bench.l:
        dev.cable.set_hold(False)
    bench.run(0.3)
    assert got == [b"text"], "once: no slave had a copy of its own in its queue"


def test_broadcast_after_a_crash_loses_no_copy() -> None:
    bench, left, right = pair(Mode.BROADCAST, Mode.ACTIVEBACKUP, tx_ring=8)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    bench.left.context.crash()
    for number in range(100):
        assert netpoll_send_udp(client, b"%d" % number) == NET_XMIT_SUCCESS
        bench.settle()
    assert got == [b"%d" % number for number in range(100)]
