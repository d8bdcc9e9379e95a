"""event: QEMU reported an event by name.

In: QMP events. Out: the check. Rule: an event that only a dying guest causes is not reached until the console shows the death;
any other had its chance once the run came to its end.
"""

from __future__ import annotations

from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.words import at, many
from harness.scenario.expectations import SawEvent

OF_PANIC = ("GUEST_PANICKED", "GUEST_CRASHLOADED")


def check(expect: SawEvent, seen: Seen) -> CheckResult:
    """The check of one `event` expectation."""
    times = [event.t for event in seen.records.qmp if event.name == expect.name]
    missing = _not_reached(expect, seen) if not times else None
    early = [t for t in times if expect.name in OF_PANIC and seen.crash is not None and t < seen.crash]
    return CheckResult(
        check="event",
        about=f"QEMU reports {expect.name}",
        reached=missing is None,
        held=None if missing else bool(times) and not early,
        why=missing or _why(expect, seen, times, early),
        findings=(f"{expect.name} came at {at(early[0])}, before the crash was asked for",) if early else (),
        numbers={"events": len(times)},
    )


def _not_reached(expect: SawEvent, seen: Seen) -> str | None:
    if expect.name in OF_PANIC and seen.panic is None:
        return f"the console shows no panic, so nothing could cause {expect.name}"
    if seen.records.ended is None:
        return f"the run was cut short before {expect.name} could be ruled out"
    return None


def _why(expect: SawEvent, seen: Seen, times: list[float], early: list[float]) -> str:
    if early:
        return f"the guest panicked by itself: {expect.name} came before the crash was asked for"
    if times:
        return f"{expect.name} came at {at(times[0])}" + (f", {many(len(times), 'time')}" if len(times) > 1 else "")
    names = sorted({event.name for event in seen.records.qmp})
    return f"{expect.name} never came; QEMU reported {', '.join(names) or 'no event at all'}"
