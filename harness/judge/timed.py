"""timed: what a testcase times inside the burst of a panic was done there, and how late.

In: `inject timed` records, console lines and frames. Out: a check for each such step. Rule: reached means that it took effect while the
panic was still being printed or sent; how late it came is a number, and how many lines passed meanwhile, never a guess.
"""

from __future__ import annotations

from harness.judge.model import CheckResult
from harness.judge.records import Frame, Timed
from harness.judge.seen import Seen
from harness.judge.words import at, many
from harness.scenario.injections import Burst, InjectLink


def checks(seen: Seen) -> list[CheckResult]:
    """One for each step that has an `after`."""
    steps = enumerate(seen.plan.scenario.steps, 1)
    return [
        _check(number, step.inject, step.inject.after, seen)
        for number, step in steps
        if step.inject and step.inject.after
    ]


def _check(number: int, inject: InjectLink, after: Burst, seen: Seen) -> CheckResult:
    nic = after.nic or inject.link
    where = "console" if after.seen == "console" else f"wire of {nic}"
    about = f"the link of {inject.link} goes {inject.state} right after line {after.line} of the panic on the {where}"
    lines = _lines(after, nic, seen)
    done = next((timed for timed in seen.records.timed if timed.step == number), None)
    missing = _missing(after, where, lines, done, seen) or _changes_nothing(inject, done, seen)
    if missing or done is None:
        return CheckResult(check="timed", about=about, reached=False, held=None, why=missing)
    passed, left = _between(lines, done), sum(t > done.t for t in lines)
    late = done.t - done.line_t
    return CheckResult(
        check="timed",
        about=about,
        reached=True,
        held=True,
        why=f"done at {at(done.t)}, {late * 1000:.1f} ms after line {after.line}; {many(passed, 'line')} passed meanwhile",
        numbers={
            "late_ms": round(late * 1000, 3),
            "noticed_ms": round((done.noticed - done.line_t) * 1000, 3),
            "passed": passed,
            "console_passed": _between([line.t for line in seen.kernel], done),
            "frames_passed": _between([frame.t for frame in seen.records.frames if frame.out], done),
            "left": left,
        },
    )


def _lines(after: Burst, nic: str, seen: Seen) -> list[float]:
    """When each line was seen, since the crash was asked for."""
    since = seen.crash if seen.crash is not None else 0.0
    if after.seen == "console":
        return [line.t for line in seen.kernel if line.t >= since]
    return [frame.t for frame in _frames(seen) if frame.nic == nic]


def _missing(after: Burst, where: str, lines: list[float], done: Timed | None, seen: Seen) -> str:
    if len(lines) < after.line:
        return f"the panic has {many(len(lines), 'line')} on the {where}, so line {after.line} never came"
    if done is None:
        return f"line {after.line} came at {at(lines[after.line - 1])}, but nothing was done: the harness was too late"
    if _over(done.t, seen):
        return f"done at {at(done.t)}, when every line had been printed and sent: the panic was over"
    return ""


def _changes_nothing(inject: InjectLink, done: Timed | None, seen: Seen) -> str:
    """Kernels differ in whether the wire or the console comes first, so a link may be put up before it was to be cut."""
    own = [cut for cut in seen.records.cuts if done is not None and cut.nic == inject.link and cut.t <= done.t]
    was_up = own[-2].up if len(own) > 1 else True
    return f"the link of {inject.link} was {inject.state} already" if own and was_up == own[-1].up else ""


def _over(t: float, seen: Seen) -> bool:
    """Had the panic been printed and sent by `t`?"""
    shown = [line.t for line in seen.kernel if seen.crash is not None and line.t >= seen.crash]
    frames = [frame.t for frame in _frames(seen)]
    return not any(line > t for line in shown) and not any(f > t for f in frames) and len(frames) >= len(shown)


def _frames(seen: Seen) -> list[Frame]:
    """What the guest's netconsoles have sent since the crash was asked for."""
    ends = [end.id for end in seen.plan.endpoints if end.at == "guest" and end.stack == "kernel"]
    since = seen.crash if seen.crash is not None else 0.0
    frames = [frame for end in ends for frame in seen.frames_of(end) if frame.t >= since]
    return sorted(frames, key=lambda frame: frame.t)


def _between(times: list[float], done: Timed) -> int:
    return sum(done.line_t < t <= done.t for t in times)
