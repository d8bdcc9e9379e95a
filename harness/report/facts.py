"""What a run was asked for and what machine it ran on: run.json beside the cases' folders.

Out: names and values for the report's environment. Rule: nothing that names the machine or its user.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

CPUINFO, MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")


def facts(argv: Sequence[str]) -> dict[str, str]:
    """`argv`: the words after the program's name."""
    return {
        "command": shlex.join(["netpoll-harness", *argv]),
        "host kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "host processor": f"{_value(CPUINFO, 'model name') or platform.machine()}, {len(os.sched_getaffinity(0))} usable",
        "host memory": f"{int((_value(MEMINFO, 'MemTotal') or '0 kB').split()[0]) >> 10} MiB",
        "host python": platform.python_version(),
    }


def _value(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
