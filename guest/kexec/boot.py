"""The zero page and the first instructions: what a kernel finds when it is entered in 64-bit mode (Documentation/x86/boot.rst).

In: a Machine, and where initramfs and command line lie. Out: `boot_params` (4096 bytes) and machine code. Rule: the running kernel's own zero page
with what differs put in, so that what nobody here knows (the ACPI root, the loader's flags) stays as the firmware left it.
"""

from __future__ import annotations

import struct

from guest.kexec.machine import LOW, Machine, Range

SIZE = 4096
# Offsets: Documentation/x86/zero-page.rst and boot.rst.
EXT_RAMDISK, E820_COUNT, E820_TABLE, E820_MOST = 0x0C0, 0x1E8, 0x2D0, 128
SENTINEL, SETUP_HEADER, BOOT_FLAG, MAGIC = 0x1EF, 0x1F1, 0x1FE, 0x202
TYPE_OF_LOADER, LOADFLAGS, RAMDISK, CMDLINE, SETUP_DATA = 0x210, 0x211, 0x218, 0x228, 0x250
KEXEC = 0x0D << 4  # the loader's number
KASLR_FLAG = 0x02
KINDS = {
    "System RAM": 1,
    "ACPI Tables": 3,
    "ACPI Non-volatile Storage": 4,
    "Unusable memory": 5,
}  # of e820; else reserved
RAM, RESERVED = 1, 2


def e820(machine: Machine, usable: Range) -> list[tuple[int, int, int]]:
    """Start, size, kind: of all RAM only the first MiB's and `usable` are the capture kernel's; the firmware's ranges stay."""
    theirs = [(start, size, KINDS.get(kind, RESERVED)) for start, size, kind in machine.firmware]
    kept = [entry for entry in theirs if entry[2] != RAM]
    low = [(start, min(size, LOW - start), RAM) for start, size, kind in theirs if kind == RAM and start < LOW]
    return sorted([*low, (*usable, RAM), *kept])


def boot_params(machine: Machine, usable: Range, initrd: Range, cmdline: int) -> bytes:
    """The zero page. Raises ValueError when the firmware's map is too long for it."""
    table = e820(machine, usable)
    if len(table) > E820_MOST:
        raise ValueError(f"{len(table)} ranges of memory; a zero page has room for {E820_MOST}")
    page = bytearray(machine.boot_params[:SIZE].ljust(SIZE, b"\0"))
    page[SENTINEL] = 0
    page[TYPE_OF_LOADER] = KEXEC
    page[LOADFLAGS] &= ~KASLR_FLAG
    page[E820_COUNT] = len(table)
    struct.pack_into("<II", page, RAMDISK, initrd[0] & 0xFFFFFFFF, initrd[1])
    struct.pack_into("<III", page, EXT_RAMDISK, initrd[0] >> 32, 0, cmdline >> 32)
    struct.pack_into("<I", page, CMDLINE, cmdline & 0xFFFFFFFF)
    struct.pack_into("<Q", page, SETUP_DATA, 0)
    page[E820_TABLE : E820_TABLE + 20 * E820_MOST] = bytes(20 * E820_MOST)
    for number, entry in enumerate(table):
        struct.pack_into("<QQI", page, E820_TABLE + 20 * number, *entry)
    return bytes(page)


def trampoline(entry: int, params: int) -> bytes:
    """`mov rsi, params; mov rax, entry; jmp rax`. The kernel leaves us in 64-bit mode with memory mapped one to one and interrupts off
    (arch/x86/kernel/relocate_kernel_64.S); a kernel since 5.10 brings its own GDT (arch/x86/kernel/head_64.S, startup_64)."""
    return b"\xfa\x48\xbe" + struct.pack("<Q", params) + b"\x48\xb8" + struct.pack("<Q", entry) + b"\xff\xe0"
