"""burst_failover: a bond loses a slave in the middle of a panic; how long, and how many lines, until it carries every line again.

In: the comparison of console and wire, when the slave's link was cut, captured frames. Out: the check. Rule: a bond that shares frames out sends some over
its other slaves all the time, so it has failed over when no line is lost any more, and not when the first one comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.judge.comparison import Comparison, compare
from harness.judge.except_cut import periods_of
from harness.judge.model import CheckResult
from harness.judge.records import Frame
from harness.judge.seen import PANIC, PANIC_END, Seen
from harness.judge.words import at, cut, many, ranges
from harness.scenario.oracles import BurstFailover


@dataclass(frozen=True)
class _Gap:
    """Lost lines (numbers of the console's) since the cut; how many lines were printed and seconds went by until all came again, if they ever did."""

    lost: tuple[int, ...]
    lines: int | None
    seconds: float | None


def check(expect: BurstFailover, seen: Seen) -> CheckResult:
    """The check of one `burst_failover` expectation."""
    about = f"when {expect.cut} is cut in the middle of a panic, {expect.bond} carries each line again within {expect.within:g} s"
    found = compare(seen, expect.to, PANIC_END)
    period = next(
        (each for each in periods_of(expect.cut, seen) if seen.crash is not None and each.begin >= seen.crash), None
    )
    begin = None if period is None else period.begin
    missing = _not_reached(expect, seen, found, begin)
    if missing or found is None or begin is None:
        return CheckResult(check="burst_failover", about=about, reached=False, held=None, why=missing)
    gap = _gap(found, begin, enough=len(seen.behind(expect.bond)))
    held = gap.seconds is not None and gap.seconds <= expect.within
    after = sum(frame.t > begin for frame in _others(expect, seen))
    numbers: dict[str, float | int] = {"lost": len(gap.lost), "frames_over_others": after}
    if gap.seconds is not None and gap.lines is not None:
        numbers |= {"seconds": gap.seconds, "lines": gap.lines}
    return CheckResult(
        check="burst_failover",
        about=about,
        reached=True,
        held=held,
        why=_why(expect, gap, begin, after),
        findings=tuple(
            cut(
                [f"lost since the cut: lines {ranges(number + 1 for number in gap.lost)}"] if gap.lost else [],
                "lost lines",
            )
        ),
        numbers=numbers,
    )


def _others(expect: BurstFailover, seen: Seen) -> list[Frame]:
    """Frames of the flow over the other slaves."""
    slaves = seen.behind(expect.bond) - {expect.cut}
    return [frame for frame in seen.frames_of(seen.plan.endpoint(expect.to).peer) if frame.nic in slaves]


def _not_reached(expect: BurstFailover, seen: Seen, found: Comparison | None, begin: float | None) -> str:
    if found is None:
        return "the console shows no panic"
    if begin is None:
        return f"the link of {expect.cut} was not cut after the crash was asked for"
    frames = seen.frames_of(seen.plan.endpoint(expect.to).peer)
    if not any(
        frame.nic == expect.cut and seen.crash is not None and seen.crash <= frame.t <= begin for frame in frames
    ):
        return f"no line of the panic left over {expect.cut} before it was cut at {at(begin)}"
    sent = {place for place, number in found.alignment.matched.items() if found.wire[number].t < begin}
    panic = next((place for place, line in enumerate(found.console) if PANIC.search(line.text)), 0)
    if not any(place >= panic for place in sent):  # what was said before it may have left by a thread that still ran
        return f"no line of the panic itself left before {expect.cut} was cut at {at(begin)}"
    if len(sent) == len(found.console):
        return f"every line had been sent when {expect.cut} was cut at {at(begin)}"
    return ""


def _gap(found: Comparison, begin: float, enough: int) -> _Gap:
    """`enough`: so many lines in a row must come, as do not where the slaves take turns and one is dead."""
    came = {place: found.wire[number].t for place, number in found.alignment.matched.items()}
    sent = max(
        (place for place, t in came.items() if t < begin), default=-1
    )  # before the cut: what was lost before that is not its doing
    lost = tuple(place for place in found.lost if place > sent)
    if not lost:
        return _Gap((), 0, 0.0)
    since = sorted(place for place in came if place > lost[-1])
    if len(since) < enough:
        return _Gap(lost, None, None)
    back = since[0]
    return _Gap(lost, back - lost[0], round(came[back] - begin, 6))


def _why(expect: BurstFailover, gap: _Gap, begin: float, after: int) -> str:
    if not gap.lost:
        return f"no line was lost when {expect.cut} was cut at {at(begin)}"
    if gap.seconds is None:
        over = f"{many(after, 'frame')} left over its other slaves" if after else "nothing left over another slave"
        return (
            f"never: {many(len(gap.lost), 'line')} lost from {expect.cut}'s being cut at {at(begin)} to the end; {over}"
        )
    return f"{gap.seconds:.3f} s and {many(gap.lines or 0, 'line')} until {expect.bond} carried each line again, {len(gap.lost)} lost"
