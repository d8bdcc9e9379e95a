"""The event loop: interrupts, softirqs, timers and work in the order in which a CPU would run them."""

from __future__ import annotations

import itertools
import os
import threading

import pytest

from guest.netpoll import Net
from guest.netpoll.context import Context, ContextError
from guest.netpoll.drivers.loopback import wire_pair
from guest.netpoll.loop import Loop, LoopTimeout
from guest.netpoll.netdevice import dev_close, dev_open
from guest.netpoll.skbuff import SkBuff

FRAME = b"\xff" * 12 + bytes(48)


def test_the_loop_serves_interrupts_softirqs_and_work() -> None:
    net = Net()
    a, b = wire_pair(net)
    passed: list[SkBuff] = []
    net.ptype_all.append(passed.append)
    with Loop(net) as loop:
        dev_open(a)
        dev_open(b)
        b.hardware_receive(FRAME)
        loop.run_until(lambda: len(passed) == 1, 5, "one frame")
        done: list[int] = []
        net.context.schedule_work(lambda: done.append(1))
        net.context.call_later(0.01, lambda: done.append(2))
        loop.run_until(lambda: done == [1, 2], 5, "work and timer")


def test_the_loop_waits_without_spinning_and_names_what_did_not_come() -> None:
    net = Net()
    with Loop(net) as loop:
        rounds = itertools.count()
        with pytest.raises(LoopTimeout, match=r"a frame that nobody sends: not within 0\.05 s"):
            loop.run_until(lambda: next(rounds) < 0, 0.05, "a frame that nobody sends")
        assert next(rounds) < 10


def test_the_loop_is_woken_and_stopped_from_another_thread() -> None:
    with Loop(Net()) as loop:
        thread = threading.Timer(0.05, loop.stop)
        thread.start()
        loop.run()
        thread.join()


def test_the_loop_follows_devices_as_they_come_and_go() -> None:
    net = Net()
    with Loop(net) as loop:
        a, b = wire_pair(net)
        for _ in range(3):
            dev_open(a)
            dev_open(b)
            b.hardware_receive(FRAME)
            loop.run_until(lambda: not b.rx_ring, 5, "the frame")
            dev_close(a)
            dev_close(b)
        assert not loop.run_once(0)


def test_a_masked_device_does_not_make_the_loop_spin() -> None:
    net = Net()
    a, b = wire_pair(net)
    with Loop(net) as loop:
        dev_open(a)
        dev_open(b)
        b.irq_masked = True
        loop.irq_sync(b)
        b.hardware_receive(FRAME)
        assert not loop.run_once(0)


def test_the_loop_does_not_run_after_a_crash() -> None:
    net = Net()
    with Loop(net) as loop:
        net.context.crash()
        with pytest.raises(ContextError, match="use netpoll_poll"):
            loop.run_once(0)


def test_a_net_has_one_loop_and_leaks_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    net = Net()
    with Loop(net), pytest.raises(ContextError, match="has a loop already"):
        Loop(net)
    Loop(net).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_timers_have_their_turn_between_an_interrupts_softirq_and_the_next() -> None:
    """LACP's, say: what is left of a full ring whose frames cost much is another softirq."""
    now, ticks = [0.0], list[float]()
    net = Net(Context(clock=lambda: now[0]))
    a, b = wire_pair(net, rx_ring=1000)
    each = 0.02

    def hook(_skb: SkBuff) -> None:
        now[0] += each

    net.ptype_all.append(hook)
    net.context.call_later(each, lambda: ticks.append(now[0]))
    with Loop(net) as loop:
        dev_open(a)
        dev_open(b)
        for _ in range(2 * b.weight):
            b.hardware_receive(FRAME)
        loop.run_until(lambda: not b.rx_ring, 30, "the last frame")
    assert ticks == [pytest.approx(b.weight * each)]
