"""A machine that stood still: its clocks did, too, and are compared with ours anew.

In: the offset from the guest's clock to ours, and since when the machine has stood. Out: the offset of now. Rule: what the guest says
between its first breath and the comparison is taken to be as late as it was held.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.testbed.machine import Machine

WITHIN = 60.0  # seconds


@dataclass
class Offset:
    """Seconds from the guest's clock to ours; a guest that is paused falls behind."""

    seconds: float = 0.0
    paused: float | None = None  # since when


async def resynchronise(machine: Machine, offset: Offset) -> None:
    """After `cont`. Does nothing for a machine that never stood. Raises TestbedError."""
    if offset.paused is None:
        return
    offset.seconds += time.monotonic() - offset.paused
    offset.paused = None
    work = machine.agent.synchronise(time.monotonic)
    await machine.alive(work, WITHIN, "the agent's clock after the pause")
    offset.seconds = machine.agent.offset
