"""How a function that has no unwind data sets up its frame: read off its first instructions.

In: its machine code. Out: where the body begins, and how far the stack pointer is then below the frame's. The rule it keeps: only pushes and one
subtraction from rsp are understood, as compilers begin a function without frame pointer, and moves between them; for anything else, nothing.

Needed for one function: a crash ends in __crash_kexec(), which saves the registers of the CPU that died, and which the kernel tells objtool to
leave out (STACK_FRAME_NON_STANDARD, kernel/kexec_core.c), since it does not return.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.debugger.orc import Base, Entry, Kind

NON_STANDARD = ("__crash_kexec",)
WORD = 8
_BEFORE = re.compile(
    rb"(?:\xf3\x0f\x1e\xfa)?(?:\xe8.{4}|\x0f\x1f\x44\0\0)?", re.DOTALL
)  # endbr64; call __fentry__, or a nop in its place
_PUSH = re.compile(rb"\x41?[\x50-\x57]")
_BETWEEN = re.compile(
    rb"[\xb8-\xbf].{4}|[\x48-\x4d]?[\x31\x89][\xc0-\xff]", re.DOTALL
)  # mov $imm,%r32; xor, mov %reg,%reg
_SUB = re.compile(rb"\x48\x81\xec(.{4})|\x48\x83\xec([\0-\x7f])", re.DOTALL)  # sub $imm,%rsp


def frame(code: bytes) -> tuple[int, int] | None:
    """(length of the prologue, bytes from rsp to the caller's frame), or None."""
    before = _BEFORE.match(code)
    at, pushed = before.end() if before else 0, WORD  # the return address
    while (sub := _SUB.match(code, at)) is None:
        step = _PUSH.match(code, at) or _BETWEEN.match(code, at)
        if step is None:
            return None
        pushed += WORD if step.re is _PUSH else 0
        at = step.end()
    return sub.end(), pushed + int.from_bytes(sub[1] or sub[2], "little")


def mend(entries: Iterable[Entry], functions: dict[int, bytes]) -> Iterator[Entry]:
    """Entries; those that know nothing of these functions (code by address) are divided where the prologue of one has set up its frame."""
    bodies = {start + found[0]: found[1] for start, code in functions.items() if (found := frame(code)) is not None}
    for entry in entries:
        within = [body for body in bodies if entry.kind is Kind.END and entry.start < body < entry.end]
        if not within:
            yield entry
            continue
        (body,) = within
        yield replace(entry, end=body)
        yield Entry(body, entry.end, Kind.CALL, Base.SP, bodies[body], Base.UNDEFINED, 0)
