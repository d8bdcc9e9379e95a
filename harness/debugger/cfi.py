"""Call frame information for gdb: ORC entries as a .debug_frame section (DWARF 5, section 6.4; x86-64 psABI, 3.6.2).

In: ORC entries, ascending. Out: the section. The rule it keeps: what cannot be said by CFI ends the backtrace there, visibly;
nothing is guessed.

An ORC entry says everything about its range, so entries can be put into FDEs in any groups: here by PER_FDE, since gdb
executes an FDE from its beginning. Interrupt frames are of a CIE with `S`: their address is that of an instruction not yet executed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from harness.debugger.orc import Base, Entry, Kind

RBP, RSP, RA = 6, 7, 16
_DWARF = {Base.DX: 1, Base.DI: 5, Base.BP: RBP, Base.SP: RSP, Base.R10: 10, Base.R13: 13}
_PLAIN = {Base.BP, Base.SP}  # the others are taken as they are (arch/x86/kernel/unwind_orc.c)
# struct pt_regs by DWARF number: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi; then orig_rax, rip, cs, flags, rsp, ss
PT_REGS = dict(zip((15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5), range(0, 120, 8), strict=True)) | {
    RA: 128,
    RSP: 152,
}
IRET = {RA: 0, RSP: 24}
PER_FDE = 32
DATA_ALIGN = -8

DW_CFA_ADVANCE_LOC4, DW_CFA_OFFSET_EXTENDED_SF, DW_CFA_UNDEFINED, DW_CFA_SAME_VALUE = 0x04, 0x11, 0x07, 0x08
DW_CFA_DEF_CFA_SF, DW_CFA_DEF_CFA_EXPRESSION, DW_CFA_VAL_OFFSET, DW_CFA_RESTORE = 0x12, 0x0F, 0x14, 0xC0
DW_OP_DEREF, DW_OP_BREG0, DW_OP_PLUS_UCONST, DW_OP_CONSTS, DW_OP_PLUS = 0x06, 0x70, 0x23, 0x11, 0x22


def debug_frame(entries: Iterable[Entry]) -> bytes:
    """The section: a CIE for calls, one for interrupts, and the FDEs."""
    calls = _record(_cie(b"z\0"), 0xFFFFFFFF)
    interrupts = _record(_cie(b"zS\0"), 0xFFFFFFFF)
    where = {False: 0, True: len(calls)}
    return calls + interrupts + b"".join(_fde(group, where[_interrupt(group[0])]) for group in _groups(entries))


def _groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Neighbours of one sort, PER_FDE at most."""
    group: list[Entry] = []
    for entry in entries:
        if group and (
            len(group) == PER_FDE or group[-1].end != entry.start or _interrupt(group[0]) != _interrupt(entry)
        ):
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _interrupt(entry: Entry) -> bool:
    """A frame behind an interrupt, or one that has gone over to the interrupts' stack: gdb lets only frames of such a CIE have their
    caller's stack anywhere, and takes a chain whose stack goes back for a corrupt one."""
    return entry.kind in (Kind.REGS, Kind.REGS_PARTIAL) or entry.sp is Base.SP_INDIRECT


def _cie(augmentation: bytes) -> bytes:
    return b"\x01" + augmentation + _uleb(1) + _sleb(DATA_ALIGN) + bytes((RA,)) + _uleb(0)


def _record(body: bytes, cie: int) -> bytes:
    body = struct.pack("<I", cie) + body
    return struct.pack("<I", len(body) + -len(body) % 8) + body + bytes(-len(body) % 8)  # DW_CFA_nop


def _fde(group: list[Entry], cie: int) -> bytes:
    start, end = group[0].start, group[-1].end
    program, at = [], start
    for entry in group:
        if entry.start > at:
            program.append(struct.pack("<BI", DW_CFA_ADVANCE_LOC4, entry.start - at))
            at = entry.start
        program.append(_rules(entry))
    return _record(struct.pack("<QQ", start, end - start) + _uleb(0) + b"".join(program), cie)


def _rules(entry: Entry) -> bytes:
    """The whole state of a range: where the frame is, and where it keeps the registers of its caller."""
    cfa = _cfa(entry)
    if entry.kind is Kind.END or cfa is None:  # gdb 13 dies of a frame without a CFA, even of the outermost
        return bytes((DW_CFA_DEF_CFA_SF, RSP, 0, DW_CFA_SAME_VALUE, RBP, DW_CFA_UNDEFINED, RA))
    if entry.kind is Kind.REGS:
        return cfa + _saved(PT_REGS)
    if entry.kind is Kind.REGS_PARTIAL:
        return cfa + bytes((*_unsaved(PT_REGS.keys() - IRET.keys()),)) + _saved(IRET)
    return cfa + _saved({RA: -8}) + _base_pointer(entry)


def _cfa(entry: Entry) -> bytes | None:
    """The pointer that ORC computes: a register and an offset, or what such an address holds."""
    if entry.sp in _DWARF:
        offset = entry.sp_offset if entry.sp in _PLAIN else 0
        if offset % -DATA_ALIGN:
            return None
        return bytes((DW_CFA_DEF_CFA_SF, _DWARF[entry.sp])) + _sleb(offset // DATA_ALIGN)
    if entry.sp is Base.BP_INDIRECT:
        return _expression(bytes((DW_OP_BREG0 + RBP,)) + _sleb(entry.sp_offset) + bytes((DW_OP_DEREF,)))
    if entry.sp is Base.SP_INDIRECT:
        added = bytes((DW_OP_CONSTS,)) + _sleb(entry.sp_offset) + bytes((DW_OP_PLUS,))
        return _expression(bytes((DW_OP_BREG0 + RSP, 0, DW_OP_DEREF)) + added)
    return None


def _expression(code: bytes) -> bytes:
    return bytes((DW_CFA_DEF_CFA_EXPRESSION,)) + _uleb(len(code)) + code


def _base_pointer(entry: Entry) -> bytes:
    if entry.bp is Base.PREV_SP and entry.bp_offset % DATA_ALIGN == 0:
        return _saved({RBP: entry.bp_offset})
    return bytes((DW_CFA_SAME_VALUE, RBP))


def _saved(places: dict[int, int]) -> bytes:
    """Registers in memory, at offsets from the frame's pointer."""
    rows = (
        bytes((DW_CFA_OFFSET_EXTENDED_SF, number)) + _sleb(offset // DATA_ALIGN) for number, offset in places.items()
    )
    return b"".join(rows)


def _unsaved(numbers: Iterable[int]) -> Iterator[int]:
    for number in sorted(numbers):
        yield from (DW_CFA_SAME_VALUE, number)


def _uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _sleb(value: int) -> bytes:
    out = bytearray()
    while True:
        low = value & 0x7F
        value >>= 7
        last = (value == 0 and not low & 0x40) or (value == -1 and bool(low & 0x40))
        out.append(low | (0 if last else 0x80))
        if last:
            return bytes(out)
