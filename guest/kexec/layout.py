"""Where everything lies in the crash region, and what of it changes from one command line to the next.

    base              left to kexec itself, for its control pages and page tables (kimage_alloc_crash_control_pages takes the first that are free)
    + 1 MiB           the small parts: trampoline, zero page, command line, ELF header
    + 2 MiB           the kernel as it will run, then the initramfs; from here to the end is the capture kernel's own memory

In: a vmlinux (as an ELF file), an initramfs. Out: `Segment`s. Rule: the big parts are placed once and may stay where they are: kexec_load(2) with the
small ones alone leaves them untouched, which makes another command line a matter of milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guest.kexec.boot import boot_params, trampoline
from guest.kexec.elfcore import elfcore_header
from guest.kexec.machine import EHDR, PHDR, PT_LOAD, KexecError, Machine, Range

PAGE, MIB = 4096, 1 << 20
ALIGN = (
    2 * MIB
)  # CONFIG_PHYSICAL_ALIGN's least: a 64-bit kernel moves by whole large pages (arch/x86/kernel/head64.c, __startup_64)
SMALL, BIG = 1 * MIB, 2 * MIB
CMDLINE_MOST = 2047  # bytes: arch/x86/include/asm/setup.h, COMMAND_LINE_SIZE


@dataclass(frozen=True)
class Segment:
    """`data` at physical `address`; the rest up to `size` bytes is zero."""

    address: int
    data: bytes | memoryview
    size: int


@dataclass(frozen=True)
class Placed:
    """Where the big parts lie."""

    entry: int
    initrd: Range


def up(value: int, to: int = PAGE) -> int:
    return (value + to - 1) // to * to


def kernel_segments(vmlinux: bytes | memoryview, base: int) -> tuple[list[Segment], int]:
    """The PT_LOADs moved so that the lowest lies at `base`, and the entry."""
    head = EHDR.unpack_from(vmlinux)
    headers = [PHDR.unpack_from(vmlinux, head[5] + number * PHDR.size) for number in range(head[10])]
    loads = sorted((each[4], each[2], each[5], each[6]) for each in headers if each[0] == PT_LOAD)
    if not loads:
        raise KexecError("the capture kernel is no vmlinux: it has no PT_LOAD")
    lowest = loads[0][0]
    moved = [
        Segment(base + paddr - lowest, memoryview(vmlinux)[offset : offset + filesz], up(memsz))
        for paddr, offset, filesz, memsz in loads
    ]
    return moved, base + head[4] - lowest


def big(vmlinux: bytes | memoryview, initrd: bytes | memoryview, crash: Range) -> tuple[list[Segment], Placed]:
    """Kernel and initramfs. Raises KexecError when the crash region does not hold them with room to run."""
    kernel, entry = kernel_segments(vmlinux, up(crash[0] + BIG, ALIGN))
    at = up(max(each.address + each.size for each in kernel), ALIGN)
    needed = at + 2 * len(initrd) + 32 * MIB - crash[0]  # the initramfs is unpacked before it is freed
    if needed > crash[1]:
        raise KexecError(f"crashkernel={crash[1] >> 20}M is too small for this kernel and initramfs: {needed >> 20}M")
    return [*kernel, Segment(at, initrd, up(len(initrd)))], Placed(entry, (at, len(initrd)))


def small(machine: Machine, placed: Placed, cmdline: str) -> list[Segment]:
    """What depends on the command line; the first one is where kexec jumps to. Raises KexecError for one that is too long."""
    parts = _addresses(machine)
    text = f"{cmdline.partition(' -- ')[0]} elfcorehdr={parts[3]:#x}" + "".join(cmdline.partition(" -- ")[1:])
    if len(text.encode()) > CMDLINE_MOST:
        raise KexecError(f"the capture kernel's command line has {len(text.encode())} bytes; {CMDLINE_MOST} fit")
    usable = machine.crash[0] + BIG
    params = boot_params(machine, (usable, sum(machine.crash) - usable), placed.initrd, parts[2])
    contents = (trampoline(placed.entry, parts[1]), params, text.encode() + b"\0", elfcore_header(machine))
    return [Segment(address, data, up(len(data))) for address, data in zip(parts, contents, strict=True)]


def _addresses(machine: Machine) -> Sequence[int]:
    first = machine.crash[0] + SMALL
    return [first, first + PAGE, first + 2 * PAGE, first + 3 * PAGE]
