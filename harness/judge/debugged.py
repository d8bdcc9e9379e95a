"""debugged: stock gdb, attached to the capture kernel's stub, shows the kernel as it died.

In: the console, what gdb saw. Out: the check. Rule: without a panic nothing was provoked; from the panic on whatever keeps gdb from seeing it is a
failure that is named: no capture kernel, a stub that does not serve, a gdb that does not end, CPUs, frames or memory that are not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.judge.debugging import DebugSession, DebugThread
from harness.judge.dumped import BEGAN
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.words import many, short
from harness.scenario.debuggers import Debugged


def check(expect: Debugged, seen: Seen) -> CheckResult:
    """The check of one `debugged` expectation."""
    cpus = expect.cpus or seen.plan.machine.smp
    through = " < ".join(expect.backtrace)
    about = f"gdb sees {many(cpus, 'CPU')} of the crashed kernel, its memory, and a backtrace through {through}"
    session = seen.records.debug_sessions[-1] if seen.records.debug_sessions else None
    numbers: dict[str, float | int] = {}
    if session is not None:
        numbers = {"threads": len(session.threads), "seconds": session.seconds}
    if seen.panic is None:
        why = "the console shows no panic"
        return CheckResult(check="debugged", about=about, reached=False, held=None, why=why, numbers=numbers)
    wrong = list(_wrong(expect, cpus, seen, session))
    why = wrong[0] if wrong else _right(expect, session)
    return CheckResult(
        check="debugged", about=about, reached=True, held=not wrong, why=why, findings=tuple(wrong), numbers=numbers
    )


def _wrong(expect: Debugged, cpus: int, seen: Seen, session: DebugSession | None) -> Iterator[str]:
    if session is None or not session.threads:
        yield _why_not(seen, session)
        return
    if session.rc is None:
        yield f"gdb did not end within {session.seconds:.1f} s"
    if len(session.threads) != cpus:
        yield f"gdb saw {many(len(session.threads), 'thread')}, the guest has {many(cpus, 'CPU')}"
    thread = _panicked(expect, session)
    if thread is None:
        shown = "; ".join(f"{each.name}: {' < '.join(each.frames) or 'nothing'}" for each in session.threads)
        yield f"no backtrace goes through {' < '.join(expect.backtrace)}: {short(shown)}"
    if not session.memory:
        yield "gdb read nothing of the memory that can be compared with the kernel's image"
    yield from (
        f"{name} in memory is not as in the kernel's image" for name, same in session.memory.items() if not same
    )
    yield from (f"{each.name} has no instruction pointer" for each in session.threads if not each.rip)


def _why_not(seen: Seen, session: DebugSession | None) -> str:
    """The first thing that went wrong on the way from the panic to the session."""
    lines = [line.text for line in seen.records.console]
    if not any(BEGAN.search(line) for line in lines):
        return f"no capture kernel began; the console's last line is {short(lines[-1]) if lines else '(none)'}"
    if session is None:
        said = [line for line in lines if line.startswith(("capture:", "netpoll:"))]
        return f"gdb was not started; the capture kernel said at last: {short(said[-1])}"
    words = [line for line in session.said.splitlines() if line.strip()]
    return f"gdb saw no thread; it said at last: {short(words[-1]) if words else '(nothing)'}"


def _panicked(expect: Debugged, session: DebugSession) -> DebugThread | None:
    return next((each for each in session.threads if in_order(expect.backtrace, each.frames)), None)


def in_order(wanted: Sequence[str], frames: Sequence[str]) -> bool:
    """Every wanted name is there, in this order; others may stand between them."""
    rest = iter(frames)
    return all(name in rest for name in wanted)


def _right(expect: Debugged, session: DebugSession | None) -> str:
    assert session is not None  # nothing was wrong
    thread = _panicked(expect, session)
    assert thread is not None
    others = ", ".join(
        f"{each.name} in {each.frames[0]}" for each in session.threads if each is not thread and each.frames
    )
    beside = f"; beside it {others}" if others else ""
    return f"{thread.name} died at {thread.rip}: {' < '.join(thread.frames[:6])}{beside}"
