"""ORC: the tables by which an x86-64 kernel unwinds its stack (Documentation/x86/orc-unwinder.rst, arch/x86/include/asm/orc_types.h).

In: the sections .orc_unwind_ip and .orc_unwind of vmlinux. Out: one `Entry` a range of addresses, ascending. The rule it keeps:
both layouts of the bit field are read; which one a kernel has, its sections say.

The field `type` had two bits until 6.3 and three from 6.4 on; kernels with the new layout have a section .orc_header. Debian's 7.3 numbers the registers
anew (read off its tables and the code that they are about); nearly every entry is about rsp, so the commonest number says which numbers are used.
"""

from __future__ import annotations

import enum
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from harness.debugger.errors import SymbolsError

ENTRY = struct.Struct("<hhBB")  # sp_offset, bp_offset, registers, type


class Base(enum.Enum):
    """What the previous stack or base pointer is computed from (ORC_REG_*)."""

    UNDEFINED = "undefined"
    PREV_SP = "previous sp"
    DX = "dx"
    DI = "di"
    BP = "bp"
    SP = "sp"
    R10 = "r10"
    R13 = "r13"
    BP_INDIRECT = "what bp points at"
    SP_INDIRECT = "what sp points at"


_B = Base
NUMBERS: tuple[dict[int, Base], ...] = (
    dict(enumerate((_B.UNDEFINED, _B.PREV_SP, _B.DX, _B.DI, _B.BP, _B.SP, _B.R10, _B.R13, _B.BP_INDIRECT, _B.SP_INDIRECT))),
    {0: _B.UNDEFINED, 2: _B.DX, 3: _B.SP, 4: _B.BP, 6: _B.R10, 7: _B.R13, 8: _B.PREV_SP, 9: _B.SP_INDIRECT, 10: _B.BP_INDIRECT},
)  # fmt: skip


class Kind(enum.Enum):
    """What is on the stack where the computed pointer points."""

    CALL = "call"  # just below it, a return address
    REGS = "regs"  # a struct pt_regs
    REGS_PARTIAL = "iret"  # what the CPU pushes for an interrupt: rip, cs, flags, rsp, ss
    END = "end"  # nothing: the walk ends


@dataclass(frozen=True, slots=True)
class Entry:
    """How to leave a frame whose instruction pointer is in `start`..`end` (end not included)."""

    start: int
    end: int
    kind: Kind
    sp: Base
    sp_offset: int
    bp: Base
    bp_offset: int


_OLD = (Kind.CALL, Kind.REGS, Kind.REGS_PARTIAL, Kind.CALL)  # the last was UNWIND_HINT_TYPE_FUNC, of objtool alone
_NEW = (Kind.END, Kind.END, Kind.CALL, Kind.REGS, Kind.REGS_PARTIAL)


def entries(ip_address: int, ips: bytes, table: bytes, *, new_layout: bool) -> Iterator[Entry]:
    """The tables of a kernel. `ip_address`: where .orc_unwind_ip is mapped. Raises SymbolsError when they do not fit together.

    The last entry has no end and is left out: it is the linker's mark behind the text.
    """
    count = len(ips) // 4
    if len(ips) % 4 or len(table) != count * ENTRY.size or not count:
        raise SymbolsError(f"ORC tables of {len(ips)} and {len(table)} bytes do not belong together")
    starts = [ip_address + 4 * at + offset for at, (offset,) in enumerate(struct.iter_unpack("<i", ips))]
    rows = ENTRY.iter_unpack(table)
    numbers = numbering(table)
    for (start, end), (sp_offset, bp_offset, registers, kind) in zip(pairwise(starts), rows, strict=False):
        if start < end:
            yield _entry(start, end, sp_offset, bp_offset, registers, kind, new_layout, numbers)


def numbering(table: bytes) -> dict[int, Base]:
    """The one of NUMBERS in which the commonest base of a stack pointer is SP. Raises SymbolsError."""
    counts = Counter(registers & 15 for registers in table[4 :: ENTRY.size])
    del counts[0]  # nothing is known
    commonest = max(counts, key=counts.__getitem__, default=5)
    for numbers in NUMBERS:
        if numbers.get(commonest) is Base.SP:
            return numbers
    raise SymbolsError(
        f"ORC tables whose commonest register is number {commonest}: this kernel's numbers are not known here"
    )


def _entry(
    start: int, end: int, sp_offset: int, bp_offset: int, registers: int, bits: int, new: bool, numbers: dict[int, Base]
) -> Entry:
    kind = bits & 7 if new else bits & 3
    try:
        sp, bp = numbers[registers & 15], numbers[registers >> 4]
        what = (_NEW if new else _OLD)[kind]
    except (KeyError, IndexError):
        raise SymbolsError(f"ORC entry of {start:#x}: registers {registers:#x}, type {kind} are not known") from None
    return Entry(start, end, Kind.END if sp is Base.UNDEFINED else what, sp, sp_offset, bp, bp_offset)
