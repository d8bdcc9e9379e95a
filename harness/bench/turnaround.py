"""How long a case takes: restored from the RAM template, against the same guest booted anew, against virtme-ng; in one run.

In: a Bench, a plan, how many rounds, which peers. Out: a Result, as lines and as JSON. Rule: the ways take turns, so that a noisy
machine is noisy for all; a peer that cannot run here is named with the reason, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import images
from harness.bench import stages, virtme
from harness.observe.events import read_evidence
from harness.plan.model import Plan
from harness.run import Bench
from harness.testbed.qemu import Accel
from harness.zygote import copyable

Say = Callable[[str], None]
PEERS = ("boot", "virtme-ng")
# What is asked for under emulation: seconds at most, or times as fast at least.
GOALS_SECONDS = {"restore to agent": 0.2, "restore to verdict": 0.8, "copy to agent": 0.2, "copy to verdict": 0.8}
TRIES = 40  # cases until one is copied: an original is warm after a few
GOALS_RATIO = {"virtme-ng": 10.0}


@dataclass(frozen=True)
class Result:
    """Seconds of each round. `stages`: of each restored case; `left_out`: peers that could not run, and why."""

    case: str
    accel: Accel
    restored: tuple[float, ...]
    restore_to_agent: tuple[float, ...]
    peers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[Mapping[str, float], ...] = ()
    copied: tuple[float, ...] = ()  # none where machines are not copied
    copy_to_agent: tuple[float, ...] = ()
    clones: tuple[float, ...] = ()  # MiB that 1, 2, 3... idle clones take together

    def ratio(self, peer: str) -> float:
        """How many times longer the peer takes."""
        return median(self.peers[peer]) / median(self.usual)

    @property
    def usual(self) -> tuple[float, ...]:
        """What a case of a run of several takes."""
        return self.copied or self.restored

    def as_json(self) -> dict[str, Any]:
        """Everything, with the medians and ratios that the lines tell."""
        ratios = {peer: round(self.ratio(peer), 2) for peer in self.peers}
        return {**vars(self), "ratios": ratios}


def measure(bench: Bench, plan: Plan, rounds: int, peers: Sequence[str], builder: images.Builder, say: Say) -> Result:
    """Run `plan` `rounds` times each way. AssertionError if a verdict is not PASS: then the figures mean nothing."""
    job = bench.prepare(plan)
    accel = job.ingredients.accel
    plan = plan.model_copy(update={"timeout": plan.timeout + 180})  # room for a boot
    _one(bench, plan)  # the first case also starts the process that forks the others
    copies = _until_copied(bench, plan)
    seconds: dict[str, list[float]] = {"restored": [], "agent": [], "copied": [], "copy": []}
    split: list[Mapping[str, float]] = []
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        ways = _ways(stack, bench, plan, peers, builder, accel, left_out)
        for number in range(rounds):
            took, agent, where = _one(bench, plan, fresh=True)
            seconds["restored"].append(took)
            seconds["agent"].append(agent)
            say(f"round {number + 1}: restored {took:.2f} s (agent after {agent:.2f} s)")
            if copies:
                took, agent, where = _one(bench, plan)
                seconds["copied"].append(took)
                seconds["copy"].append(agent)
                say(f"  copied {took:.2f} s (agent after {agent:.2f} s)")
            split.append(where)
            _peers_in_turn(ways, seconds, left_out, say)
    measured = {peer: tuple(seconds[peer]) for peer in peers if seconds.get(peer)}
    restored, to_agent = tuple(seconds["restored"]), tuple(seconds["agent"])
    copied, copy = tuple(seconds["copied"]), tuple(seconds["copy"])
    return Result(plan.case, accel, restored, to_agent, measured, left_out, tuple(split), copied, copy)


def _ways(
    stack: ExitStack,
    bench: Bench,
    plan: Plan,
    peers: Sequence[str],
    builder: images.Builder,
    accel: Accel,
    left_out: dict[str, str],
) -> dict[str, Callable[[], float]]:
    """A function for each peer that runs one case of it; those that cannot are put into `left_out`."""
    ways: dict[str, Callable[[], float]] = {}
    if "boot" in peers:
        ways["boot"] = lambda: _one(bench, plan, cold=True)[0]
    if "virtme-ng" in peers:
        try:
            kernel = bench.kernel(plan.machine.kernel)
            ready = stack.enter_context(virtme.ready(kernel, bench.qemu(), accel, builder))
            ways["virtme-ng"] = lambda: virtme.run(ready)
        except virtme.CannotRun as error:
            left_out["virtme-ng"] = str(error)
    return ways


def _peers_in_turn(
    ways: Mapping[str, Callable[[], float]], seconds: dict[str, list[float]], left_out: dict[str, str], say: Say
) -> None:
    for peer, run in ways.items():
        if peer in left_out:
            continue
        try:
            took = run()
        except virtme.CannotRun as error:
            left_out[peer] = str(error)
            say(f"  {peer} cannot run: {error}")
            continue
        seconds.setdefault(peer, []).append(took)
        say(f"  {peer} {took:.2f} s")


def _until_copied(bench: Bench, plan: Plan) -> bool:
    """Run it until its machine is a copy, which is so after a few times; False where machines are not copied."""
    if bench.copies() is None or not copyable(bench.prepare(plan)):
        return False
    for _ in range(TRIES):
        _, folder = bench.run(plan)
        if next(read_evidence(folder / "evidence.jsonl"))["machine"] == "copied":
            return True
    raise AssertionError(f"of {TRIES} cases none was copied")


def _one(bench: Bench, plan: Plan, cold: bool = False, fresh: bool = False) -> tuple[float, float, Mapping[str, float]]:
    """Seconds to the verdict and to the agent, and where they went."""
    began = time.monotonic()
    verdict, folder = bench.run(plan, cold=cold, fresh=fresh)
    seconds = time.monotonic() - began
    if verdict.word != "PASS":
        raise AssertionError(f"{plan.case} is {verdict.word}: {verdict.why} ({folder})")
    timings = {e["what"]: e["seconds"] for e in read_evidence(folder / "evidence.jsonl") if e["kind"] == "timing"}
    return seconds, float(timings["restore"]), stages.of_case(folder, bench.laps)


def table(result: Result) -> list[str]:
    """The figures as lines, with the goals."""
    rows = {"restore to agent": result.restore_to_agent, "restore to verdict": result.restored}
    rows |= {"copy to agent": result.copy_to_agent, "copy to verdict": result.copied} if result.copied else {}
    rows |= result.peers
    usual = "copied" if result.copied else "restored"
    lines = [f"{name:20} {_figures(seconds)}{_goal(name, seconds)}" for name, seconds in rows.items()]
    for peer in result.peers:
        ratio, least = result.ratio(peer), GOALS_RATIO.get(peer)
        word = "" if least is None else f"   (goal {least:g}x: {'met' if ratio >= least else 'MISSED'})"
        lines.append(f"{peer + ' / ' + usual:20} {ratio:6.1f}x{word}")
    lines += [f"{peer} was left out: {why}" for peer, why in result.left_out.items()]
    return [*lines, "", *stages.table(result.stages)]


def _figures(seconds: Sequence[float]) -> str:
    return f"median {median(seconds):6.2f} s   best {min(seconds):6.2f}   worst {max(seconds):6.2f}"


def _goal(name: str, seconds: Sequence[float]) -> str:
    most = GOALS_SECONDS.get(name)
    return "" if most is None else f"   (goal {most:g} s: {'met' if median(seconds) <= most else 'MISSED'})"
