"""parity with `except_cut`: of a panic whose link is cut in the middle, what was sent meanwhile is lost, and nothing else.

In: the comparison of console and wire, when the link was cut and put back, the capture's time of each line. Out: the check. Rule:
when a lost line would have been sent is known by its neighbours on the wire: a run of lost lines is the cut's if the link was down at
some time between the line before it and the line after it. What the console shows after the link had come back is no longer the cut's.
Frames after the cut had taken effect are none of a NIC without a link.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

from harness.judge.comparison import Comparison
from harness.judge.model import CheckResult
from harness.judge.records import Link
from harness.judge.seen import Seen
from harness.judge.words import at, cut, many, runs, short

SLACK = 0.001  # seconds by which the capture's clock (CLOCK_REALTIME) may have drifted from the case's
AHEAD = 0.02  # seconds from a line on the console to the same line on the wire


@dataclass(frozen=True)
class Period:
    """Without a link surely from `down` to `up`; at the earliest from `begin`, when the command was sent, to `end`."""

    begin: float
    down: float
    up: float = inf
    end: float = inf


@dataclass(frozen=True)
class Hole:
    """Lines first..last (of the console) were lost; they would have been sent between `after` and `before`."""

    first: int
    last: int
    after: float
    before: float


def check(nic: str, about: str, found: Comparison, seen: Seen) -> CheckResult:
    """The check of a `parity` expectation with `except_cut: nic`; the console shows a crash."""
    about += f", but for those sent while the link of {nic} was down"
    periods = periods_of(nic, seen)
    holes = list(_holes(found, seen))
    first = min((period.begin for period in periods), default=inf)
    missing = _not_reached(nic, found, periods, holes, first)
    if missing:
        return CheckResult(check="parity", about=about, reached=False, held=None, why=missing)
    wrong = [*_wrong(found, holes, periods), *_astray(nic, periods, seen)]
    lost = sum(hole.last - hole.first + 1 for hole in holes)
    right = f"{many(lost, 'line')} lost, all while the link of {nic} was down; {len(found.alignment.matched)} came"
    return CheckResult(
        check="parity",
        about=about,
        reached=True,
        held=not wrong,
        why=wrong[0] if wrong else right,
        findings=(*cut(wrong, "findings"), *(_told(hole, found) for hole in holes)),
        numbers={
            "lines": len(found.console),
            "received": len(found.alignment.matched),
            "lost": lost,
            "holes": len(holes),
        },
    )


def periods_of(nic: str, seen: Seen) -> list[Period]:
    """When its link was down. A cut that was timed in the burst has the moment at which its command was sent, too."""
    sent = _sent(seen)
    periods: list[Period] = []
    for link in sorted(link for link in seen.records.cuts if link.nic == nic):
        began = sent.get(link, link.t)
        if not link.up and (not periods or periods[-1].up < inf):
            periods.append(Period(begin=began, down=link.t))
        elif link.up and periods and periods[-1].up == inf:
            periods[-1] = Period(periods[-1].begin, periods[-1].down, up=began, end=link.t)
    return periods


def _sent(seen: Seen) -> dict[Link, float]:
    """For what was timed in the burst: when its command was sent."""
    steps, found = seen.plan.scenario.steps, {}
    for timed in seen.records.timed:
        inject = steps[timed.step - 1].inject if 0 < timed.step <= len(steps) else None
        own = [cut for cut in seen.records.cuts if inject and (cut.nic, cut.up) == (inject.link, inject.state == "up")]
        done = max((cut for cut in own if cut.t <= timed.t), default=None)
        if done is not None:
            found[done] = timed.noticed
    return found


def _times(found: Comparison) -> dict[int, float]:
    """When each console line that came was on the wire."""
    return {place: found.wire[number].t for place, number in found.alignment.matched.items()}


def _holes(found: Comparison, seen: Seen) -> Iterable[Hole]:
    times = _times(found)
    since = seen.crash if seen.crash is not None else 0.0
    for first, last in runs(found.lost):
        after = max((t for place, t in times.items() if place < first), default=since)
        before = min((t for place, t in times.items() if place > last), default=inf)
        yield Hole(first, last, after, before)


def _not_reached(nic: str, found: Comparison, periods: list[Period], holes: list[Hole], first: float) -> str:
    if not periods:
        return f"the link of {nic} was never cut"
    if not any(line.t <= first for line in found.wire):
        return f"no line of the panic came before the link of {nic} was cut at {at(first)}"
    if not holes:
        return f"every line came: none was sent while the link of {nic} was down"
    return ""


def _wrong(found: Comparison, holes: list[Hole], periods: list[Period]) -> list[str]:
    said = [] if found.complete else [f"the guest stopped printing after {many(len(found.console), 'line')}"]
    for hole in holes:
        if late := _not_excused(hole, found, periods):
            said.append(f"lost though the link was up: {_told(replace(hole, first=late[0], last=late[-1]), found)}")
    said += [f"out of order: line {place + 1}" for place in found.alignment.reordered]
    said += [f"repeated: line {place + 1}" for _, place in found.alignment.duplicated]
    said += [f"damaged: line {place + 1}" for place, _ in found.garbled]
    return said + [f"not on the console: {short(found.wire[number].text)}" for number in found.extra]


def _not_excused(hole: Hole, found: Comparison, periods: list[Period]) -> list[int]:
    """Lines of the hole that no period without a link explains. A kernel that serves the wire first shows its lines later."""
    behind = max((found.console[place].t - t for place, t in _times(found).items()), default=0.0)
    near = [each for each in periods if each.begin - SLACK <= hole.before and hole.after <= each.end + SLACK]
    until = max((each.end for each in near), default=-inf) + max(behind, 0.0) + AHEAD
    return [place for place in range(hole.first, hole.last + 1) if found.console[place].t > until]


def _astray(nic: str, periods: list[Period], seen: Seen) -> list[str]:
    frames = [frame for frame in seen.records.frames if frame.out and frame.nic == nic]
    return [
        f"a frame left {nic} at {at(frame.t)}, when its link had been down since {at(period.down)}"
        for frame in frames
        for period in periods
        if period.down + SLACK < frame.t < period.up - SLACK
    ]


def _told(hole: Hole, found: Comparison) -> str:
    which = f"line {hole.first + 1}" if hole.first == hole.last else f"lines {hole.first + 1}-{hole.last + 1}"
    until = f"and the next at {at(hole.before)}" if hole.before < inf else "and none after"
    return f"lost: {which} of {len(found.console)}, the line before came at {at(hole.after)}, {until}"
