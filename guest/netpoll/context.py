"""Which code may run: process, softirq, hardirq - and crashed, where nothing runs but who polls.

In: enter and leave calls from the loop, from NAPI and from the locks. Out: the answers of in_irq(),
in_softirq() and friends, and per-CPU state. The one rule: a CPU is a thread; the first time that a thread
asks, it becomes one, and its state is touched by that thread alone.

`crashed` is for the whole machine and for good (panic() does not return): interrupts are no longer
served, softirqs no longer run, process context no longer exists; netpoll_poll() is all that is left.

The rules about who calls whom are not checked here but by lockdep.Checker, which puts itself around the
devices' operations, so that a stack without it pays nothing.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from guest.netpoll.netdevice import NetDevice
    from guest.netpoll.skbuff import SkBuff

smp_processor_id = threading.get_ident


class Level(enum.IntEnum):
    """What a CPU is busy with; a higher level may interrupt a lower one, never the reverse."""

    PROCESS = 0
    SOFTIRQ = 1
    HARDIRQ = 2


PROCESS, SOFTIRQ, HARDIRQ = Level.PROCESS, Level.SOFTIRQ, Level.HARDIRQ  # for hot paths


class ContextError(RuntimeError):
    """Something was asked for in a context in which it cannot be had: our bug."""


class LockLike(Protocol):
    """threading.Lock's interface: what a lock of the stack offers, checked or not."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False if that was not possible at once (blocking=False) or in time."""

    def release(self) -> None:
        """Give it back."""


class Cpu:
    """Per-CPU state: softnet_data's poll_list and input_pkt_queue, and what runs here now."""

    __slots__ = ("backlog", "bh_disabled", "ident", "irqs_disabled", "level", "poll_list", "softirq_pending")

    def __init__(self, ident: int) -> None:
        self.ident = ident
        self.level = PROCESS
        self.irqs_disabled = 0
        self.bh_disabled = 0
        self.softirq_pending = False
        self.poll_list: deque[NetDevice] = deque()
        self.backlog: deque[SkBuff] = deque()


class Context:
    """The machine's execution state. `clock()` gives seconds, `delay(seconds)` is udelay().

    `work` holds what waits for process context (schedule_work()); whoever runs process context - the
    loop - calls run_work(). `on_work` is called, from any context, when something was added.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        delay: Callable[[float], None] = time.sleep,
    ) -> None:
        self.clock = clock
        self.delay = delay
        self.crashed = False
        self.work: deque[Callable[[], object]] = deque()
        self.on_work: Callable[[], None] | None = None
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._cpus: dict[int, Cpu] = {}

    def cpu(self) -> Cpu:
        """The CPU that this thread is."""
        ident = smp_processor_id()
        cpu = self._cpus.get(ident)
        if cpu is None:
            cpu = self._cpus[ident] = Cpu(ident)
        return cpu

    def cpus(self) -> list[Cpu]:
        """Every CPU seen so far."""
        return list(self._cpus.values())

    def crash(self) -> None:
        """panic(): from here on only polling works. What waited for process context is never run."""
        self.crashed = True

    def in_irq(self) -> bool:
        """True inside an interrupt routine."""
        return self.cpu().level is HARDIRQ

    def in_softirq(self) -> bool:
        """True inside net_rx_action()."""
        return self.cpu().level is SOFTIRQ

    def in_interrupt(self) -> bool:
        """True inside either, or with bottom halves disabled."""
        cpu = self.cpu()
        return cpu.level is not PROCESS or cpu.bh_disabled > 0

    def irqs_disabled(self) -> bool:
        """True where no interrupt can come: local_irq_disable(), an interrupt routine, a crash."""
        cpu = self.cpu()
        return self.crashed or cpu.irqs_disabled > 0 or cpu.level is HARDIRQ

    def may_sleep(self) -> bool:
        """True in process context with everything enabled: where waiting is allowed."""
        return not (self.crashed or self.in_interrupt() or self.cpu().irqs_disabled)

    def might_sleep(self, what: str) -> None:
        """`what` is about to be done, which needs process context. Only lockdep.Checker looks at it."""

    @contextmanager
    def local_irq_save(self) -> Iterator[None]:
        """Interrupts off on this CPU for a while; nests."""
        cpu = self.cpu()
        cpu.irqs_disabled += 1
        try:
            yield
        finally:
            cpu.irqs_disabled -= 1

    @contextmanager
    def local_bh_disable(self) -> Iterator[None]:
        """Softirqs off on this CPU for a while; nests."""
        cpu = self.cpu()
        cpu.bh_disabled += 1
        try:
            yield
        finally:
            cpu.bh_disabled -= 1

    @contextmanager
    def enter(self, level: Level) -> Iterator[Cpu]:
        """Run the body as an interrupt or softirq; raises ContextError if that could not happen now."""
        cpu = self.cpu()
        if self.crashed:
            raise ContextError(f"{level.name.lower()} after the crash")
        if level <= cpu.level:
            raise ContextError(f"{level.name.lower()} inside {cpu.level.name.lower()}")
        before, cpu.level = cpu.level, level
        try:
            yield cpu
        finally:
            cpu.level = before

    def schedule_work(self, function: Callable[[], object]) -> bool:
        """Have `function` run in process context, once; False if it is waiting already. Any context."""
        if function in self.work:
            return False
        self.work.append(function)
        if self.on_work is not None:
            self.on_work()
        return True

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Have `function` run in process context once `seconds` have passed (a timer). Any context."""
        heapq.heappush(self.timers, (self.clock() + seconds, next(self._serial), function))
        if self.on_work is not None:
            self.on_work()

    def run_timers(self) -> float | None:
        """Run what is due, in process context; return the seconds until the next, None without one."""
        while self.timers:
            left = self.timers[0][0] - self.clock()
            if left > 0:
                return left
            heapq.heappop(self.timers)[2]()
        return None

    def run_work(self) -> int:
        """Run what was waiting when called; return how many. Raises ContextError outside process context."""
        if not self.may_sleep():
            raise ContextError("process-context work asked for where process context is not")
        count = len(self.work)
        for _ in range(count):
            self.work.popleft()()
        return count
