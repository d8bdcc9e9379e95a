"""How time grows with the number of cases, and what more workers bring: runs of the whole harness, as somebody would start them.

In: numbers of cases and of workers. Out: Points, a table, an SVG. Rule: each run is a process of its own that is started by the same words
as on a command line, and it counts only if every case of it passed.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import images
from harness.bench import check
from harness.run import Options
from harness.testbed.capacity import available_memory, guest_needs
from harness.testbed.errors import TestbedError
from images.process import guarded

CASES = (1, 10, 50, 100, 200)
WORKERS = (1, 2, 4, 8)
SHARED = 50  # cases of each run that compares workers
MEMORY = 256  # MiB of the check's guest, the default of a testcase


@dataclass(frozen=True)
class Point:
    """One run. `processor`: seconds of processor time of all its processes."""

    cases: int
    workers: int
    seconds: float
    processor: float

    @property
    def a_minute(self) -> float:
        """Verified cases a minute."""
        return 60 * self.cases / self.seconds


def sweep(cases: Sequence[int], workers: Sequence[int], usual: int, shared: int) -> list[tuple[int, int]]:
    """Which runs: each number of cases with the `usual` workers, and `shared` cases with each number of workers."""
    runs = [(number, usual) for number in cases] + [(shared, each) for each in workers]
    return list(dict.fromkeys(runs))


def fitting(workers: Sequence[int], free: int | None = None) -> tuple[int, ...]:
    """Those numbers of workers that memory carries, at least one; `free`: bytes, default what there is."""
    free = available_memory() if free is None else free
    return tuple(each for each in workers if each * guest_needs(MEMORY) <= free) or (1,)


def run(cases: int, workers: int, options: Options, words: Sequence[str]) -> Point:
    """One run of `cases` with `workers`. `words`: what of `options` the run is told. Raises TestbedError if one case did not pass."""
    with images.Store(options.cache).scratch() as made:
        path = check.write(made, cases, options.nic or "virtio-net")
        argv = [sys.executable, "-m", "harness", "run", str(path), "--results", f"{made}/runs", *words]
        argv += ["-n", str(workers)] if workers > 1 else []
        before, began = _processor(), time.monotonic()
        done = subprocess.run(
            guarded(argv), capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"}
        )
        seconds = time.monotonic() - began
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise TestbedError(
                f"{cases} cases with {workers} workers ended with {done.returncode}:\n{said}", "run them by hand"
            )
        return Point(cases, workers, seconds, _processor() - before)


def _processor() -> float:
    """Of all processes that ended below this one, and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def best(points: Sequence[Point], shared: int) -> int:
    """The number of workers with the most cases a minute; of those within 5 % of it the smallest, which needs the least memory."""
    compared = [point for point in points if point.cases == shared]
    most = max(point.a_minute for point in compared)
    return min(point.workers for point in compared if point.a_minute >= 0.95 * most)


def table(points: Sequence[Point], shared: int) -> list[str]:
    """A line a run."""
    head = f"{'cases':>6} {'workers':>8} {'seconds':>9} {'cases a minute':>15} {'processors busy':>16}"
    lines = [
        f"{p.cases:6} {p.workers:8} {p.seconds:9.1f} {p.a_minute:15.0f} {p.processor / p.seconds:16.2f}" for p in points
    ]
    return [head, *lines, f"best for {shared} cases: {best(points, shared)} workers"]


WIDE, TALL, LEFT, TOP = 300, 200, 56, 30  # of a panel's plot, in SVG units; and its margins
STYLE = (
    "text{font:12px sans-serif;fill:#333}path{fill:none}.axis{stroke:#999}.line{stroke:#2563a8;stroke-width:2}"
    "circle{fill:#2563a8}.head{font-weight:bold}"
)


def svg(points: Sequence[Point], usual: int, shared: int) -> str:
    """Two panels: seconds over cases, cases a minute over workers."""
    grown = sorted({p.cases: (float(p.cases), p.seconds) for p in points if p.workers == usual}.values())
    spread = sorted({p.workers: (float(p.workers), p.a_minute) for p in points if p.cases == shared}.values())
    panels = [
        _panel(0, f"seconds over cases, {usual} workers", grown),
        _panel(WIDE + 2 * LEFT, f"cases a minute over workers, {shared} cases", spread),
    ]
    wide, tall = 2 * (WIDE + 2 * LEFT), TALL + 2 * TOP + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}">'
        f"<style>{STYLE}</style>{''.join(panels)}</svg>\n"
    )


def _panel(left: int, title: str, places: Sequence[tuple[float, float]]) -> str:
    most_x = max((x for x, _ in places), default=1.0) or 1.0
    most_y = max((y for _, y in places), default=1.0) or 1.0
    dots = [(LEFT + WIDE * x / most_x, TOP + TALL - TALL * y / most_y) for x, y in places]
    marks = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/><text x="{x:.1f}" y="{y - 7:.1f}" text-anchor="middle">{value:.0f}</text>'
        f'<text x="{x:.1f}" y="{TOP + TALL + 16}" text-anchor="middle">{at:g}</text>'
        for (x, y), (at, value) in zip(dots, places, strict=True)
    ]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
    return (
        f'<g transform="translate({left} 0)"><text class="head" x="{LEFT}" y="14">{title}</text>'
        f'<path class="axis" d="M{LEFT} {TOP}V{TOP + TALL}H{LEFT + WIDE}"/>'
        f'<path class="line" d="M{line}"/>{"".join(marks)}</g>'
    )
