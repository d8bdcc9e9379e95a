"""What the cases of a run are doing now: read from their folders while they grow, so it works for any number of processes.

In: a results folder, polled. Out: one `Running` for each case without a verdict, and the lines of talk that came since. Rule: only evidence
and plans are read; nothing asks a case's process for anything.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from harness.judge.records import Event
from harness.plan.model import Await, Plan
from harness.report import store
from harness.report.injections import label
from harness.report.waiting import wait_words

TALK = {"qmp", "inject", "await", "run", "device"}  # sources that are worth reading along
TALK_OF_THE_GUEST = {"nic", "carrier", "bond", "run", "counters"}
SILENT = {("qmp", "stuck"), ("device", "activity"), ("run", "spent"), ("run", "end")}


@dataclass
class Running:
    """One case. `since` is time.monotonic() when it was first seen; `step` and `waits` are words."""

    case: str
    folder: Path
    plan: Plan
    since: float
    place: int = 0  # bytes of evidence that have been read
    stage: int = -1  # index into the plan's stages
    awaited: int = 0  # waits of this stage that are over

    @property
    def step(self) -> str:
        if self.stage < 0:
            return "restoring the guest"
        stage = self.plan.stages[self.stage]
        return f"{stage.step}/{self.plan.stages[-1].step} {stage.title}"

    @property
    def waits(self) -> str:
        """What the stage waits for now; empty where it does not."""
        actions = self.plan.stages[self.stage].actions if self.stage >= 0 else ()
        waits = [action for action in actions if isinstance(action, Await)]
        if self.awaited >= len(waits):
            return ""
        wait = waits[self.awaited]
        return f"{wait_words(wait.what, wait.of, wait.state, wait.count)}, up to {wait.within:g} s"


class Watch:
    """Cases of a results folder that began after the watch did."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._known: dict[Path, Running | None] = dict.fromkeys(self._folders())  # None: over, or of an earlier run
        self._talk: list[str] = []

    def _folders(self) -> list[Path]:
        return sorted(path.parent for path in self._results.glob(f"*/{store.PLAN}"))

    def look(self) -> list[Running]:
        """The cases that are running, the oldest first."""
        for folder in self._folders():
            if folder not in self._known:
                self._known[folder] = _begun(folder)
        for folder, running in self._known.items():
            if running is None:
                continue
            for event in _news(running):
                _take(running, event)
                if _is_talk(event):
                    self._talk.append(f"{event['t']:9.3f} {event['src']:7} {label(event)}")
            if (folder / store.VERDICT).exists():
                self._known[folder] = None
        return sorted((each for each in self._known.values() if each), key=lambda each: each.since)

    def talk(self) -> list[str]:
        """Lines that came since the last time, with the case's time."""
        self.look()
        said, self._talk = self._talk, []
        return said


def _begun(folder: Path) -> Running | None:
    try:
        plan = store.read_plan(folder)
    except store.StoreError:
        return None
    return Running(plan.case, folder, plan, time.monotonic())


def _news(running: Running) -> list[Event]:
    """Whole lines of evidence that have not been read yet."""
    try:
        with (running.folder / store.EVIDENCE).open("rb") as file:
            file.seek(running.place)
            data = file.read()
    except OSError:
        return []
    whole = data[: data.rfind(b"\n") + 1]
    running.place += len(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _take(running: Running, event: Event) -> None:
    kind = (event["src"], event["kind"])
    if kind == ("run", "stage"):
        numbers = [stage.step for stage in running.plan.stages]
        running.stage, running.awaited = numbers.index(event["step"]), 0
    elif kind in (("await", "reached"), ("await", "timeout")):
        running.awaited += 1


def _is_talk(event: Event) -> bool:
    src, kind = event["src"], event["kind"]
    return (src, kind) not in SILENT and (src in TALK or (src == "guest" and kind in TALK_OF_THE_GUEST))
