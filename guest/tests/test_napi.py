"""The two receive paths: budgets, masking, backlog, fairness, and one poll at a time."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from guest.netpoll import Net, Netpoll, netpoll_cleanup, netpoll_poll, netpoll_send_udp, netpoll_set_trap, netpoll_setup
from guest.netpoll.context import Context, Level
from guest.netpoll.core import NetpollInfo
from guest.netpoll.drivers.loopback import LoopbackDevice, wire_pair
from guest.netpoll.loop import Loop
from guest.netpoll.napi import (
    NETDEV_BUDGET,
    do_irq,
    do_softirq,
    net_rx_action,
    netif_receive_skb,
    netif_rx,
    netif_rx_complete,
    netif_rx_schedule,
)
from guest.netpoll.netdevice import (
    NET_RX_DROP,
    NetDevice,
    NetdevTx,
    dev_close,
    dev_open,
    netif_device_detach,
    netif_queue_stopped,
    netif_running,
    netif_stop_queue,
    netif_wake_queue,
    register_netdev,
)
from guest.netpoll.poll import netpoll_poll_dev
from guest.netpoll.skbuff import DropReason, SkBuff
from guest.tests.wired import RECEIVER, SENDER, Wired, wired

FRAME = b"\xff" * 12 + bytes(48)


class Source(NetDevice):
    """A NAPI device with a number of frames waiting; notes the budgets that it was given."""

    weight = 64

    def __init__(self, net: Net, name: str, frames: int) -> None:
        super().__init__(net, name)
        self.frames = frames
        self.budgets: list[int] = []
        register_netdev(self)
        dev_open(self)

    def interrupt(self) -> None:
        netif_rx_schedule(self)

    def poll(self, budget: int) -> int:
        self.budgets.append(budget)
        done = min(budget, self.frames)
        self.frames -= done
        for _ in range(done):
            netif_receive_skb(SkBuff(FRAME, self))
        if done < budget:
            netif_rx_complete(self)
        return done


def still() -> Net:
    """Where no time passes, budgets alone end a softirq."""
    return Net(Context(clock=lambda: 0.0))


def test_an_interrupt_masks_the_device_until_there_is_no_more_work() -> None:
    net = still()
    a, b = wire_pair(net, rx_ring=1000)
    dev_open(a)
    dev_open(b)
    for _ in range(NETDEV_BUDGET + 10):
        b.hardware_receive(FRAME)
    do_irq(b)
    assert b.irq_masked
    assert b.rx_sched
    assert len(b.rx_ring) == 10
    do_irq(b)  # masked: not served
    assert len(b.rx_ring) == 10
    do_softirq(net.context)
    assert (len(b.rx_ring), b.irq_masked, b.rx_sched) == (0, False, False)


def test_a_softirq_ends_when_its_time_is_over() -> None:
    """However slow what is done with a frame: timers have their turn (LACP's, say, once a second)."""
    now, ticks = [0.0], list[float]()
    net = Net(Context(clock=lambda: now[0]))
    source = Source(net, "slow", 1000)

    def hook(_skb: SkBuff) -> None:
        now[0] += 0.02

    net.ptype_all.append(hook)

    def tick() -> None:
        ticks.append(now[0])
        net.context.call_later(1.0, tick)

    net.context.call_later(1.0, tick)
    netif_rx_schedule(source)
    with Loop(net) as loop:
        loop.run_until(lambda: source.frames == 0, 30, "the last frame")
    assert ticks
    assert max(b - a for a, b in itertools.pairwise([0.0, *ticks])) < 1.0 + 2 * source.weight * 0.02


def test_devices_take_turns_within_the_budget() -> None:
    net = still()
    greedy, modest = Source(net, "greedy", 10**6), Source(net, "modest", 10)
    for dev in (greedy, modest):
        netif_rx_schedule(dev)
    with net.context.enter(Level.SOFTIRQ):
        assert net_rx_action(net.context) == NETDEV_BUDGET
    assert modest.budgets == [64]
    assert greedy.budgets == [64, 64, 64, 64, 34]
    assert net.context.cpu().softirq_pending  # the rest is left for the next softirq


def test_a_device_is_scheduled_once() -> None:
    net = Net()
    dev = Source(net, "dev", 1)
    assert netif_rx_schedule(dev)
    assert not netif_rx_schedule(dev)
    dev.running = False
    dev.rx_sched = False
    assert not netif_rx_schedule(dev)


def test_a_device_that_went_down_while_scheduled_is_not_polled() -> None:
    net = Net()
    dev = Source(net, "dev", 1)
    netif_rx_schedule(dev)
    dev.running = False
    with net.context.enter(Level.SOFTIRQ):
        assert net_rx_action(net.context) == 0
    assert dev.budgets == []
    assert not dev.rx_sched


def test_a_device_that_goes_in_its_interrupt_routine_is_not_polled_any_more() -> None:
    """netpoll_poll() runs poll_controller first; what that finds may be that the hardware is gone."""
    wire = wired()
    wire.b.hardware_receive(FRAME)
    with wire.net.context.enter(Level.HARDIRQ):
        wire.b.interrupt()
    wire.b.poll_controller = lambda: netif_device_detach(wire.b)  # type: ignore[method-assign]
    netpoll_poll_dev(wire.b)
    assert len(wire.b.rx_ring) == 1


def test_a_hook_that_sends_inside_netpolls_own_poll_finds_its_queue_stopped() -> None:
    """The same CPU is in the poll routine, entered by netpoll this time: recursion, and no second of retries."""
    wire = wired()
    dropped: list[SkBuff] = []
    wire.rx.drop = dropped.append

    def answer(np: Netpoll, _source: int, data: bytes) -> None:
        wire.b.cable.hold = True
        netif_stop_queue(wire.b)
        netpoll_send_udp(np, data)

    wire.rx.rx_hook = answer
    netpoll_send_udp(wire.tx, b"ping")
    netpoll_poll(wire.rx)
    assert [skb.drop_reason for skb in dropped] == [DropReason.RECURSION]
    assert (wire.time.now, wire.rx.stats.polled) == (0, 0)


def test_what_netpolls_poll_eats_on_a_sending_device_passes_on_again_afterwards() -> None:
    """RX_DROP ends with the poll: somebody else's trap is for devices with a receiving client."""
    wire = wired(tx_ring=1)
    netpoll_send_udp(wire.tx, b"fills the ring")
    netpoll_send_udp(wire.tx, b"polls")
    passed: list[SkBuff] = []
    wire.net.ptype_all.append(passed.append)
    netpoll_set_trap(wire.net, 1)
    wire.a.hardware_receive(FRAME)
    wire.interrupts()
    assert len(passed) == 1


def test_a_master_takes_its_slaves_frames_unless_it_says_otherwise() -> None:
    net = Net()
    master, slave = NetDevice(net, "team0"), NetDevice(net, "eth0")
    slave.master = master
    seen: list[NetDevice | None] = []
    net.ptype_all.append(lambda skb: seen.append(skb.dev))
    netif_receive_skb(SkBuff(FRAME, slave))
    assert seen == [master]


def test_closing_an_idle_device_waits_for_nobody() -> None:
    wire = wired()
    dev_close(wire.a)
    assert wire.time.delays == 0


def test_a_device_that_vanished_takes_no_more_frames() -> None:
    wire = wired()
    netif_device_detach(wire.a)
    assert netif_queue_stopped(wire.a)
    assert not netif_running(wire.a)


def test_a_poll_routine_that_does_nothing_and_never_completes_is_left_alone_in_the_end() -> None:
    net = Net()
    dev = Source(net, "lazy", 0)
    dev.poll = lambda budget: 0  # type: ignore[method-assign]  # noqa: ARG005  # a broken driver
    netif_rx_schedule(dev)
    with net.context.enter(Level.SOFTIRQ):
        assert net_rx_action(net.context) == 0
    assert net.context.cpu().softirq_pending


def test_net_rx_action_polls_under_the_poll_lock_and_counts_frames() -> None:
    wire = wired()
    info = wire.info(wire.b)
    held: list[tuple[bool, bool]] = []
    wire.net.ptype_all.append(lambda _skb: held.append((info.poll_lock.locked(), info.poll_owner != 0)))
    for _ in range(3):
        wire.b.hardware_receive(FRAME)
    with wire.net.context.enter(Level.HARDIRQ):
        wire.b.interrupt()
    with wire.net.context.enter(Level.SOFTIRQ):
        assert net_rx_action(wire.net.context) == 3
    assert held == [(True, True)] * 3
    assert (info.poll_lock.locked(), info.poll_owner) == (False, 0)


class Snatched(deque[NetDevice]):
    """A poll list whose device netpoll on another CPU completes just before this CPU takes hold of it."""

    def __getitem__(self, index: Any) -> Any:  # as deque's
        for dev in list(self):
            netif_rx_complete(dev)
        return super().__getitem__(index)


def test_a_device_that_another_cpu_completes_in_between_is_not_missed() -> None:
    net = Net()
    dev = Source(net, "dev", 1)
    net.context.cpu().poll_list = Snatched()
    netif_rx_schedule(dev)
    with net.context.enter(Level.SOFTIRQ):
        assert net_rx_action(net.context) == 0
    assert dev.budgets == []


def test_a_device_that_another_cpu_has_polled_meanwhile_is_not_polled_again() -> None:
    """net_rx_action() waits for poll_lock; when it gets it, netpoll has done the work."""
    wire = wired()
    wire.b.hardware_receive(FRAME)
    with wire.net.context.enter(Level.HARDIRQ):
        wire.b.interrupt()
    polls: list[int] = []
    real = wire.b.poll
    wire.b.poll = lambda budget: polls.append(budget) or real(budget)  # type: ignore[func-returns-value, method-assign]
    info = wire.info(wire.b)
    lock = info.netpoll_poll_lock

    def late() -> bool:
        netpoll_poll_dev(wire.b)
        return lock()

    info.netpoll_poll_lock = late  # type: ignore[method-assign]  # the other CPU, at the worst moment
    do_softirq(wire.net.context)
    assert polls == [16]  # netpoll's


def test_polls_by_two_cpus_receive_every_frame_once() -> None:
    """Real threads: net_rx_action() on one, netpoll on the other, over one device."""
    wire = wired(rx_ring=8)
    wire.net.context.clock, wire.net.context.delay = time.monotonic, time.sleep
    frame = wire.tx.frame
    assert frame is not None
    done = threading.Event()

    def netpolls() -> None:
        while not done.is_set():
            netpoll_poll_dev(wire.b)

    other = threading.Thread(target=netpolls)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    other.start()
    try:
        for n in range(2000):
            wire.b.hardware_receive(frame(b"%d" % n))
            until = time.monotonic() + 5
            while wire.b.rx_ring and time.monotonic() < until:
                do_irq(wire.b)
                do_softirq(wire.net.context)
    finally:
        sys.setswitchinterval(switch)
        done.set()
        other.join(5)
    assert wire.payloads() == [b"%d" % n for n in range(2000)]


def test_netpolls_poll_has_a_budget_of_16() -> None:
    wire = wired(rx_ring=100)
    for _ in range(20):
        wire.b.hardware_receive(FRAME)
    netpoll_poll_dev(wire.b)
    assert len(wire.b.rx_ring) == 4
    assert wire.b.rx_sched
    do_softirq(wire.net.context)  # what is left scheduled is served later
    assert not wire.b.rx_sched


def test_non_napi_frames_wait_in_a_bounded_backlog() -> None:
    net = Net()
    net.netdev_max_backlog = 3
    dev = NetDevice(net, "old")
    passed: list[SkBuff] = []
    net.ptype_all.append(passed.append)
    skbs = [SkBuff(FRAME, dev) for _ in range(5)]
    with net.context.enter(Level.HARDIRQ):
        results = [netif_rx(skb) for skb in skbs]
        assert passed == []
    assert results == [0, 0, 0, NET_RX_DROP, NET_RX_DROP]
    assert dev.stats["rx_dropped"] == 2
    do_softirq(net.context)
    assert passed == skbs[:3]
    assert all(skb.users == 0 for skb in skbs)


def test_a_frame_nobody_wants_is_dropped() -> None:
    net = Net()
    skb = SkBuff(FRAME, NetDevice(net, "dev"))
    assert netif_receive_skb(skb) == NET_RX_DROP
    assert skb.users == 0


class Master(NetDevice):
    """A bond that takes frames from one of its slaves only."""

    active: NetDevice

    def skb_bond(self, slave: NetDevice, skb: SkBuff) -> bool:
        skb.dev = self
        return slave is self.active


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "non-NAPI"])
def test_a_slaves_frame_is_its_masters(napi: bool) -> None:
    net = Net()
    master, seen = Master(net, "bond0"), []
    slaves = [NetDevice(net, name) for name in ("eth0", "eth1")]
    master.active = slaves[0]
    net.ptype_all.append(lambda skb: seen.append(skb.dev))
    for slave in slaves:
        slave.master = master
        (netif_receive_skb if napi else netif_rx)(SkBuff(FRAME, slave))
    do_softirq(net.context)
    assert seen == [master]


