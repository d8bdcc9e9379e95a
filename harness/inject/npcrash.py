"""Our kernel module in the guest: brought there over the agent's channel and loaded.

In: the module's file, or why there is none. Out: a guest that can be crashed by it. Rule: a module that could not be built is no fault of
anybody: the case is inconclusive and says what is missing.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from harness.testbed.errors import Unable
from harness.testbed.machine import Machine

AT = "/run/npcrash.ko"
PART = 256 << 10  # bytes a request
WITHIN = 20.0  # seconds for each answer


@dataclass(frozen=True)
class CrashFile:
    """npcrash.ko for the guest's kernel; or why there is none."""

    path: Path | None
    lacks: str = ""


async def load(machine: Machine, module: CrashFile | None) -> None:
    """Write it and load it. Raises Unable where there is no module, TestbedError."""
    if module is None or module.path is None:
        raise Unable(module.lacks if module else "no kernel module was built for this guest")
    data = module.path.read_bytes()
    for offset in range(0, len(data), PART):
        part = base64.b64encode(data[offset : offset + PART]).decode()
        asked = machine.agent.ask("file_write", {"path": AT, "data": part, "append": offset > 0})
        await machine.alive(asked, WITHIN, "the guest's word that it has the module")
    await machine.alive(machine.agent.ask("insmod", {"path": AT}), WITHIN, "the guest's word that the module is loaded")
