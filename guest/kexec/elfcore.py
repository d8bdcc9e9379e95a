"""The ELF header that a capture kernel is told of by elfcorehdr=: it reads there where the crashed kernel's memory is (fs/proc/vmcore.c).

In: a Machine. Out: bytes. Rule: as arch/x86/kernel/crash.c makes it: a PT_NOTE for each CPU and for vmcoreinfo, a PT_LOAD for the kernel's text
and for each range of RAM; offsets are physical addresses.
"""

from __future__ import annotations

from collections.abc import Iterator

from guest.kexec.machine import EHDR, PHDR, PT_LOAD, Machine

ET_CORE, EM_X86_64, PT_NOTE, RWX = 4, 62, 4, 7
IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little-endian, current version


def elfcore_header(machine: Machine) -> bytes:
    """The header with all its program headers."""
    every = list(_segments(machine))
    header = EHDR.pack(IDENT, ET_CORE, EM_X86_64, 1, 0, EHDR.size, 0, 0, EHDR.size, PHDR.size, len(every), 0, 0, 0)
    return header + b"".join(every)


def _segments(machine: Machine) -> Iterator[bytes]:
    for start, size in (*machine.notes, machine.vmcoreinfo):
        yield PHDR.pack(PT_NOTE, 0, start, 0, start, size, size, 0)
    virtual, physical, size = machine.text
    yield PHDR.pack(PT_LOAD, RWX, physical, virtual, physical, size, size, 0)
    for start, size in machine.ram:
        yield PHDR.pack(PT_LOAD, RWX, start, machine.direct_map + start, start, size, size, 0)
