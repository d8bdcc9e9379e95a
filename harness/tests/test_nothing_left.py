"""Killed with SIGKILL at any moment, the harness leaves no QEMU, no tap, no namespace and no lock, and the next run works."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.run import Bench, load

DEADLINE = 10.0  # seconds for the kernel to end orphans; it needs milliseconds


def processes_below(marker: str) -> dict[int, str]:
    """Processes (pid -> command line) whose environment carries `marker`: everything a run has started, however deep."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if marker.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")[:100]
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def interfaces() -> set[str]:
    return {name for _, name in __import__("socket").if_nameindex()}


def wait_until_gone(marker: str) -> dict[int, str]:
    """What is still there after all processes with `marker` had time to end; woken by their ends."""
    deadline = time.monotonic() + DEADLINE
    while left := processes_below(marker):
        if time.monotonic() > deadline:
            return left
        try:
            pidfd = os.pidfd_open(next(iter(left)))
        except ProcessLookupError:
            continue
        select.select([pidfd], [], [], 1.0)
        os.close(pidfd)
    return {}


@pytest.mark.guest
@pytest.mark.parametrize("seed", range(6))
def test_sigkill_at_a_random_moment_leaves_nothing(bench: Bench, testcases: Path, tmp_path: Path, seed: int) -> None:
    case = testcases / "drop" / "our-stack-records.yaml"
    for plan in load([case], bench.options)[:1]:
        bench.prepare(plan)  # so that the moment falls into a case, not into a template
    marker = f"NETPOLL_TEST_MARKER=kill-{os.getpid()}-{seed}"
    before = interfaces()
    command = [sys.executable, "-m", "harness.cli", "run", str(case), "--results", str(tmp_path / "runs")]
    name, _, value = marker.partition("=")
    run = subprocess.Popen(
        command, env={**os.environ, name: value}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    moment = random.Random(seed).uniform(0.2, 4.0)
    try:
        run.wait(moment)
    except subprocess.TimeoutExpired:
        started = processes_below(marker)
        assert run.pid in started
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert wait_until_gone(marker) == {}, f"left after SIGKILL at {moment:.2f} s (seed {seed})"
    assert interfaces() == before


@pytest.mark.guest
def test_after_a_kill_the_next_run_works(bench: Bench, testcases: Path) -> None:
    plan = load([testcases / "send" / "datagrams-out.yaml"], bench.options)[-1]
    verdict, folder = bench.run(plan)
    assert verdict.word == "PASS", (verdict.why, folder)


@pytest.mark.guest
def test_sigkill_while_a_template_is_made_leaves_no_template(bench: Bench, testcases: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(
        (testcases / "send" / "datagrams-out.yaml")
        .read_text()
        .replace("guest:\n", f"guest:\n  memory: {260 + os.getpid() % 37}\n", 1)  # a shape that no other run uses
    )
    plan = load([tmp_path / "odd.yaml"], bench.options)[0]
    digest = bench.ingredients(plan.machine).digest()
    home = bench.options.cache / "templates"
    marker = f"NETPOLL_TEST_MARKER=template-{os.getpid()}"
    name, _, value = marker.partition("=")
    command = [sys.executable, "-m", "harness.cli", "run", str(tmp_path / "odd.yaml"), "--results", str(tmp_path / "r")]
    run = subprocess.Popen(
        command, env={**os.environ, name: value}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert run.stderr is not None
    for line in run.stderr:
        if "booting" in line:
            break
    run.kill()
    run.wait()
    run.stderr.close()
    assert wait_until_gone(marker) == {}
    assert not (home / digest).exists()
    bench.prepare(plan)
    assert (home / digest / "template.json").exists()
    assert not list(home.glob(f".{digest}.new"))
    for file in (home / digest).iterdir():
        file.unlink()
    (home / digest).rmdir()
