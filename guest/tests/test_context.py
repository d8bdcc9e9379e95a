"""Contexts, and the checker's rules: each broken once, on purpose, and each kept by the stack itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from guest.netpoll import Context, Net, Netpoll, netpoll_queue, netpoll_send_udp, netpoll_setup
from guest.netpoll.context import ContextError, Level
from guest.netpoll.drivers.loopback import wire_pair
from guest.netpoll.lockdep import CheckedLock, Checker, Rule
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import NetDevice, NetdevTx, dev_close, dev_open, netif_stop_queue
from guest.netpoll.poll import netpoll_poll_dev
from guest.netpoll.skbuff import SkBuff, kfree_skb
from guest.tests.wired import RECEIVER, Wired, wired


def test_levels_interrupt_only_lower_ones() -> None:
    ctx = Context()
    with ctx.enter(Level.SOFTIRQ):
        assert ctx.in_softirq()
        with ctx.enter(Level.HARDIRQ):
            assert ctx.in_irq()
            with pytest.raises(ContextError, match="softirq inside hardirq"), ctx.enter(Level.SOFTIRQ):
                pass
            with pytest.raises(ContextError, match="hardirq inside hardirq"), ctx.enter(Level.HARDIRQ):
                pass
        assert ctx.in_softirq()
    assert not ctx.in_interrupt()


def test_what_each_state_allows() -> None:
    ctx = Context()
    assert ctx.may_sleep()
    with ctx.local_irq_save():
        assert ctx.irqs_disabled()
        assert not ctx.may_sleep()
    with ctx.local_bh_disable():
        assert ctx.in_interrupt()
        assert not ctx.irqs_disabled()
    ctx.crash()
    assert ctx.irqs_disabled()
    assert not ctx.may_sleep()


def test_each_thread_is_a_cpu_of_its_own() -> None:
    ctx = Context()
    seen: list[Level] = []
    with ctx.enter(Level.HARDIRQ):
        thread = threading.Thread(target=lambda: seen.append(ctx.cpu().level))
        thread.start()
        thread.join()
    assert seen == [Level.PROCESS]
    assert len(ctx.cpus()) == 2


def test_work_runs_once_in_order_and_only_in_process_context() -> None:
    ctx = Context()
    done: list[str] = []

    def first() -> None:
        done.append("first")

    assert ctx.schedule_work(first)
    assert not ctx.schedule_work(first)
    ctx.schedule_work(lambda: done.append("second"))
    with ctx.local_bh_disable(), pytest.raises(ContextError):
        ctx.run_work()
    assert ctx.run_work() == 2
    assert done == ["first", "second"]


def test_timers_run_when_due_and_tell_how_long_is_left() -> None:
    wire = wired()
    ctx, done = wire.net.context, []
    ctx.call_later(0.3, lambda: done.append("late"))
    ctx.call_later(0.1, lambda: done.append("early"))
    assert ctx.run_timers() == pytest.approx(0.1)
    wire.time.delay(0.2)
    assert ctx.run_timers() == pytest.approx(0.1)
    wire.time.delay(0.1)
    assert ctx.run_timers() is None
    assert done == ["early", "late"]


def test_no_interrupt_and_no_softirq_after_a_crash() -> None:
    wire = wired()
    netpoll_send_udp(wire.tx, b"x")
    wire.net.context.crash()
    do_irq(wire.b)
    wire.net.context.cpu().softirq_pending = True
    do_softirq(wire.net.context)
    assert wire.got == []
    netpoll_poll_dev(wire.b)
    assert wire.payloads() == [b"x"]


# -- the checker --------------------------------------------------------------------------------------


@pytest.fixture
def checked() -> Iterator[tuple[Wired, Checker]]:
    wire = wired()
    checker = Checker(wire.net.context)
    checker.watch(wire.a)
    checker.watch(wire.b)
    checker.watch_pool(wire.net.skb_pool)
    yield wire, checker
    checker.close()


def rules(checker: Checker) -> list[Rule]:
    return [violation.rule for violation in checker.violations]


def xmit(dev: NetDevice, skb: SkBuff | None = None) -> NetdevTx:
    """hard_start_xmit as it should be called."""
    with dev.xmit_lock:  # type: ignore[attr-defined]  # both kinds of lock are context managers
        dev.xmit_lock_owner = threading.get_ident()
        try:
            return dev.hard_start_xmit(skb or SkBuff(bytes(60), dev))
        finally:
            dev.xmit_lock_owner = 0


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "non-NAPI"])
def test_the_stack_keeps_the_rules(napi: bool) -> None:
    """Sends, stopped queues, answers from rx_hooks, a cut link, a queue: nothing to report.

    But for one: without NAPI an rx_hook runs in hardirq, and an answer from there is what the TODO page
    calls improper.
    """
    wire = wired(napi=napi, tx_ring=3, drop=netpoll_queue)
    wire.info().max_retries = wire.info().tries = 100

    def answer(np: Netpoll, _source: int, data: bytes) -> None:
        netpoll_send_udp(np, data)

    wire.rx.rx_hook = answer
    checker = Checker(wire.net.context)
    for dev in (wire.a, wire.b):
        checker.watch(dev)
    checker.watch_pool(wire.net.skb_pool)
    for n in range(12):
        netpoll_send_udp(wire.tx, b"%d" % n)
        if n % 6 == 5:
            wire.interrupts()
    assert wire.tx.stats.polled > 0
    wire.a.cable.set_link(False)
    wire.interrupts()
    netpoll_send_udp(wire.tx, b"held")
    wire.a.cable.set_link(True)
    wire.interrupts()
    wire.net.context.run_work()
    np = Netpoll(wire.net, "late", dev_name="wire0", remote_ip=RECEIVER.ip)
    netpoll_setup(np)
    assert set(rules(checker)) == (set() if napi else {Rule.IRQS_OFF}), checker.report()
    assert {violation.context for violation in checker.violations} <= {"hardirq"}
    assert wire.tx.stats.late == 1


def test_xmit_without_the_lock(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    wire.a.hard_start_xmit(SkBuff(bytes(60), wire.a))
    assert rules(checker) == [Rule.XMIT_LOCK]
    assert "test_xmit_without_the_lock" in checker.violations[0].at


def test_xmit_with_another_cpus_lock_says_where_that_was_taken(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked

    def elsewhere() -> None:
        wire.a.xmit_lock.acquire()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    wire.a.hard_start_xmit(SkBuff(bytes(60), wire.a))
    assert rules(checker) == [Rule.XMIT_LOCK]
    assert "elsewhere" in checker.violations[0].earlier


def test_xmit_while_stopped(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    netif_stop_queue(wire.a)
    xmit(wire.a)
    assert rules(checker) == [Rule.QUEUE_STOPPED]


@pytest.mark.parametrize("how", ["hardirq", "irqs off", "crashed"])
def test_netpoll_calls_drivers_in_improper_context(checked: tuple[Wired, Checker], how: str) -> None:
    """The slides' TODO page. It is what netpoll is for, and the checker says when it happens."""
    wire, checker = checked
    ctx = wire.net.context
    if how == "crashed":
        ctx.crash()
        netpoll_send_udp(wire.tx, b"x")
    else:
        with ctx.enter(Level.HARDIRQ) if how == "hardirq" else ctx.local_irq_save():
            netpoll_send_udp(wire.tx, b"x")
    assert rules(checker) == [Rule.IRQS_OFF]
    expected = {"hardirq": "hardirq", "irqs off": "process", "crashed": "crashed"}[how]
    assert checker.violations[0].context == expected
    assert "netpoll_send_udp" in checker.violations[0].at