class Bond(Master):
    """A bond whose frames leave through its active slave, and that polls all of them."""

    def __init__(self, net: Net, slaves: Sequence[LoopbackDevice]) -> None:
        super().__init__(net, "bond0", slaves[0].dev_addr)
        self.active = slaves[0]
        self.slaves = slaves
        for slave in slaves:
            slave.master = self

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        status = NetdevTx.BUSY if self.active.xoff else self.active.hard_start_xmit(skb)
        if status is NetdevTx.BUSY:
            netif_stop_queue(self)
        return status

    def poll_controller(self) -> None:
        for slave in self.slaves:
            netpoll_poll_dev(slave)
        if not self.active.xoff:
            netif_wake_queue(self)


def bonded(napi: bool) -> tuple[Wired, Netpoll, list[bytes]]:
    """A bond over one end of a wire, with a client that answers."""
    wire = wired(napi=napi)
    netpoll_cleanup(wire.rx)
    bond = Bond(wire.net, [wire.b])
    register_netdev(bond)
    heard: list[bytes] = []

    def answer(np: Netpoll, _source: int, data: bytes) -> None:
        heard.append(data)
        if data == b"stop":
            wire.b.cable.hold = True
            netif_stop_queue(wire.b)
        netpoll_send_udp(np, data)

    np = Netpoll(wire.net, "bonded", rx_hook=answer, dev_name="bond0", local_port=6666, remote_port=6665)
    np.local_ip, np.remote_ip, np.remote_mac = RECEIVER.ip, SENDER.ip, wire.a.dev_addr
    netpoll_setup(np)
    wire.b.npinfo = NetpollInfo(wire.b)  # as slave_enable_netpoll() does
    return wire, np, heard


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "non-NAPI"])
def test_netpoll_on_the_master_hears_of_its_slaves_frames(napi: bool) -> None:
    wire, np, heard = bonded(napi)
    netpoll_send_udp(wire.tx, b"ping")
    wire.interrupts()
    assert heard == [b"ping"]
    assert np.stats.sent == 1


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "non-NAPI"])
def test_also_after_a_crash_when_no_softirq_runs(napi: bool) -> None:
    wire, np, heard = bonded(napi)
    netpoll_send_udp(wire.tx, b"ping")
    wire.net.context.crash()
    netpoll_poll(np)
    assert heard == [b"ping"]


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "non-NAPI"])
def test_an_answer_over_the_master_from_the_slaves_own_poll_is_recursion(napi: bool) -> None:
    """Else the hook would poll in vain for a second, with the slave's poll routine under it."""
    wire, np, heard = bonded(napi)
    dropped: list[SkBuff] = []
    np.drop = dropped.append
    netpoll_send_udp(wire.tx, b"stop")
    wire.interrupts()
    assert heard == [b"stop"]
    assert [skb.drop_reason for skb in dropped] == [DropReason.RECURSION]
    assert wire.time.now == 0
