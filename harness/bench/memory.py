"""What one more clone costs in memory: private dirty pages of its QEMU and of its case process, while it idles.

In: a Job whose case waits in its guest. Out: MiB that 1, 2, ... clones take together. Rule: measured when every clone says that it
idles; pages shared with the template, the original or the process that forks cases cost nothing and are not counted (proc(5), smaps_rollup).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness.case import Job
from harness.originals import Copies, Keeper
from harness.testbed.errors import TestbedError
from harness.zygote import From, Zygote, as_text, copyable, kind_of

MiB = 1 << 20
GOAL = 40.0  # MiB a clone
WITHIN = 60.0  # seconds until all clones idle
IDLE = """\
about: a guest that idles, for its memory to be measured

guest:
  nics:
    n0: {model: virtio-net}

endpoints:
  netconsole: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: netconsole}

steps:
  - send: {from: netconsole, count: 10, size: [16, 16]}
  - wait: {console: what nobody says, within: 100}

expect:
  - delivered: {from: netconsole, to: log, at_least_sent: 10}
"""


def measure(job: Job, folders: Callable[[], Path], most: int, forkable: Path | None) -> tuple[float, ...]:
    """MiB of 1, 2, ... `most` clones together: copies, where there is what makes a QEMU `forkable`. Raises TestbedError when one does
    not come to idle."""
    taken = []
    with job.template.ram.open("rb") as ram:
        os.fsync(
            ram.fileno()
        )  # until a template just made is on disk, its pages count as dirty, and as those of the first clone
    with ExitStack() as stack:
        keeper = None if forkable is None or not copyable(job) else stack.enter_context(Keeper())
        source = None if keeper is None or forkable is None else From(keeper.address, forkable)
        if source is not None:
            _until_warm(source, job)
        mine = () if keeper is None else (keeper.process.pid,)
        warm = {each for pid in mine for each in _below(pid)}
        for _ in range(most):
            folder = folders()
            zygote = Zygote()
            stack.callback(zygote.close)
            zygote.start()
            threading.Thread(target=_run, args=(zygote, replace(job, folder=folder), source), daemon=True).start()
            _until_idle(folder)
            copies = {each for pid in mine for each in _below(pid)} - warm
            taken.append(sum(_private(pid) for pid in {*cases(), *copies} - warm) / MiB)
    return tuple(taken)


def _until_warm(source: From, job: Job) -> None:
    """Until there is an original that gives copies."""
    like, text, until = kind_of(job), as_text(job), time.monotonic() + WITHIN
    asking = Copies(str(source.address))
    while (copy := asking.copy(like, str(source.forkable), text)) is None:
        if time.monotonic() > until:
            raise TestbedError(f"no original was warm within {WITHIN:g} s", "its words are above")
        time.sleep(0.05)  # between questions
    asking.done(copy)


def _run(zygote: Zygote, job: Job, source: From | None) -> None:
    try:
        zygote.run(job, source)
    except (RuntimeError, OSError, ValueError):
        return  # ended with the measurement


def _until_idle(folder: Path) -> None:
    """Until there is nothing to do any more but to wait: the first step has ended."""
    evidence, until = folder / "evidence.jsonl", time.monotonic() + WITHIN
    while time.monotonic() < until:
        if evidence.exists() and '"kind":"stage","step":2' in evidence.read_text(errors="replace"):
            return
        time.sleep(0.05)  # between looks at a file that another process writes
    raise TestbedError(f"a clone did not idle within {WITHIN:g} s", f"{evidence} shows how far it came")


def cases() -> list[int]:
    """Case processes below this one, with all that they started: the grandchildren, and what is below them."""
    children = _children(_self())
    return [pid for child in children for case in _children(child) for pid in (case, *_below(case))]


def _self() -> int:
    return int(Path("/proc/self").readlink().name)


def _below(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_below(child))]


def _children(pid: int) -> list[int]:
    """proc(5), task/TID/children: of every thread."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for file in files for word in file.read_text().split()]


def _private(pid: int) -> int:
    """Bytes of private dirty pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_Dirty:"))


def table(taken: Sequence[float]) -> list[str]:
    """A line for each number of clones, and what one more costs."""
    lines = [f"{number} idle: {mebibytes:7.1f} MiB private dirty" for number, mebibytes in enumerate(taken, 1)]
    each = (taken[-1] - taken[0]) / (len(taken) - 1) if len(taken) > 1 else taken[0]
    return [*lines, f"one more clone: {each:.1f} MiB   (goal {GOAL:g} MiB: {'met' if each <= GOAL else 'MISSED'})"]
