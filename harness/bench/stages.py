"""Where the time of a case goes: evidence -> seconds a stage.

In: a case's events, or a folder of cases. Out: {stage: seconds}, and a table. Rule: the stages follow each other without a gap, so
they add up to the case; what is seen to end belongs to the stage that ended, and no event is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.observe.events import read_evidence

Event = Mapping[str, Any]

# In the order of a case. The first two and the last three lie outside its evidence and are known to whoever ran it.
STAGES = (
    "prepare",  # look up images and template, make the folder
    "fork",  # the zygote forks, the child enters its namespace; and its end
    "spawn QEMU",
    "QMP greeting",
    "restore",  # device state from the template, `cont`
    "agent",  # its first answers, and the clocks compared
    "tap",
    "device_add",
    "driver bound",
    "carrier",
    "stack started",
    "other set-up",
    "traffic",
    "panic",  # from the crash on
    "settle",
    "take down",
    "judge",
    "report",
)
TIMINGS = {"spawn": "spawn QEMU", "qemu": "QMP greeting", "migrated": "restore", "restore": "agent"}
SET_UP = {
    "AddTap": "tap",
    "AddWire": "tap",
    "getfd": "tap",
    "netdev_add": "tap",
    "Serve": "device_add",
    "device_add": "device_add",
    "nic_wait at guest": "driver bound",
    "nic_up at guest": "carrier",
    "bond_create at guest": "carrier",
    "await carrier": "carrier",
    "np_open at host": "stack started",
    "np_open at guest": "stack started",
    "netconsole_open at guest": "stack started",
}


def of_events(events: Iterable[Event]) -> dict[str, float]:
    """Seconds of each stage that the evidence of one case shows."""
    stages: dict[str, float] = {}
    last, crashed = 0.0, False
    for event in events:
        crashed = crashed or (event["src"], event["kind"]) == ("inject", "crash")
        if (stage := _ended(event, crashed)) is not None:
            stages[stage] = stages.get(stage, 0.0) + max(0.0, event["t"] - last)
            last = max(last, event["t"])
    return stages


def _ended(event: Event, crashed: bool) -> str | None:
    """The stage that this event is the end of, or of a part of it."""
    if event["src"] != "run":
        return None
    match event["kind"]:
        case "timing":
            return TIMINGS.get(event["what"])
        case "did" if event["step"] == 0:
            return SET_UP.get(event["what"], "other set-up")
        case "did":
            return "panic" if crashed else "traffic"
        case "settled":
            return "settle"
        case "end":
            return "take down"
    return None


def of_case(folder: Path, laps: Mapping[str, float] | None = None) -> dict[str, float]:
    """As `of_events`; with the laps of `Bench.run` also what lies around the evidence."""
    stages = of_events(read_evidence(folder / "evidence.jsonl"))
    if not laps:
        return stages
    around = {**laps, "fork": max(0.0, laps["process"] - sum(stages.values()))}
    return {name: {**stages, **around}[name] for name in STAGES if name in stages or name in around}


def table(cases: Sequence[Mapping[str, float]]) -> list[str]:
    """Median, worst, and share of the whole, a line a stage."""
    whole = sum(sum(case.values()) for case in cases) or 1.0
    lines = [f"{'stage':14} {'median ms':>10} {'worst ms':>10} {'share':>7}"]
    for name in STAGES:
        if seconds := [case[name] for case in cases if name in case]:
            lines.append(
                f"{name:14} {median(seconds) * 1e3:10.1f} {max(seconds) * 1e3:10.1f} {sum(seconds) / whole:7.1%}"
            )
    totals = [sum(case.values()) for case in cases]
    return [*lines, f"{'together':14} {median(totals) * 1e3:10.1f} {max(totals) * 1e3:10.1f}"] if cases else []
