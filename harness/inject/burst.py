"""Arming what a testcase times inside a panic, and doing it on the fast lane when its line is seen.

In: an `Arm`, the machine's fast lane, and the functions that do its action. Out: `inject armed`, and `inject timed` after the action's own
event. Rule: between the line and the command nothing waits and nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from harness.inject.fuse import Fuse
from harness.observe.events import Evidence
from harness.plan.model import Arm, Device, Qmp, TapLink
from harness.testbed.fast_lane import FastLane

Answer = Awaitable[Any] | None
Doer = Callable[[Qmp | Device | TapLink, Answer], Awaitable[None]]  # with the answer that is under way, if any


def arm(action: Arm, evidence: Evidence, lane: FastLane, do: Doer, fired: list[asyncio.Task[None]]) -> None:
    """From now on every line counts. What is set off runs beside the steps, as a task in `fired`."""
    keys: dict[str, Any] = {"step": action.step, "line": action.line, "seen": action.seen, "nic": action.nic}
    command = action.action

    async def finish(line_t: float, noticed: float, answer: Answer) -> None:
        await do(command, answer)
        evidence.add("inject", "timed", **keys, line_t=line_t, noticed=round(noticed, 6))

    def fire(line: Mapping[str, Any]) -> None:
        noticed = evidence.clock.now()
        answer = lane.send(command.execute, command.arguments) if isinstance(command, Qmp) else None
        fired.append(asyncio.get_running_loop().create_task(finish(line["t"], noticed, answer)))

    evidence.add("inject", "armed", **keys)
    evidence.watch(Fuse(action, fire).take)
