"""When the server waits awake: on a clock that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from harness.vfio_user.awake import (
    AWAKE,
    CPUS,
    CROWDED,
    REST,
    SHARED,
    SPARE,
    STREAK,
    THICK,
    Events,
    GiveWay,
    Stream,
    Waiter,
)

EVENT: Events = [(3, 1)]
STEP = 1e-6


@dataclass
class World:
    """`due`: when the next event is there. `slept`: how long each poll that could block did; `yielded`: how often the CPU was given up."""

    now: float = 100.0
    due: float = 0.0
    yield_takes: float = STEP
    slept: list[float] = field(default_factory=list)
    yielded: int = 0
    load: float = 0.0

    def __post_init__(self) -> None:
        self.waiter = Waiter(self.poll, lambda: self.now, self.give_way, lambda: (self.load, 0, 0))

    def poll(self, timeout: float | None) -> Events:
        if timeout == 0:
            return EVENT if self.now >= self.due else []
        until = self.due if timeout is None else min(self.due, self.now + timeout)
        self.slept.append(until - self.now)
        self.now = max(self.now, until)
        return EVENT if self.now >= self.due else []

    def give_way(self) -> None:
        self.yielded += 1
        self.now += self.yield_takes

    def wait(self, event_in: float, timeout: float | None = None) -> Events:
        """A wait in which the next event comes after so many seconds; forgets what was before."""
        self.due, self.slept, self.yielded = self.now + event_in, [], 0
        return self.waiter.wait(timeout)


@pytest.fixture
def brisk() -> World:
    """The last wait was a short one."""
    world = World()
    assert world.wait(50e-6) == EVENT
    assert world.slept, "the first wait is asleep"
    return world


def test_after_a_short_wait_the_next_is_awake(brisk: World) -> None:
    assert brisk.wait(AWAKE / 2) == EVENT
    assert brisk.slept == []
    assert brisk.yielded >= AWAKE / 2 / STEP - 2


def test_an_idle_device_sleeps(brisk: World) -> None:
    assert brisk.wait(1.0) == EVENT
    assert len(brisk.slept) == 1
    assert brisk.slept[0] > 1.0 - 2 * AWAKE, "awake for AWAKE only"
    assert brisk.wait(1.0) == EVENT
    assert brisk.yielded == 0, "and not at all the next time"


def test_what_is_there_is_taken_at_once(brisk: World) -> None:
    assert brisk.wait(0) == EVENT
    assert (brisk.slept, brisk.yielded) == ([], 0)


def test_a_timer_is_not_late(brisk: World) -> None:
    began = brisk.now
    assert brisk.wait(1.0, timeout=AWAKE / 4) == []
    assert brisk.now - began < AWAKE / 4 + 3 * STEP


def test_who_needs_the_cpu_gets_it(brisk: World) -> None:
    brisk.yield_takes = SHARED * 2
    assert brisk.wait(SHARED * 3) == EVENT
    assert brisk.yielded == 1
    assert brisk.slept, "the rest of this wait is asleep"
    brisk.yield_takes = STEP
    assert brisk.wait(AWAKE / 2) == EVENT
    assert brisk.slept == [], "the next is not"


def test_in_a_crowd_nobody_waits_awake(brisk: World) -> None:
    brisk.yield_takes = CROWDED * 1.1
    assert brisk.wait(CROWDED * 1.2) == EVENT
    brisk.yield_takes = STEP
    for _ in range(3):
        assert brisk.wait(50e-6) == EVENT
        assert brisk.yielded == 0
    brisk.now += REST
    assert brisk.wait(50e-6) == EVENT
    assert brisk.yielded > 0, "until it has rested"


def test_nor_where_the_load_says_that_there_is_one(brisk: World) -> None:
    brisk.load = CPUS + SPARE + 0.1
    assert brisk.wait(50e-6) == EVENT
    assert brisk.yielded == 0
    brisk.load = CPUS + SPARE
    assert brisk.wait(50e-6) == EVENT
    assert brisk.yielded > 0


@dataclass
class Sender:
    """Somebody whose posted writes are heard of on a clock of its own."""

    now: float = 100.0

    def __post_init__(self) -> None:
        self.stream = Stream(lambda: self.now)
        assert not self.stream.heard(1), "nothing was before the first"

    def sends(self, times: int, apart: float, together: int = 1) -> bool:
        """So many writes, of which so many are read together. Whether the last of them were taken for a stream."""
        streams = False
        for _ in range(times // together):
            self.now += apart * together
            streams = self.stream.heard(together)
        return streams


def test_writes_that_come_thick_and_fast_are_a_stream() -> None:
    sender = Sender()
    assert not sender.sends(STREAK - 1, THICK / 2)
    assert sender.sends(1, THICK / 2)
    assert sender.sends(30, THICK / 2, together=15), "which goes on while they are let gather"


def test_writes_that_come_one_by_one_are_none() -> None:
    sender = Sender()
    assert not sender.sends(10 * STREAK, THICK * 2)
    assert sender.sends(STREAK, THICK / 2)
    assert not sender.sends(1, THICK * 2), "and the first that comes late ends one"
    assert not sender.sends(STREAK - 1, THICK / 2)
    assert sender.sends(1, THICK / 2)


def test_who_waits_for_an_answer_ends_a_stream() -> None:
    sender = Sender()
    assert sender.sends(STREAK, THICK / 2)
    assert not sender.stream.heard(0)
    assert not sender.sends(STREAK - 1, THICK / 2)


def test_who_was_told_gets_the_cpu_unless_that_takes_long() -> None:
    world = World()
    tell = GiveWay(lambda: world.now, world.give_way, lambda: (world.load, 0, 0))
    tell()
    assert world.yielded == 1
    world.yield_takes = CROWDED * 2
    tell()
    assert world.yielded == 2
    tell()
    assert world.yielded == 2, "a crowd"
    world.now += REST
    world.load = CPUS + SPARE + 0.1
    tell()
    assert world.yielded == 2, "the load says so, too"
    world.load = 0.0
    tell()
    assert world.yielded == 3
