"""dumped: the crashed kernel's memory is on the host, and it is that memory.

In: the console, what the server told, what was found in its file, captured frames. Out: the check. Rule: without a panic nothing was provoked; from the panic
on every way to lose the dump is a failure that is named: no capture kernel, one that panics itself, a dump that stays incomplete, pages that differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.judge.dumps import DumpFile
from harness.judge.model import CheckResult
from harness.judge.records import Line
from harness.judge.seen import PANIC, Seen
from harness.judge.words import at, many, short
from harness.scenario.dumps import Dumped

BEGAN = re.compile(r"^capture: [\d.]+ began")
CLIENT = re.compile(r"^netdump: ")
RESENT = re.compile(r"(\d+) resent")
STAMP = re.compile(r"^(<\d>)?\[ *\d+\.\d+\]( *\[ *[CT]\d+\])? ")
RUNNING = re.compile(r"CPU: \d+ (?:UID: \d+ )?PID: (\d+) Comm: (.+?) (?:Not tainted|Tainted|Kdump)")  # lib/dump_stack.c
MIB = 1 << 20


def check(expect: Dumped, seen: Seen) -> CheckResult:
    """The check of one `dumped` expectation."""
    about = "after the panic the guest's memory is on the host, each page as RAM has it, and its log shows the panic"
    if not expect.complete:
        about = "the capture kernel dies in the middle of the dump, and what came is kept as an incomplete dump"
    numbers = _numbers(seen)
    missing = _missing(expect, seen, numbers)
    if missing is not None:
        return CheckResult(check="dumped", about=about, reached=False, held=None, why=missing, numbers=numbers)
    wrong = list(_partial(seen) if not expect.complete else _wrong(expect, seen, numbers))
    why = "; ".join(wrong[:1]) or (_right(seen, numbers) if expect.complete else _kept(seen))
    return CheckResult(
        check="dumped", about=about, reached=True, held=not wrong, why=why, findings=tuple(wrong), numbers=numbers
    )


def _missing(expect: Dumped, seen: Seen, numbers: dict[str, float | int]) -> str | None:
    """What was not provoked."""
    if _start(seen) is None:
        return "the console shows neither a panic nor a capture kernel"
    if not expect.complete:
        if _second_panic(seen) is None:
            return "the capture kernel did not panic"
        return None if numbers["bytes"] else "nothing of the dump had come when the capture kernel panicked"
    if numbers["struck"] < expect.struck:
        return f"{many(int(numbers['struck']), 'frame')} were struck, at least {expect.struck} were wanted"
    if numbers["resent"] < expect.resent and _complete(seen) is not None:
        return f"{many(int(numbers['resent']), 'datagram')} sent again, at least {expect.resent} were wanted"
    if (file := _complete(seen)) is not None and file.error is None and file.pages < expect.at_least:
        return f"the dump has {many(file.pages, 'page')}, at least {expect.at_least} were to be compared"
    return None


def _complete(seen: Seen) -> DumpFile | None:
    return next((file for file in reversed(seen.records.dump_files) if file.complete), None)


def _began(seen: Seen) -> Line | None:
    return next((line for line in seen.records.console if BEGAN.search(line.text)), None)


def _start(seen: Seen) -> float | None:
    """When the kernel panicked. One that did so in an NMI is gone before its lines are on the console, but only a panic starts a
    capture kernel: then it is when the crash was asked for."""
    began = _began(seen)
    if seen.panic is not None and (began is None or seen.panic.t < began.t):
        return seen.panic.t
    return seen.crash if began is not None else None


def _second_panic(seen: Seen) -> Line | None:
    """The capture kernel's own."""
    began = _began(seen)
    if began is None:
        return None
    later = (line for line in seen.records.console if line.t > began.t and PANIC.search(line.text))
    return next((line for line in later if "end Kernel panic" not in line.text), None)


def _wrong(expect: Dumped, seen: Seen, numbers: dict[str, float | int]) -> Iterator[str]:
    file = _complete(seen)
    if file is None:
        yield _why_not(seen)
        return
    if file.error is not None:
        yield f"{file.name} cannot be read: {file.error}"
        return
    if file.different:
        shown = ", ".join(f"{number:#x}" for number in file.named)
        yield f"{many(file.different, 'page')} of {file.pages} differ from RAM: {shown}"
    if file.outside:
        yield f"{many(file.outside, 'page')} of the dump are of memory that the machine does not have"
    if file.refused is not None:
        yield file.refused
    elif (panic := _panic(seen)) is None:
        yield from () if file.panics else ("the log in the dump shows no panic",)
    elif panic not in [_bare(line) for line in file.panics]:
        yield f"the log in the dump does not show the panic: {short(panic)}"
    yield from _tasks(seen, file)
    yield from _late(expect, numbers)