def test_busy_with_the_queue_awake(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    checker.close()

    def busy(skb: SkBuff) -> NetdevTx:  # noqa: ARG001  # it does not even look
        return NetdevTx.BUSY

    wire.a.hard_start_xmit = busy  # type: ignore[method-assign]  # a bad driver
    checker.watch(wire.a)
    xmit(wire.a)
    assert rules(checker) == [Rule.BUSY_AWAKE]


def test_freed_skb(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    skb = SkBuff(bytes(60), wire.a)
    kfree_skb(skb)
    xmit(wire.a, skb)
    assert rules(checker) == [Rule.FREED_SKB]


def test_nested_poll_says_where_it_was_entered(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    nested: list[int] = []
    wire.net.ptype_all.append(lambda _skb: nested.append(wire.b.poll(1)))
    wire.b.hardware_receive(bytes(60))
    wire.interrupts()
    assert nested == [0]
    assert rules(checker) == [Rule.POLL_NESTED]
    assert "net_rx_action" in checker.violations[0].earlier
    assert "<lambda>" in checker.violations[0].at


def test_poll_outside_of_softirq(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    wire.a.poll(1)
    assert rules(checker) == [Rule.POLL_CONTEXT]


def test_interrupt_routine_inside_itself_and_with_interrupts_on(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    wire.a.interrupt()
    assert rules(checker) == [Rule.IRQ_CONTEXT]
    checker.violations.clear()
    wire.a.raise_irq()
    wire.a.tx_done.append(SkBuff(b""))
    real = wire.net.irq_sync
    wire.net.irq_sync = lambda dev: dev.interrupt()  # a driver that polls itself while it masks
    do_irq(wire.a)
    wire.net.irq_sync = real
    assert Rule.IRQ_NESTED in rules(checker)


def test_process_context_calls_in_interrupts_and_under_locks(checked: tuple[Wired, Checker]) -> None:
    """ "No allocation from process context in hardirq": refilling the pool, and setup, which does it."""
    wire, checker = checked
    with wire.net.context.enter(Level.HARDIRQ):
        wire.net.skb_pool.refill_skbs()
    with wire.a.xmit_lock:  # type: ignore[attr-defined]  # a CheckedLock
        netpoll_setup(Netpoll(wire.net, dev_name="wire0", remote_ip=RECEIVER.ip))
    subjects = [violation.subject for violation in checker.violations]
    assert set(rules(checker)) == {Rule.SLEEPING}
    assert subjects[:2] == ["refill_skbs", "netpoll_setup with wire0->xmit_lock held"]
    assert "test_process_context_calls" in checker.violations[1].earlier


@pytest.mark.parametrize("call", [dev_open, dev_close], ids=lambda call: call.__name__)
def test_opening_and_closing_need_process_context(
    checked: tuple[Wired, Checker], call: Callable[[NetDevice], None]
) -> None:
    wire, checker = checked
    with wire.net.context.local_bh_disable():
        call(wire.a)
    call(wire.a)
    assert rules(checker) == [Rule.SLEEPING]
    assert checker.violations[0].subject == call.__name__


def test_nested_disabling_ends_with_the_outermost() -> None:
    ctx = Context()
    with ctx.local_bh_disable(), ctx.local_irq_save():
        with ctx.local_bh_disable(), ctx.local_irq_save():
            pass
        assert ctx.in_interrupt()
        assert ctx.irqs_disabled()
    assert ctx.may_sleep()


class _NeverFree:
    """A lock for judging acquisitions without really waiting for them."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: ARG002
        return True

    def release(self) -> None:
        pass


def locks(checker: Checker) -> tuple[CheckedLock, CheckedLock]:
    return CheckedLock(checker, "A", _NeverFree()), CheckedLock(checker, "B", _NeverFree())


def test_recursive_locking() -> None:
    checker = Checker(Context())
    lock, _ = locks(checker)
    lock.acquire()
    assert lock.acquire(blocking=False)
    assert rules(checker) == []
    lock.acquire()
    assert rules(checker) == [Rule.DEADLOCK]


def test_circular_dependency() -> None:
    checker = Checker(Context())
    a, b = locks(checker)
    for first, second in ((a, b), (a, b), (b, a)):
        with first, second:
            pass
    assert rules(checker) == [Rule.LOCK_ORDER]
    assert checker.violations[0].subject == "A after B"


@pytest.mark.parametrize("irq_first", [True, False])
def test_inconsistent_lock_state(irq_first: bool) -> None:
    ctx = Context()
    checker = Checker(ctx)
    lock, _ = locks(checker)

    def in_irq() -> None:
        with ctx.enter(Level.HARDIRQ), lock:
            pass

    def with_irqs_on() -> None:
        with lock:
            pass

    def with_irqs_off() -> None:
        with ctx.local_irq_save(), lock:
            pass

    with_irqs_off()
    for step in (in_irq, with_irqs_on) if irq_first else (with_irqs_on, in_irq):
        assert rules(checker) == []
        step()
    assert rules(checker) == [Rule.LOCK_STATE]


def test_closing_takes_the_checker_out_of_the_way(checked: tuple[Wired, Checker]) -> None:
    wire, checker = checked
    checker.close()
    assert not {"hard_start_xmit", "poll", "interrupt"} & vars(wire.a).keys()
    assert isinstance(wire.a.xmit_lock, type(threading.Lock()))
    wire.a.hard_start_xmit(SkBuff(bytes(60), wire.a))
    assert checker.violations == []


def test_violations_are_told_as_they_happen_and_read_like_lockdep() -> None:
    told: list[str] = []
    net = Net()
    dev, _ = wire_pair(net)
    checker = Checker(net.context, lambda violation: told.append(str(violation)))
    checker.watch(dev)
    dev.hard_start_xmit(SkBuff(bytes(60), dev))
    assert told[0].startswith("[ BUG: hard_start_xmit without xmit_lock ]\nwire0, in process context, at:\n")
