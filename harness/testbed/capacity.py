"""How many guests this machine carries at once.

In: the machine (cores that this process may use, memory that is left, limits of its control groups) and the size of a guest. Out:
numbers. Rule: a guest is counted as if it had touched all of its memory, since a clone grows as it runs; what the page cache holds
counts as free, and so do templates, which are files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from harness.testbed.errors import TestbedError

MiB = 1 << 20
OVERHEAD = (
    190 * MiB
)  # beside the guest's own memory: its QEMU (60 to 80 under emulation), its three Python processes (110)
MEASURED = "workers.json"  # in the cache
UNLIMITED = 1 << 62
V1_UNLIMITED = 1 << 60  # what cgroup v1 calls no limit is near LONG_MAX, rounded down to a page


def guest_needs(memory: int) -> int:
    """Bytes that a guest of `memory` MiB may come to take, with the processes around it."""
    return memory * MiB + OVERHEAD


def require_memory(memory: int, root: Path = Path("/")) -> None:
    """Raises TestbedError if not even one guest of `memory` MiB fits."""
    if (free := available_memory(root)) < guest_needs(memory):
        raise TestbedError(
            f"a guest of {memory} MiB may come to need {guest_needs(memory) // MiB} MiB with what is around it, "
            f"{free // MiB} MiB are free",
            "end other programs, run fewer cases at once (-n), or give the guest less: guest.memory",
        )


def carried(memory: int, root: Path = Path("/"), cache: Path | None = None) -> int:
    """Guests of `memory` MiB that run well side by side, at least 1: as many as were measured to be best here (`remember`), else
    two for each core, since a case waits for carriers and deadlines half of its time; as long as memory lasts."""
    wanted = measured(cache, root) if cache is not None else None
    return max(1, min(wanted or 2 * cores(root), available_memory(root) // guest_needs(memory)))


def remember(workers: int, cache: Path, root: Path = Path("/")) -> None:
    """Keep what `bench growth` found best on so many cores. Raises OSError."""
    cache.mkdir(parents=True, exist_ok=True)
    aside = cache / f".{MEASURED}.{os.getpid()}"
    aside.write_text(json.dumps({"cores": cores(root), "workers": workers}))
    aside.replace(cache / MEASURED)


def measured(cache: Path, root: Path = Path("/")) -> int | None:
    """What `remember` kept, if it was on as many cores as there are now."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads((cache / MEASURED).read_text())
        if known["cores"] == cores(root) and type(known["workers"]) is int and known["workers"] > 0:
            return int(known["workers"])
    return None


def cores(root: Path = Path("/")) -> int:
    """Processors that this process may use: its affinity, or less where a control group's quota says so."""
    quotas = [_quota(folder) for folder in _groups(root)]
    return max(1, min(len(os.sched_getaffinity(0)), *quotas, UNLIMITED))


def _quota(group: Path) -> int:
    """cpu.max of cgroup v2: microseconds of processor time a period, or `max`."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (int(word) for word in (group / "cpu.max").read_text().split())
        return max(1, round(quota / period))
    return UNLIMITED


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that new processes can have: what the machine has left, or less where a control group says so (memory.max of
    cgroup v2, memory.limit_in_bytes of v1), this process's or one above it."""
    lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
    free = next(int(words[1]) << 10 for words in lines if words[0] == "MemAvailable:")
    v2 = (_left(group, "memory.max", "memory.current", "file") for group in _groups(root))
    v1 = (
        _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
        for group in _groups(root, "memory")
    )
    return min([free, *v2, *v1])


def _groups(root: Path, controller: str = "") -> Iterator[Path]:
    """The control group of this process and those above it; `controller` of cgroup v1, or v2's only hierarchy."""
    with contextlib.suppress(OSError, StopIteration):
        memberships = (line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines())
        own = next(path for _, names, path in memberships if controller in names.split(","))
        top = root / "sys/fs/cgroup" / controller
        if not controller and (top / "unified").is_dir():
            top = top / "unified"
        folder = top / own.lstrip("/")
        yield from (each for each in (folder, *folder.parents) if each.is_relative_to(top))


def _left(group: Path, limit_name: str, used_name: str, cache_name: str) -> int:
    """The limit less what is used; files in the page cache give way."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
        limit, used = (int((group / name).read_text()) for name in (limit_name, used_name))
        if limit >= V1_UNLIMITED:
            return UNLIMITED
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(limit - used + int(stat.get(cache_name, 0)), 0)
    return UNLIMITED
