"""failover: after a slave's link was cut, its bond's frames leave over the other slaves, soon, and none over the cut one.

In: captured frames of the sender's flow, the cut slave's down periods, what was sent. Out: the check. Rule: seen on the wire or
not at all; what the bonding driver says of its active slave is told, not believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from harness.judge.links import CLOCK_SLACK, Down, downs
from harness.judge.messages import messages
from harness.judge.model import CheckResult
from harness.judge.records import Frame
from harness.judge.seen import Seen
from harness.judge.words import at, cut, many
from harness.scenario.expectations import Failover

IDLE = 0.2  # seconds of silence of the sender that are worth a word


@dataclass(frozen=True)
class _Wire:
    """Frames of the flow around the cut, by capture time."""

    before: tuple[Frame, ...]  # over the cut slave, before its link went
    others: tuple[Frame, ...]  # over other slaves, after the guest noticed or QEMU confirmed, until the link came back
    astray: tuple[Frame, ...]  # over the cut slave in that time


def check(expect: Failover, seen: Seen) -> CheckResult:
    """The check of one `failover` expectation."""
    about = f"after {expect.cut} is cut, {expect.from_} goes on over other slaves of {expect.bond} within {expect.within:g} s"
    periods = downs(seen.records, expect.cut)
    down = next((period for period in periods if period.seen is not None), None)
    frames = seen.frames_of(expect.from_)
    wire = _split(expect, seen, frames, down) if down else None
    missing = _not_reached(expect, seen, periods, down, wire)
    if missing or wire is None or down is None:
        return CheckResult(check="failover", about=about, reached=False, held=None, why=missing or "")
    gap = _gap(wire)
    return CheckResult(
        check="failover",
        about=about,
        reached=True,
        held=not wire.astray and gap <= expect.within,
        why=_why(expect, wire, gap),
        findings=tuple(_findings(expect, seen, wire, down)),
        numbers={"frames_before": len(wire.before), "frames_after": len(wire.others), "frames_astray": len(wire.astray)}
        | ({"gap_seconds": gap} if gap < inf else {}),
    )


def _split(expect: Failover, seen: Seen, frames: Sequence[Frame], down: Down) -> _Wire:
    begin = down.begin + CLOCK_SLACK  # frames are stamped by the host's kernel: its own clock needs no slack
    sure = max(t for t in (down.cut, down.seen) if t is not None)
    # A slave that is given back sends at once; that it has its link again is written when whoever was asked has answered.
    until = min((t for t in (down.restored, down.back) if t is not None), default=inf) - CLOCK_SLACK
    others = seen.behind(expect.bond) - {expect.cut}
    return _Wire(
        before=tuple(frame for frame in frames if frame.nic == expect.cut and frame.t < begin),
        others=tuple(frame for frame in frames if frame.nic in others and begin <= frame.t),
        astray=tuple(frame for frame in frames if frame.nic == expect.cut and sure + CLOCK_SLACK < frame.t < until),
    )


def _not_reached(
    expect: Failover, seen: Seen, periods: Sequence[Down], down: Down | None, wire: _Wire | None
) -> str | None:
    if not periods:
        return f"the link of {expect.cut} never went down"
    if down is None or down.seen is None or wire is None:
        return f"the guest never saw the carrier of {expect.cut} go down ({periods[0]})"
    if not wire.before:
        return f"no frame of {expect.from_} left over {expect.cut} before it was cut ({down})"
    if not _sent_after(expect, seen, down.seen):
        return f"{expect.from_} sent nothing after the carrier of {expect.cut} was gone ({down})"
    return None


def _sent_after(expect: Failover, seen: Seen, t: float) -> bool:
    """Was a message sent after `t`? A kernel endpoint also sends whatever else the kernel prints, a panic for one."""
    kernel = seen.plan.endpoint(expect.from_).stack == "kernel"
    if kernel and any(line.t > t for line in seen.kernel):
        return True
    return any(message.first >= t for message in messages(seen, expect.from_).values())


def _gap(wire: _Wire) -> float:
    """Seconds from the last frame over the cut slave to the first over another; inf when none came."""
    return round(wire.others[0].t - wire.before[-1].t, 6) if wire.others else inf


def _idle(expect: Failover, seen: Seen, wire: _Wire) -> float:
    """How much of the gap passed before anything was surely sent again."""
    last = wire.before[-1].t
    times = [(message.first, message.last) for message in messages(seen, expect.from_).values()]
    if seen.plan.endpoint(expect.from_).stack == "kernel":
        times += [(line.t, line.t) for line in seen.kernel]
    return max(0.0, min((begin for begin, end in times if end > last + CLOCK_SLACK), default=last) - last)


def _why(expect: Failover, wire: _Wire, gap: float) -> str:
    if gap == inf:
        return f"no frame left over another slave of {expect.bond} after {expect.cut} was cut"
    slaves = ", ".join(sorted({frame.nic for frame in wire.others}))
    if wire.astray:
        return f"{many(len(wire.astray), 'frame')} left over {expect.cut} after its link was cut"
    if gap > expect.within:
        return f"{gap:.3f} s without a frame until {slaves} took over, allowed are {expect.within:g} s"
    return f"{slaves} took over after {gap:.3f} s without a frame"


def _findings(expect: Failover, seen: Seen, wire: _Wire, down: Down) -> list[str]:
    said = [f"{expect.cut}: {down}", f"last frame over {expect.cut} at {at(wire.before[-1].t)}"]
    if wire.others:
        said.append(f"first frame over {wire.others[0].nic} at {at(wire.others[0].t)}")
    if (idle := _idle(expect, seen, wire)) > IDLE:
        said.append(f"{expect.from_} itself sent nothing for {idle:.3f} s of the gap")
    actives = [each for each in seen.records.actives if each.bond == expect.bond]
    said += [f"{each.bond} said at {at(each.t)} that {each.slave or 'no slave'} is active" for each in actives]
    return said + cut([f"over the cut {expect.cut} at {at(frame.t)}" for frame in wire.astray], "frames astray")
