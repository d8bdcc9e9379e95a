"""How long a case takes: restored from the RAM template against booted anew, same guest, same case, one run.

In: a Bench and how many rounds. Out: rows of figures. Rule: the two ways take turns, so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.observe.events import read_evidence
from harness.plan.model import Plan
from harness.run import Bench


@dataclass(frozen=True)
class Rounds:
    """Seconds of each round, from asking for the case to holding its verdict."""

    restored: tuple[float, ...]
    booted: tuple[float, ...]
    restore_to_agent: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times longer a booted case takes."""
        return median(self.booted) / median(self.restored)


def measure(bench: Bench, plan: Plan, rounds: int, say: Callable[[str], None]) -> Rounds:
    """Run `plan` `rounds` times each way. AssertionError if a verdict is not PASS: then the figures mean nothing."""
    bench.prepare(plan)
    _one(bench, plan, False)  # the first case also starts the process that forks the others
    restored, booted, to_agent = [], [], []
    for number in range(rounds):
        seconds, agent = _one(bench, plan, False)
        cold, _ = _one(bench, plan, True)
        restored.append(seconds)
        to_agent.append(agent)
        booted.append(cold)
        say(f"round {number + 1}: restored {seconds:.2f} s (agent after {agent:.2f} s), booted {cold:.2f} s")
    return Rounds(tuple(restored), tuple(booted), tuple(to_agent))


def _one(bench: Bench, plan: Plan, cold: bool) -> tuple[float, float]:
    began = time.monotonic()
    verdict, folder = bench.run(plan, cold=cold)
    seconds = time.monotonic() - began
    if verdict.word != "PASS":
        raise AssertionError(f"{plan.case} is {verdict.word}: {verdict.why} ({folder})")
    timings = {e["what"]: e["seconds"] for e in read_evidence(folder / "evidence.jsonl") if e["kind"] == "timing"}
    return seconds, float(timings["restore"])


def table(rounds: Rounds) -> list[str]:
    """The figures as lines."""
    rows = {
        "restore to agent": rounds.restore_to_agent,
        "restore to verdict": rounds.restored,
        "boot to verdict": rounds.booted,
    }
    lines = [
        f"{name:20} median {median(v):6.2f} s   best {min(v):6.2f}   worst {max(v):6.2f}" for name, v in rows.items()
    ]
    return [*lines, f"{'booted / restored':20} {rounds.ratio:6.1f}x"]


def run(make: Callable[[Path], Bench], plan: Plan, rounds: int, say: Callable[[str], None]) -> Rounds:
    """`measure` with a results folder of its own, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="netpoll-bench-"))
    bench = make(folder)
    try:
        return measure(bench, _with_room(plan), rounds, say)
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


def _with_room(plan: Plan) -> Plan:
    """Room for a boot."""
    return plan.model_copy(update={"timeout": plan.timeout + 180})