def _tasks(seen: Seen, file: DumpFile) -> Iterator[str]:
    """The task that the console says was running when the kernel panicked is one of the dump's; a thread by its name, since the list
    has leaders of thread groups alone."""
    if file.no_tasks is not None:
        yield f"the dump's tasks cannot be read: {file.no_tasks}"
    if file.tasks is None or _panic(seen) is None:
        return
    after = (RUNNING.search(line.text) for line in seen.records.console if line.t >= (seen.crash or 0))
    running = next((match for match in after if match), None)
    if running is not None and running[2] not in [name for _, name in file.tasks]:
        yield f"the task that was running, {running[1]} {running[2]}, is not among the {len(file.tasks)} of the dump"


def _late(expect: Dumped, numbers: dict[str, float | int]) -> Iterator[str]:
    for key, limit, what in (
        ("seconds", expect.within, "the dump took"),
        ("first_packet", expect.first_packet, "the first datagram came after"),
    ):
        if limit is not None and numbers.get(key, limit + 1) > limit:
            yield f"{what} {numbers.get(key, float('inf')):.2f} s from the panic on, longer than {limit:g} s"


def _why_not(seen: Seen) -> str:
    """The first thing that went wrong on the way from the panic to the file."""
    if (line := _second_panic(seen)) is not None:
        return f"the capture kernel itself panicked at {at(line.t)}: {short(line.text)}"
    if _began(seen) is None:
        last = seen.records.console[-1] if seen.records.console else None
        return f"no capture kernel began; the console's last line is {short(last.text) if last else '(none)'}"
    said = [line.text for line in seen.records.console if CLIENT.search(line.text) or line.text.startswith("capture:")]
    events = [event for event in seen.records.dump_events if event.what in ("partial", "killed")]
    server = f"; the server: {events[-1].what} {events[-1].why or ''}".rstrip() if events else ""
    return f"the dump is not complete; the client said at last: {short(said[-1])}{server}"


def _partial(seen: Seen) -> Iterator[str]:
    files = seen.records.dump_files
    if (file := _complete(seen)) is not None:
        yield f"{file.name} is called complete, though its sender died"
    if not any(not file.complete and file.size for file in files):
        yield "nothing of the dump was kept"


def _kept(seen: Seen) -> str:
    kept = [file for file in seen.records.dump_files if not file.complete]
    line = _second_panic(seen)
    assert line is not None  # else it would not have been reached
    return f"the capture kernel panicked at {at(line.t)}; kept are {', '.join(f'{file.name} ({file.size / MIB:.1f} MiB)' for file in kept)}"


def _right(seen: Seen, numbers: dict[str, float | int]) -> str:
    file = _complete(seen)
    assert file is not None  # nothing was wrong
    names = "" if file.tasks is None else f", {many(len(file.tasks), 'task')}"
    what = f"{file.pages} pages equal RAM ({file.format}, {file.size / MIB:.1f} MiB{names})"
    when = f"first datagram {numbers.get('first_packet', 0):.2f} s and whole {numbers.get('seconds', 0):.2f} s after the panic"
    return f"{what}; {when}, {many(int(numbers['resent']), 'datagram')} sent again"


def _numbers(seen: Seen) -> dict[str, float | int]:
    records = seen.records
    found: dict[str, float | int] = {
        "bytes": max((event.bytes for event in records.dump_events), default=0),
        "resent": _resent(seen),
        "struck": sum(event.struck for event in records.dump_events),
    }
    if (file := _complete(seen)) is not None:
        found |= {
            "size": file.size,
            "pages": file.pages,
            "equal": file.equal,
            "zero": file.zero,
            "different": file.different,
        }
    if (start := _start(seen)) is None:
        return found
    for key, t in (
        ("began", _t(_began(seen))),
        ("first_packet", _first_packet(seen)),
        ("data", _told(seen, "data")),
        ("seconds", _told(seen, "complete")),
    ):
        if t is not None and t >= start:
            found[key] = round(t - start, 4)
    return found


def _resent(seen: Seen) -> int:
    every = [RESENT.search(line.text) for line in seen.records.console if CLIENT.search(line.text)]
    return max((int(match[1]) for match in every if match), default=0)


def _first_packet(seen: Seen) -> float | None:
    start = _start(seen)
    out = (frame.t for frame in seen.records.frames if frame.out and frame.flow is not None)
    return min((t for t in out if start is not None and t > start), default=None)


def _told(seen: Seen, what: str) -> float | None:
    return next((event.t for event in seen.records.dump_events if event.what == what), None)


def _t(line: Line | None) -> float | None:
    return None if line is None else line.t


def _panic(seen: Seen) -> str | None:
    """The crashed kernel's line, where the console has it."""
    start = _start(seen)
    return _bare(seen.panic.text) if seen.panic is not None and seen.panic.t == start else None


def _bare(text: str) -> str:
    """Without the time stamp, whose width is the tool's choice."""
    return STAMP.sub("", text.strip())
