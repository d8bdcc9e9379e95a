"""Our kernel module in the guest: brought there over the agent's channel and loaded.

In: the module's file, or why there is none. Out: a guest that can be crashed by it. Rule: a module that could not be built is no fault of
anybody: the case is inconclusive and says what is missing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.testbed.errors import TestbedError, Unable
from harness.testbed.machine import Machine
from images.elf import Elf, functions

AT = "/run/npcrash.ko"
PART = 256 << 10  # bytes a request
WITHIN = 20.0  # seconds for each answer


@dataclass(frozen=True)
class CrashFile:
    """npcrash.ko for the guest's kernel; or why there is none."""

    path: Path | None
    lacks: str = ""


async def load(machine: Machine, module: CrashFile | None) -> list[str]:
    """Write it and load it; its functions come back as lines of /proc/kallsyms. Raises Unable where there is no module, TestbedError."""
    if module is None or module.path is None:
        raise Unable(module.lacks if module else "no kernel module was built for this guest")
    data = module.path.read_bytes()
    for offset in range(0, len(data), PART):
        part = base64.b64encode(data[offset : offset + PART]).decode()
        asked = machine.agent.ask("file_write", {"path": AT, "data": part, "append": offset > 0})
        await machine.alive(asked, WITHIN, "the guest's word that it has the module")
    asked = machine.agent.ask("insmod", {"path": AT})
    code: Mapping[str, int] = await machine.alive(asked, WITHIN, "the guest's word that the module is loaded")
    return kallsyms(data, code)


def kallsyms(module: bytes, code: Mapping[str, int]) -> list[str]:
    """Lines of /proc/kallsyms for a module file whose sections lie at `code`. Raises TestbedError for addresses that a guest made up."""
    if not all(type(address) is int and 0 <= address < 1 << 64 for address in code.values()):
        raise TestbedError(f"the guest says that the module's code is at {code}", "a defect of the guest's agent")
    found = ((code[section] + offset, name) for section, name, offset in functions(Elf(module)) if section in code)
    return [f"{address:016x} t {name} [{Path(AT).stem}]" for address, name in sorted(found)]
