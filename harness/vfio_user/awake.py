"""When to wait awake: to be woken costs a server more than what it then has to do.

In: a poll, and how long to wait at most. Out: what the poll found. Rule: a wait is spent awake for AWAKE at most, and only if the last one
was no longer, so an idle device costs nothing; whoever else wants the CPU gets it.

That somebody wants the CPU is seen from how long sched_yield() takes. If it was long, there is more to do than CPUs: then nothing is
spent awake for REST, since the scheduler holds what was spent against us when an event comes. Short ones do not tell of a crowd; the
load average does, and while it is more than SPARE above the number of CPUs nothing is spent awake either.

Where writes for which nobody waits come thick and fast, it is the other way round: then a sleep that no event ends lets some of them gather, the
CPU is there for whoever else takes part, and the sender wakes nobody (`Stream`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

AWAKE = 200e-6  # seconds; a guest that is interrupted rings a doorbell sooner
SHARED = 20e-6  # seconds that sched_yield() took: somebody needs the CPU now
CROWDED = 200e-6  # and goes on needing it
REST = 0.5  # seconds
THICK = (
    20e-6  # seconds from one posted write to the next; a driver that sends as fast as it can under emulation needs 7
)
STREAK = 32  # such writes in a row: what a driver does between two things that it waits for is shorter
LULL = 50e-6  # seconds to let some gather; with the kernel's slack for timers 115
SPARE = 2  # a guest that works, its server and whoever talks to it are no crowd on two CPUs
CPUS = len(os.sched_getaffinity(0))

Events = list[tuple[int, int]]


class Waiter:
    """`poll(seconds)` waits for events, for ever with None. `clock`, `give_way` and `load`: for tests."""

    def __init__(
        self,
        poll: Callable[[float | None], Events],
        clock: Callable[[], float] = time.monotonic,
        give_way: Callable[[], None] = os.sched_yield,
        load: Callable[[], tuple[float, float, float]] = os.getloadavg,
    ) -> None:
        self._poll, self._clock, self._give_way, self._load = poll, clock, give_way, load
        self._brisk = False  # the last wait was a short one
        self._rest_until = 0.0

    def wait(self, timeout: float | None) -> Events:
        """What there is, or comes within `timeout` seconds."""
        if found := self._poll(0):
            return found
        began = self._clock()
        if self._brisk and self._rested(began) and (found := self._awake(began, timeout)):
            return found
        found = self._poll(timeout if timeout is None else max(0.0, began + timeout - self._clock()))
        self._brisk = self._clock() - began < AWAKE
        return found

    def _rested(self, now: float) -> bool:
        return now >= self._rest_until and self._load()[0] <= CPUS + SPARE

    def _awake(self, began: float, timeout: float | None) -> Events:
        now, until = began, began + (AWAKE if timeout is None else min(AWAKE, timeout))
        while now < until:
            self._give_way()
            if found := self._poll(0):
                return found
            before, now = now, self._clock()
            if now - before > SHARED:
                self._rest_until = now + REST if now - before > CROWDED else 0.0
                break
        return []


class GiveWay:
    """Call it when somebody was told of something while there is more to do here: the kernel likes to queue whom we wake behind us on this
    CPU, even if another one is idle, and an interrupt would wait until all that came is served. In a crowd, told by the load or by how long it
    took, others would take the CPU: it is not offered then."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        give_way: Callable[[], None] = os.sched_yield,
        load: Callable[[], tuple[float, float, float]] = os.getloadavg,
    ) -> None:
        self._clock, self._give_way, self._load = clock, give_way, load
        self._rest_until = 0.0

    def __call__(self) -> None:
        began = self._clock()
        if began < self._rest_until or self._load()[0] > CPUS + SPARE:
            return
        self._give_way()
        if (now := self._clock()) - began > CROWDED:
            self._rest_until = now + REST


class Stream:
    """Whether what comes from a client is a stream of posted writes, of which it is better to let some gather."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._writes = 0
        self._last = 0.0

    def heard(self, writes: int) -> bool:
        """So many posted writes came together; 0: something came whose sender waits for an answer. Whether this is a stream."""
        before, self._last = self._last, self._clock()
        self._writes = self._writes + writes if self._last - before < THICK * writes else 0
        return self._writes >= STREAK
