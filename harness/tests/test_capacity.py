"""How many guests a machine carries: its cores, its memory, its control groups; and that one too many is refused with words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.run import Options
from harness.testbed.capacity import (
    OVERHEAD,
    MiB,
    available_memory,
    carried,
    cores,
    guest_needs,
    measured,
    remember,
    require_memory,
)
from harness.testbed.errors import TestbedError
from harness.workers import auto, largest, too_many

ROOT = Path(__file__).resolve().parents[2]

MEMORY: dict[str, tuple[Mapping[str, str], int]] = {
    "no control groups": ({}, 800 << 20),
    "unlimited": ({"a/memory.max": "max", "a/memory.current": "5", "a/memory.stat": "file 1"}, 800 << 20),
    "our group's limit": (
        {"a/b/memory.max": str(300 << 20), "a/b/memory.current": str(100 << 20), "a/b/memory.stat": "anon 1\nfile 0"},
        200 << 20,
    ),
    "the group above": (
        {"a/memory.max": str(300 << 20), "a/memory.current": str(250 << 20), "a/memory.stat": "file 0"},
        50 << 20,
    ),
    "files in the cache give way": (
        {"a/memory.max": str(300 << 20), "a/memory.current": str(300 << 20), "a/memory.stat": f"file {90 << 20}"},
        90 << 20,
    ),
    "cgroup v1": (
        {
            "memory/c/memory.limit_in_bytes": str(300 << 20),
            "memory/c/memory.usage_in_bytes": str(200 << 20),
            "memory/c/memory.stat": f"cache 7\ntotal_cache {20 << 20}",
        },
        120 << 20,
    ),
    "cgroup v1 without a limit": (
        {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"},
        800 << 20,
    ),
    "over the limit": (
        {"a/memory.max": "1000", "a/memory.current": "2000", "a/memory.stat": "file 0"},
        0,
    ),
}


def machine(root: Path, groups: Mapping[str, str], free: int = 800 << 20) -> Path:
    """The files of a machine with `free` bytes, below `root`."""
    files = {
        "proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {free >> 10} kB\n",
        "proc/self/cgroup": "4:memory:/c\n0::/a/b\n",
        **{f"sys/fs/cgroup/{path}": text for path, text in groups.items()},
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(("groups", "expected"), MEMORY.values(), ids=MEMORY.keys())
def test_memory_is_what_machine_and_control_groups_leave(
    tmp_path: Path, groups: Mapping[str, str], expected: int
) -> None:
    assert available_memory(machine(tmp_path, groups)) == expected


QUOTAS = {"no quota": ("max 100000", 64), "two cores": ("200000 100000", 2), "half a core": ("50000 100000", 1)}


@pytest.mark.parametrize(("quota", "expected"), QUOTAS.values(), ids=QUOTAS.keys())
def test_cores_are_what_affinity_and_quota_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    assert cores(machine(tmp_path, {"a/cpu.max": quota})) == expected


CARRIED = {  # bytes free, cores, MiB of a guest -> guests
    "cores are fewer": (100 * guest_needs(256), 4, 256, 8),
    "memory is less": (3 * guest_needs(256) + 5, 4, 256, 3),
    "larger guests are fewer": (3 * guest_needs(256) + 5, 4, 1024, 1),
    "one at least": (1, 4, 256, 1),
}


@pytest.mark.parametrize(("free", "processors", "memory", "expected"), CARRIED.values(), ids=CARRIED.keys())
def test_as_many_guests_as_cores_and_memory_carry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, processors: int, memory: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))
    assert carried(memory, machine(tmp_path, {}, free + 1024)) == expected


def test_the_largest_guest_among_the_testcases_counts(testcases: Path, tmp_path: Path) -> None:
    one = testcases / "send" / "datagrams-out.yaml"
    large = tmp_path / "large.yaml"
    large.write_text(one.read_text().replace("guest:\n", "guest:\n  memory: 1024\n", 1))
    options = Options(results=tmp_path)
    assert largest([str(one)], options) == 256
    assert largest([str(one), f"{large}::large[nic=e1000]"], options) == 1024
    assert largest([str(ROOT / "harness")], options) == 0
    assert auto([str(ROOT / "harness")], options) >= 1


def test_one_worker_too_many_is_named_with_the_number_that_fits() -> None:
    free = 3 * guest_needs(256) + MiB
    assert too_many(3, 256, free) is None
    said = too_many(4, 256, free)
    assert said is not None
    assert f"-n 4: so many guests of 256 MiB may come to need {4 * (256 + OVERHEAD // MiB)} MiB" in said
    assert "-n 3, or -n auto" in said


def test_a_guest_larger_than_the_memory_is_refused_before_it_is_started(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"a guest of 1024 MiB may come to need \d+ MiB.*, 800 MiB are free"):
        require_memory(1024, machine(tmp_path, {}))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.guest
def test_more_guests_than_memory_are_2_with_words(testcases: Path, tmp_path: Path) -> None:
    """The largest guests that a testcase can ask for, more of them than any machine has memory for."""
    case = tmp_path / "large.yaml"
    good = (testcases / "send" / "datagrams-out.yaml").read_text()
    case.write_text(good.replace("guest:\n", "guest:\n  memory: 16384\n", 1))
    many = available_memory() // guest_needs(16384) + 2
    done = run(case, "-n", str(many), "--results", tmp_path / "r")
    said = done.stdout + done.stderr
    assert done.returncode == (2 if available_memory() >= guest_needs(16384) else 3), said
    assert "guests of 16384 MiB may come to need" in said or "a guest of 16384 MiB may come to need" in said
    assert "MiB are free" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "r").glob("*/evidence.jsonl"))


def test_what_was_measured_to_be_best_is_taken_but_never_more_than_memory_carries(tmp_path: Path) -> None:
    remember(5, tmp_path)
    assert measured(tmp_path) == 5
    fits = available_memory() // guest_needs(64)
    assert carried(64, cache=tmp_path) == min(5, fits)
    assert carried(available_memory() // 2 // MiB, cache=tmp_path) == 1


@pytest.mark.parametrize(
    "kept", ["", "[]", '{"cores": 4096, "workers": 9}', '{"cores": CORES, "workers": 0}', '{"cores": CORES}'],
    ids=["empty", "no object", "other cores", "no worker", "half"],
)  # fmt: skip
def test_what_was_kept_of_another_machine_or_is_damaged_is_not_taken(tmp_path: Path, kept: str) -> None:
    (tmp_path / "workers.json").write_text(kept.replace("CORES", str(cores())))
    assert measured(tmp_path) is None
    assert carried(64, cache=tmp_path) == carried(64)
