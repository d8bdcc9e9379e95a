"""`netpoll-harness bench turnaround|growth|capture|pmd|tg3`: sets the measurements up, prints them, and writes them where they are asked for.

In: options, a plan or none, which parts. Out: lines on standard output, NAME.txt, NAME.json and growth.svg in a folder. Rule: what a
bench runs leaves nothing behind but these files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import images
from harness.bench import capture, check, growth, memory, pmd, tg3, turnaround
from harness.plan.model import Plan
from harness.report import store
from harness.run import Bench, Options, bench, load
from harness.testbed.capacity import carried

Say = Callable[[str], None]


def run_turnaround(
    options: Options, plan: Plan | None, rounds: int, peers: Sequence[str], clones: int, output: Path | None, say: Say
) -> None:
    """Without a plan, the check that the peers run. Raises ImageError, TestbedError and AssertionError."""
    with images.Store(options.cache).scratch() as folder:
        options = replace(options, results=folder / "runs")
        chosen = plan or load([check.write(folder)], options)[0]
        builder = images.Builder(images.Store(options.cache), images.PlainText(), options.mirror)
        with bench(options, say) as ready:
            result = turnaround.measure(ready, chosen, rounds, peers, builder, say)
            taken = _clones(ready, folder, options, clones)
        result = replace(result, clones=taken)
        lines = [f"{chosen.case}: {rounds} rounds under {result.accel}", *turnaround.table(result)]
        tell("turnaround", [*lines, *(["", *memory.table(taken)] if taken else [])], result.as_json(), output)


def _clones(ready: Bench, folder: Path, options: Options, most: int) -> tuple[float, ...]:
    if most < 1:
        return ()
    path = folder / "idle.yaml"
    path.write_text(memory.IDLE)
    (plan,) = load([path], options)
    job = ready.prepare(plan)
    forkable = ready.forkable()
    ready.close()  # its own process that forks cases would be counted
    return memory.measure(job, lambda: store.new_case(options.results, plan, job.versions), most, forkable)


def run_pmd(options: Options, plan: Plan, rounds: int, output: Path | None, say: Say) -> bool:
    """As run_capture; `plan` says which guest."""
    with bench(options, say) as ready:
        job = ready.prepare(plan)
    figures = pmd.measure(job, rounds)
    tell("pmd", pmd.table(figures), dict(figures), output)
    return pmd.met(figures)


def run_tg3(options: Options, plan: Plan, rounds: int, output: Path | None, say: Say) -> bool:
    """As run_pmd; it has no goals that decide."""
    with bench(options, say) as ready:
        job = ready.prepare(plan)
    figures = tg3.measure(job, rounds)
    tell("tg3", tg3.table(figures), figures, output)
    return True


def run_capture(options: Options, rounds: int, output: Path | None, say: Say) -> bool:
    """Whether every goal was met. Raises ImageError, TestbedError and AssertionError."""
    with (
        images.Store(options.cache).scratch() as folder,
        bench(replace(options, results=folder / "runs"), say) as ready,
    ):
        figures = capture.measure(ready, folder, rounds, say)
    tell("capture", capture.table(figures), vars(figures), output)
    return capture.met(figures)


def run_growth(
    options: Options, cases: Sequence[int], workers: Sequence[int], words: Sequence[str], output: Path | None, say: Say
) -> int:
    """Returns the number of workers that was best. `words`: options of the runs. Raises TestbedError and OSError."""
    workers = growth.fitting(workers)
    usual, shared = carried(growth.MEMORY), min(growth.SHARED, max(cases))
    growth.run(1, 1, options, words)  # images and template are there afterwards
    points = []
    for number, each in growth.sweep(cases, workers, usual, shared):
        points.append(growth.run(number, each, options, words))
        say(f"{number} cases, {each} workers: {points[-1].seconds:.1f} s")
    figures = {"points": [vars(point) for point in points], "best": growth.best(points, shared)}
    tell("growth", growth.table(points, shared), figures, output)
    if output is not None:
        (output / "growth.svg").write_text(growth.svg(points, usual, shared))
    return growth.best(points, shared)


def tell(name: str, lines: Sequence[str], figures: dict[str, Any], output: Path | None) -> None:
    """Print; and keep both forms in `output`. Raises OSError."""
    print("\n".join(lines))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{name}.txt").write_text("\n".join(lines) + "\n")
        (output / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
