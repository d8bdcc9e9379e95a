"""Interrupt causes, their mask, and the pin (manual, 13.4.17 to 13.4.21).

In: causes that the engines raise, accesses to ICR, ICS, IMS, IMC. Out: the level of INTx. Rule: the pin is asserted while a cause is
set that the mask lets through; reading ICR takes all causes.

ITR is not done: causes of one burst are raised together in `settle`, which is what throttling is for.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.nic.bus import Bus
from harness.nic.faults import Faults

_ALL = 0x1FFFF  # causes; reserved ones can be set, too, and Linux' self-test does (e1000_intr_test())


class Interrupts:
    def __init__(self, bus: Bus, faults: Faults, tell: Callable[[str, int], None]) -> None:
        self._bus, self._faults, self._tell = bus, faults, tell
        self.causes = self.mask = self._pending = 0
        self._asserted = False

    def reset(self) -> None:
        self.causes = self.mask = self._pending = 0
        self._drive()

    def mark(self, cause: int) -> None:
        """Something happened; it is told when the burst is over."""
        self._pending |= cause

    def settle(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, 0
            self.set(pending)

    def set(self, causes: int) -> None:
        """ICS was written, or something happened."""
        self.causes |= causes & _ALL
        self._drive()

    def read_icr(self, _value: int) -> int:
        """ICR is read, which takes the causes."""
        self.settle()
        causes, self.causes = self.causes, 0
        self._drive()
        return causes

    def write_icr(self, value: int) -> None:
        """Ones clear."""
        self.causes &= ~value
        self._drive()

    def let(self, value: int) -> None:
        """IMS."""
        self.mask |= value & _ALL
        self._drive()

    def forbid(self, value: int) -> None:
        """IMC."""
        self.mask &= ~value
        self._drive()

    def _drive(self) -> None:
        asserted = bool(self.causes & self.mask)
        if asserted == self._asserted:
            return
        if asserted and self._faults.strikes("no-interrupts"):
            return
        self._asserted = asserted
        self._bus.intx(asserted)
        if asserted:
            self._tell("intx", 1)

    def release(self) -> None:
        """`no-interrupts` has ended: the level is a level."""
        self._drive()

    def spurious(self) -> None:
        """The pin without a cause."""
        self._tell("spurious-interrupt", 1)
        self._bus.intx(True)
        if not self._asserted:
            self._bus.intx(False)
