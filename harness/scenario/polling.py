"""Our stack on a machine that crashed: the shape of the step `context` and of the expectation `uninterrupted`."""

from __future__ import annotations

from typing import Literal

from harness.frozen import Frozen
from harness.scenario.words import Id


class ContextStep(Frozen):
    """The context that our stack in the guest is in from here on, `of` being one of its endpoints. There is no way back from a crash."""

    of: Id
    becomes: Literal["crashed"]


class Uninterrupted(Frozen):
    """From the first poll in the crashed context on, no interrupt of the NICs behind `by` was enabled, at the chip or at the bus, and none
    came. Not reached unless some came before, `by` sent afterwards, and what the interrupts are set to was read again then."""

    by: Id
