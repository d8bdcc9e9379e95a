"""What the notes of a vmcore say: registers of each CPU, and VMCOREINFO.

In: notes. Out: `Registers` by CPU in the order of the notes, and VMCOREINFO's pairs. The rule it keeps: a note of the wrong
size is left out and counted, since one CPU's bad note must not cost the others'.

Offsets: struct elf_prstatus and struct user_regs_struct of x86-64 (linux/elfcore.h, asm/user_64.h). VMCOREINFO:
Documentation/admin-guide/kdump/vmcoreinfo.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from struct import Struct, unpack_from

from guest.netpoll.clients.vmcore.elf import Note

NT_PRSTATUS = 1
PRSTATUS_SIZE = 336
_PID, _PR_REG = 32, 112
REGISTERS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_REGS = Struct(f"<{len(REGISTERS)}Q")
MAX_VMCOREINFO = 1 << 20
_QEMU_SIZE = 432  # QEMUCPUState, version 1 (QEMU: target/i386/arch_dump.c), up to its last CR
_QEMU_CR3, _QEMU_CR4 = 416, 424


@dataclass(frozen=True, slots=True)
class Registers:
    """One CPU at the crash. `pid` is that of its task, 0 for idle. `values` by the kernel's names, 64 bits each."""

    pid: int
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Control:
    """CR3 and CR4 of a CPU; only QEMU's own dumps have them."""

    cr3: int
    cr4: int


def registers(notes: Iterable[Note]) -> tuple[tuple[Registers, ...], int]:
    """Of each CPU, in the order of the notes; and how many NT_PRSTATUS were too short to be one."""
    found = [note for note in notes if note.kind == NT_PRSTATUS and note.owner == "CORE"]
    whole = tuple(_registers(note.data) for note in found if len(note.data) >= PRSTATUS_SIZE)
    return whole, len(found) - len(whole)


def _registers(data: bytes) -> Registers:
    (pid,) = unpack_from("<i", data, _PID)
    return Registers(pid, dict(zip(REGISTERS, _REGS.unpack_from(data, _PR_REG), strict=True)))


def vmcoreinfo(notes: Iterable[Note]) -> dict[str, str]:
    """The KEY=VALUE lines of the VMCOREINFO note; empty if there is none. Lines of another form are left out."""
    text = next((note.data[:MAX_VMCOREINFO] for note in notes if note.owner == "VMCOREINFO"), b"")
    pairs = (line.partition("=") for line in text.rstrip(b"\0").decode("utf-8", "replace").splitlines())
    return {key: value for key, equals, value in pairs if equals}


def control(notes: Iterable[Note]) -> Control | None:
    """Of the first CPU, from QEMU's note; None where there is none."""
    for note in notes:
        if note.owner == "QEMU" and len(note.data) >= _QEMU_SIZE:
            return Control(*unpack_from("<QQ", note.data, _QEMU_CR3))
    return None
