"""A checker of contexts and locks, in lockdep's manner: it reports what could go wrong, where it is allowed.

In: devices to watch. Out: Violations, each with the place of the call and the place where what it clashes
with was acquired. The one rule: watching changes nothing but speed; a stack without a checker pays nothing,
since the checker puts itself around a device's operations and locks and takes itself away again.

The rules are the slides' (network driver primer, NAPI) and lockdep's own:

    XMIT_LOCK      hard_start_xmit needs dev->xmit_lock, held by this CPU
    QUEUE_STOPPED  ... and netif_queue_stopped() false
    IRQS_OFF       ... and interrupts on: "netpoll calls drivers in improper context" (TODO page)
    BUSY_AWAKE     a driver that returns BUSY must have stopped its queue
    FREED_SKB      an skb is not used after kfree_skb()
    POLL_NESTED    a NAPI poll routine is not re-entrant and runs on one CPU at a time
    POLL_CONTEXT   ... in softirq context, or by netpoll with the poll lock
    IRQ_NESTED     an interrupt routine does not run inside itself
    IRQ_CONTEXT    ... and only where interrupts cannot race with it: in hardirq, or called with them off
    SLEEPING       no allocation or call that needs process context in interrupts, under locks, after a crash
    DEADLOCK       no CPU waits for a lock that it holds
    LOCK_ORDER     two locks are always taken in the same order
    LOCK_STATE     a lock that interrupts take is not waited for with interrupts on
"""

from __future__ import annotations

import enum
import functools
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import TypeVar

from guest.netpoll.context import Context, Level, LockLike, smp_processor_id
from guest.netpoll.direct import DirectTx, Store
from guest.netpoll.netdevice import NetDevice, NetdevTx
from guest.netpoll.skbuff import SkbPool, SkBuff

STACK_DEPTH = 8
T = TypeVar("T")


class Rule(enum.Enum):
    """What was broken; see the module's table."""

    XMIT_LOCK = "hard_start_xmit without xmit_lock"
    QUEUE_STOPPED = "hard_start_xmit while the queue is stopped"
    IRQS_OFF = "hard_start_xmit with interrupts off: improper context"
    BUSY_AWAKE = "driver returned BUSY with its queue awake"
    FREED_SKB = "skb used after it was freed"
    POLL_NESTED = "poll routine entered while it runs"
    POLL_CONTEXT = "poll routine outside of softirq, not called by netpoll"
    IRQ_NESTED = "interrupt routine entered while it runs"
    IRQ_CONTEXT = "interrupt routine called where interrupts can race with it"
    SLEEPING = "sleeping function called from invalid context"
    DEADLOCK = "recursive locking"
    LOCK_ORDER = "circular locking dependency"
    LOCK_STATE = "inconsistent lock state"


@dataclass(frozen=True, slots=True)
class Violation:
    """One finding. `at` and `earlier` are stacks, innermost call last; `earlier` may be empty."""

    rule: Rule
    subject: str
    context: str
    at: str
    earlier: str = ""

    def __str__(self) -> str:
        text = f"[ BUG: {self.rule.value} ]\n{self.subject}, in {self.context} context, at:\n{self.at}"
        return text + (f"acquired or entered before, at:\n{self.earlier}" if self.earlier else "")


Stack = tuple[tuple[str, int, str], ...]  # (file, line, function), innermost last


