"""A BAR or configuration space in front of which a device can be slow, or gone.

In: accesses. Out: the same accesses, late (`slow`), or ones for reads and nothing for writes (`gone`). Rule: without a fault it costs one
look at a dict.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.nic.faults import Faults
from harness.vfio_user.device import Bar


class Faulty:
    """`sleep(seconds)`: keep whoever made the access waiting. `slows`: whether `slow` is for it, too."""

    def __init__(self, inner: Bar, faults: Faults, sleep: Callable[[float], None], slows: bool = True) -> None:
        self._inner, self._faults, self._sleep, self._slows = inner, faults, sleep, slows

    def read(self, offset: int, count: int) -> bytes:
        if self._faults.on and self._gone():
            return b"\xff" * count
        return self._inner.read(offset, count)

    def write(self, offset: int, data: bytes) -> None:
        if not (self._faults.on and self._gone()):
            self._inner.write(offset, data)

    def _gone(self) -> bool:
        if self._slows and (slow := self._faults.on.get("slow")) is not None:
            self._sleep(slow.seconds)
            self._faults.count("slow", 1)
        return self._faults.strikes("gone")
