"""A debugger on the crashed kernel: the shape of `debugger`, of the step that has gdb attach, and of what is expected of it.

Rule: as `harness.scenario.dumps`: who speaks to whom is said once, in `debugger`; `harness.plan.debugger` decides the rest.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.frozen import Frozen
from harness.scenario.words import Id, Seconds


class Debugger(Frozen):
    """After a panic the capture kernel serves the crashed kernel's registers and memory to gdb, over `device`."""

    device: Id


class Debug(Frozen):
    """gdb attaches, asks for CPUs, registers, backtraces and memory, and detaches."""

    within: Seconds = 90


class Debugged(Frozen):
    """gdb saw each CPU of the crashed kernel as a thread, found its memory as the kernel's image has it, and one thread's backtrace goes through these functions,
    innermost first. Not reached unless the console shows a panic. `cpus`: as many as the guest has, if left out."""

    backtrace: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    cpus: Annotated[int, Field(ge=1)] | None = None