def _stack() -> Stack:
    """Where we are, without the checker's own frames; taken often, so formatted only when reported."""
    found: list[tuple[str, int, str]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(found) < STACK_DEPTH:
        code = frame.f_code
        if code.co_filename != __file__:
            found.append((code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return tuple(reversed(found))


def _format(stack: Stack) -> str:
    return "".join(traceback.format_list([traceback.FrameSummary(*entry) for entry in stack]))


class CheckedLock:
    """A lock that tells the checker of every acquisition; same interface as threading.Lock's."""

    def __init__(self, checker: Checker, name: str, lock: LockLike) -> None:
        self.checker = checker
        self.name = name
        self.inner = lock
        self.owner = 0
        self.where: Stack = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As threading.Lock.acquire(); only waiting without limit can deadlock, so only that is judged."""
        where = _stack()
        self.checker.before_acquire(self, waits=blocking and timeout < 0)
        if not self.inner.acquire(blocking, timeout):
            return False
        self.owner, self.where = smp_processor_id(), where
        self.checker.held().append(self)
        return True

    def release(self) -> None:
        """As threading.Lock.release()."""
        held = self.checker.held()
        if self in held:
            held.remove(self)
        self.owner, self.where = 0, ()
        self.inner.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class CheckedIndex:
    """Where direct.py tells a NIC of a frame."""

    def __init__(self, checker: Checker, dev: NetDevice, index: Store) -> None:
        self.checker, self.dev, self.index = checker, dev, index

    def __setitem__(self, number: int, value: int, /) -> None:
        self.checker.before_index(self.dev)
        self.index[number] = value


def _tell_clients(dev: NetDevice) -> None:
    if dev.npinfo is not None:
        dev.npinfo.operations_changed()


class Checker:
    """Watches a Context and devices in it. `violations` grows; `on_violation` hears of each as it happens."""

    def __init__(self, ctx: Context, on_violation: Callable[[Violation], None] | None = None) -> None:
        self.ctx = ctx
        self.violations: list[Violation] = []
        self.on_violation = on_violation
        self._held: dict[int, list[CheckedLock]] = {}
        self._order: dict[tuple[str, str], Stack] = {}
        self._irq_locks: dict[str, Stack] = {}
        self._open_locks: dict[str, Stack] = {}
        self._running: dict[tuple[NetDevice, str], tuple[int, Stack]] = {}
        self._restore: list[Callable[[], None]] = []
        self._put(ctx, "might_sleep", self._might_sleep)

    def _put(self, target: object, name: str, value: object) -> None:
        """Shadow a method by an attribute of the instance, until close()."""
        setattr(target, name, value)
        self._restore.append(lambda: delattr(target, name))

    def close(self) -> None:
        """Stop watching everything."""
        while self._restore:
            self._restore.pop()()

    def report(self) -> str:
        """Every violation, as text."""
        return "\n".join(map(str, self.violations))

    def watch(self, dev: NetDevice) -> None:
        """Put the checker around a device's operations and its xmit_lock."""
        for name, check in (
            ("hard_start_xmit", self._hard_start_xmit),
            ("poll", self._poll),
            ("interrupt", self._interrupt),
        ):
            self._put(dev, name, functools.partial(check, dev, getattr(dev, name)))
        self._put(dev, "direct_tx", functools.partial(self._direct_tx, dev, dev.direct_tx))
        plain = dev.xmit_lock
        dev.xmit_lock = CheckedLock(self, f"{dev.name}->xmit_lock", plain)
        self._restore.append(lambda: setattr(dev, "xmit_lock", plain))  # a lambda cannot assign
        _tell_clients(dev)
        self._restore.insert(0, lambda: _tell_clients(dev))  # after all else is as it was

    def watch_pool(self, pool: SkbPool) -> None:
        """Refilling allocates with leave to sleep: process context only."""
        self._put(pool, "refill_skbs", functools.partial(self._refill, pool.refill_skbs))

    def held(self) -> list[CheckedLock]:
        """The locks that this CPU holds, in the order in which it took them."""
        return self._held.setdefault(smp_processor_id(), [])

    def violate(self, rule: Rule, subject: str, earlier: Stack = ()) -> None:
        """Record a finding."""
        found = Violation(rule, subject, self._context(), _format(_stack()), _format(earlier))
        self.violations.append(found)
        if self.on_violation is not None:
            self.on_violation(found)

    def _context(self) -> str:
        return "crashed" if self.ctx.crashed else self.ctx.cpu().level.name.lower()

    # -- operations -----------------------------------------------------------------------------------

    def _hard_start_xmit(self, dev: NetDevice, real: Callable[[SkBuff], NetdevTx], skb: SkBuff) -> NetdevTx:
        me, lock = smp_processor_id(), dev.xmit_lock
        if dev.xmit_lock_owner != me or (isinstance(lock, CheckedLock) and lock.owner != me):
            self.violate(Rule.XMIT_LOCK, dev.name, lock.where if isinstance(lock, CheckedLock) else ())
        if dev.xoff:
            self.violate(Rule.QUEUE_STOPPED, dev.name)
        if self.ctx.irqs_disabled():
            self.violate(Rule.IRQS_OFF, dev.name)
        if skb.users <= 0:
            self.violate(Rule.FREED_SKB, f"{dev.name}: {skb!r}")
        status = real(skb)
        if status is NetdevTx.BUSY and not dev.xoff:
            self.violate(Rule.BUSY_AWAKE, dev.name)
        return status

    def _direct_tx(self, dev: NetDevice, real: Callable[[], DirectTx | None]) -> DirectTx | None:
        tx = real()
        return None if tx is None else replace(tx, index=CheckedIndex(self, dev, tx.index))

    def before_index(self, dev: NetDevice) -> None:
        """A frame is about to become the NIC's without hard_start_xmit(), and the same is asked of it."""
        if isinstance(dev.xmit_lock, CheckedLock) and dev.xmit_lock.owner != smp_processor_id():
            self.violate(Rule.XMIT_LOCK, dev.name, dev.xmit_lock.where)
        if dev.xoff:
            self.violate(Rule.QUEUE_STOPPED, dev.name)
        if self.ctx.irqs_disabled():
            self.violate(Rule.IRQS_OFF, dev.name)

    def _poll(self, dev: NetDevice, real: Callable[[int], int], budget: int) -> int:
        by_netpoll = dev.npinfo is not None and dev.npinfo.rx_drop
        if not by_netpoll and self.ctx.cpu().level is not Level.SOFTIRQ:
            self.violate(Rule.POLL_CONTEXT, dev.name)
        return self._exclusive(dev, "poll", Rule.POLL_NESTED, functools.partial(real, budget))

    def _interrupt(self, dev: NetDevice, real: Callable[[], None]) -> None:
        if not self.ctx.irqs_disabled():
            self.violate(Rule.IRQ_CONTEXT, dev.name)
        self._exclusive(dev, "interrupt", Rule.IRQ_NESTED, real)

    def _exclusive(self, dev: NetDevice, what: str, rule: Rule, run: Callable[[], T]) -> T:
        """Run a routine that must not be running already, on any CPU."""
        before = self._running.get((dev, what))
        if before is not None:
            self.violate(rule, f"{dev.name}, entered by CPU {before[0]}", before[1])
        self._running[dev, what] = before or (smp_processor_id(), _stack())
        try:
            return run()
        finally:
            if before is None:
                del self._running[dev, what]

    def _might_sleep(self, what: str) -> None:
        held = self.held()
        if not self.ctx.may_sleep():
            self.violate(Rule.SLEEPING, what)
        elif held:
            self.violate(Rule.SLEEPING, f"{what} with {held[-1].name} held", held[-1].where)

    def _refill(self, real: Callable[[], int]) -> int:
        self._might_sleep("refill_skbs")
        return real()

    # -- locks ----------------------------------------------------------------------------------------

    def before_acquire(self, lock: CheckedLock, *, waits: bool) -> None:
        """Judge an acquisition before it happens, while a deadlock can still be told of."""
        if waits:
            if lock.owner == smp_processor_id():
                self.violate(Rule.DEADLOCK, lock.name, lock.where)
            self._check_state(lock)
        for other in self.held():
            if other is not lock:
                self._check_order(other, lock)

    def _check_order(self, held: CheckedLock, wanted: CheckedLock) -> None:
        self._order.setdefault((held.name, wanted.name), _stack())
        reverse = self._order.get((wanted.name, held.name))
        if reverse is not None:
            self.violate(Rule.LOCK_ORDER, f"{wanted.name} after {held.name}", reverse)

    def _check_state(self, lock: CheckedLock) -> None:
        """Taken in an interrupt, and waited for with interrupts on: one CPU can wait for itself."""
        in_irq = self.ctx.in_irq()
        if not in_irq and self.ctx.irqs_disabled():
            return
        seen, against = (self._irq_locks, self._open_locks) if in_irq else (self._open_locks, self._irq_locks)
        seen.setdefault(lock.name, _stack())
        if lock.name in against:
            self.violate(Rule.LOCK_STATE, lock.name, against[lock.name])
