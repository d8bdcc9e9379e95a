"""How fast a dump is: against the bare UDP stream of the same dump, over a wire that loses some, and against makedumpfile into ssh and onto NFS; in one run.

In: a Bench, how many rounds. Out: figures, as lines and as JSON. Rule: the ways take turns within a round, in guests of one template's size and kernel, and
a figure counts only if the dump that it speaks of is whole and opens.

What a dump in datagrams is held against is `udp`: makedumpfile's stream put into datagrams by the simplest program, which nobody acknowledges and
nobody keeps. Makedumpfile's own time is in it as in every dump. `bare` sends as many frames of nothing: the bound of wire and NIC alone.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import images
from harness.case import Job
from harness.plan.model import Plan
from harness.run import Bench, load
from images.capture import Other

Say = Callable[[str], None]
CASE = """\
about: the memory of a guest that panicked arrives, for the bench

guest:
  memory: 768
  nics:
    n0: {{model: virtio-net}}

dump: {{device: n0, {how}}}

steps:
  - crash: {{how: sysrq-c}}
  - wait: {{dump: complete, within: 600}}

expect:
  - dumped: {{at_least: 1000}}

timeout: 900
"""
CHUNK = 1448  # bytes of a dump in a frame
WAYS = {"netdump": "lose: 0", "netdump, our driver": "driver: pmd", "netdump, 1 % lost": "lose: 1"}
TITLES = {
    "udp": "the dump's bare UDP stream",
    "bare": "as many frames of nothing",
    "ssh": "makedumpfile into ssh",
    "nfs": "makedumpfile onto NFS",
}
WIDTH = max(map(len, (*TITLES.values(), *WAYS)))
OTHERS: tuple[Other, ...] = ("ssh", "nfs")
GOAL_BARE, GOAL_LOSS = 2.0, 1.2  # times as long, at most


@dataclass
class Figures:
    """Seconds of each round. `wire`: from the first frame to the dump being whole; `panic`: from the panic on."""

    size: int = 0
    wire: dict[str, list[float]] = field(default_factory=dict)
    panic: dict[str, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, way: str, wire: float, panic: float | None) -> None:
        self.wire.setdefault(way, []).append(round(wire, 3))
        if panic is not None:
            self.panic.setdefault(way, []).append(round(panic, 3))


def measure(bench: Bench, folder: Path, rounds: int, say: Say) -> Figures:
    """Raises AssertionError if a dump was not whole: then the figures mean nothing; ImageError, TestbedError."""
    plans = {way: _plan(bench, folder, number, how) for number, (way, how) in enumerate(WAYS.items())}
    job = bench.prepare(plans["netdump"])
    peers = {other: _with(bench, job, other) for other in OTHERS}
    figures = Figures()
    for number in range(rounds):
        _ours(bench, plans["netdump"], "netdump", figures)
        for way in ("udp", "bare"):
            _peer(job, folder, way, figures)
        for way in list(plans)[1:]:
            _ours(bench, plans[way], way, figures)
        for other, peer in peers.items():
            _peer(peer, folder, other, figures)
        say(f"round {number + 1}: " + ", ".join(f"{way} {seconds[-1]:.1f} s" for way, seconds in figures.wire.items()))
    return figures


def _plan(bench: Bench, folder: Path, number: int, how: str) -> Plan:
    path = folder / f"dump-{number}.yaml"
    path.write_text(CASE.format(how=how))
    (plan,) = load([path], bench.options)
    return plan


def _with(bench: Bench, job: Job, other: Other) -> Job:
    """The same job with a capture kernel that can do what others do, too."""

    def made(kernel: images.Kernel, builder: images.Builder) -> images.CaptureImage:
        if other == "nfs":
            images.ensure_nfs_server(builder)  # now: the peer's own process has no network to fetch it from
        return images.ensure_capture(kernel, builder, other=other)

    return bench.with_capture(job, made)


def _ours(bench: Bench, plan: Plan, way: str, figures: Figures) -> None:
    verdict, folder = bench.run(plan)
    assert verdict.word == "PASS", f"{way}: {verdict.word}: {verdict.why} ({folder})"
    numbers = next(check.numbers for check in verdict.checks if check.check == "dumped")
    figures.size = int(numbers["size"])
    figures.add(way, numbers["seconds"] - numbers["first_packet"], numbers["seconds"])


def _peer(job: Job, folder: Path, way: str, figures: Figures) -> None:
    """In a process with namespaces of its own. What fails there leaves this peer out, with its words."""
    work = folder / f"{way}-{len(figures.wire.get(way, []))}"
    work.mkdir()
    given = {"way": way, "frames": -(-figures.size // CHUNK)}
    command = [
        "unshare",
        "-m",
        "-n",
        "--kill-child",
        "--fork",
        sys.executable,
        "-m",
        "harness.bench.capture_peer",
        json.dumps(given),
    ]
    done = subprocess.run(command, input=pickle.dumps(replace(job, folder=work)), capture_output=True, check=False)
    if done.returncode:
        figures.left_out[way] = done.stderr.decode(errors="replace").strip()[-1000:]
        return
    found: Mapping[str, Any] = json.loads(done.stdout)
    figures.add(way, found["wire"], found.get("panic"))


def table(figures: Figures) -> list[str]:
    """The medians, and ratios against what they are held against."""
    lines = [
        f"a dump of {figures.size / (1 << 20):.1f} MiB",
        f"{'':{WIDTH}}  {'on the wire':>12}  {'from the panic':>15}",
    ]
    for way, seconds in figures.wire.items():
        panic = figures.panic.get(way)
        lines.append(
            f"{TITLES.get(way, way):{WIDTH}}  {median(seconds):10.2f} s  "
            + (f"{median(panic):13.2f} s" if panic else "")
        )
    lines += [
        f"{name}: {ratio:.2f} times as long (goal {goal:g} at most: {'met' if ratio <= goal else 'MISSED'})"
        for name, ratio, goal in goals(figures)
    ]
    for way in (each for each in OTHERS if each in figures.wire):
        ratio = median(figures.panic[way]) / median(figures.panic["netdump"])
        lines.append(f"{TITLES[way]} against netdump, from the panic: {ratio:.2f} times as long")
    return [*lines, *(f"{way} was left out: {why}" for way, why in figures.left_out.items())]


def goals(figures: Figures) -> list[tuple[str, float, float]]:
    """Name, ratio, what it may be at most."""
    ours = median(figures.wire["netdump"])
    found = [("netdump, 1 % lost, against none", median(figures.wire["netdump, 1 % lost"]) / ours, GOAL_LOSS)]
    for way in ("netdump", "netdump, our driver"):
        if "udp" in figures.wire and way in figures.wire:
            ratio = median(figures.wire[way]) / median(figures.wire["udp"])
            found.append((f"{way}, against the bare UDP stream of the dump", ratio, GOAL_BARE))
    return found


def met(figures: Figures) -> bool:
    """Every goal."""
    return not figures.left_out and all(ratio <= goal for _, ratio, goal in goals(figures))
