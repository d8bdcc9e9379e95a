"""When to wait awake: to be woken costs a server more than what it then has to do.

In: a poll, and how long to wait at most. Out: what the poll found. Rule: a wait is spent awake for AWAKE at most, and only if the last one
was no longer, so an idle device costs nothing; whoever else wants the CPU gets it.

That somebody wants the CPU is seen from how long sched_yield() takes. If it was long, there is more to do than CPUs: then nothing is
spent awake for REST, since the scheduler holds what was spent against us when an event comes. Short ones do not tell of a crowd; the
load average does, and while it is more than SPARE above the number of CPUs nothing is spent awake either.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

AWAKE = 200e-6  # seconds; a guest that is interrupted rings a doorbell sooner
SHARED = 20e-6  # seconds that sched_yield() took: somebody needs the CPU now
CROWDED = 200e-6  # and goes on needing it
REST = 0.5  # seconds
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
