"""A time of our own for the rig, and NICs whose wire is seen.

In: what the rig does. Out: `wire frame` keys of every frame on a cable, and a word about a driver that breaks NAPI's contract. Rule: no real
time passes, and every event has a time of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guest.netpoll.drivers.loopback import Cable, LoopbackDevice
from guest.netpoll.netdevice import Net
from harness.observe.frames import frame_keys

TICK = 1e-6  # seconds between two events
Tell = Callable[..., Any]


class FakeTime:
    """What stands for the module `time` where the stack looks at it."""

    def __init__(self) -> None:
        self.now = 1.0
        self.idle: Callable[[], None] = lambda: None  # what else the machine does while somebody sleeps

    def monotonic(self) -> float:
        return self.now

    def delay(self, seconds: float) -> None:
        """udelay(): only time passes."""
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        """msleep(): time passes, and the rest of the machine runs."""
        self.now += seconds
        self.idle()

    def stamp(self) -> float:
        self.now += TICK
        return round(self.now, 6)


class WatchedNic(LoopbackDevice):
    """One end of a cable. What the other end sends to it is told as the tap would see it; `poll` as net/core/netpoll.c watches it."""

    def __init__(self, net: Net, name: str, mac: bytes, cable: Cable, tell: Tell, complain: Tell, **rings: int) -> None:
        super().__init__(net, name, mac, cable, **rings)  # type: ignore[arg-type]  # napi is a bool
        self._tell, self._complain = tell, complain

    def hardware_receive(self, frame: bytes) -> None:
        self._tell(**frame_keys(frame))
        super().hardware_receive(frame)

    def poll(self, budget: int) -> int:
        """poll_one_napi(): WARN_ONCE(work > budget, "%pS exceeded budget in poll")."""
        done = super().poll(budget)
        if done > budget:
            self._complain(f"WARNING: CPU: 0 PID: 0 at net/core/netpoll.c: {self.name} exceeded budget in poll")
        return done
