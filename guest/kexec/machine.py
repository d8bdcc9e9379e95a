"""What the running kernel tells of its memory: where RAM is, where the crash region is, where each CPU leaves its registers.

In: /proc/iomem, /proc/kcore's program headers, /sys. Out: one frozen `Machine`. Rule: addresses are physical unless they are called virtual;
ranges are (start, size) in bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOW = 1 << 20  # bytes; real-mode code, BIOS data: the capture kernel uses them itself, so they are in no dump
PT_LOAD = 1
KERNEL_MAP = 0xFFFFFFFF80000000  # Documentation/x86/x86_64/mm.rst: the kernel's text, and what follows, up to modules
EHDR, PHDR = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_LINE = re.compile(r"^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$")
Range = tuple[int, int]


class KexecError(Exception):
    """No crash kernel can be loaded here; says what is missing."""


@dataclass(frozen=True)
class Machine:
    """`firmware`: the map that the firmware gave, with its own words for the kinds."""

    crash: Range
    ram: tuple[Range, ...]  # all System RAM but the crash region and the first MiB
    low: tuple[Range, ...]  # System RAM of the first MiB
    firmware: tuple[tuple[int, int, str], ...]  # start, size, kind
    direct_map: int  # virtual address of physical address 0
    text: tuple[int, int, int]  # virtual, physical, size
    notes: tuple[Range, ...]  # of each CPU's registers
    vmcoreinfo: Range
    boot_params: bytes  # the running kernel's own zero page


def read() -> Machine:
    """This machine. Raises KexecError: no crash region, a kernel without kexec."""
    try:
        ranges = parse_iomem(Path("/proc/iomem").read_text())
        with open("/proc/kcore", "rb") as kcore:
            loads = program_headers(kcore.read(1 << 16))
        address, size = Path("/sys/kernel/vmcoreinfo").read_text().split()
        params = Path("/sys/kernel/boot_params/data").read_bytes()
    except OSError as error:
        raise KexecError(f"{error.filename}: {error.strerror}: this kernel has no kexec, or we are not root") from error
    crash = next((each[:2] for each in ranges if each[2] == "Crash kernel"), None)
    if crash is None:
        raise KexecError("no memory is reserved for a crash kernel: boot with crashkernel=192M")
    system = [each[:2] for each in ranges if each[2] == "System RAM"]
    direct_map, text = virtual_addresses(loads)
    return Machine(
        crash=crash,
        ram=tuple(without(without(system, crash), (0, LOW))),
        low=tuple((start, min(size, LOW - start)) for start, size in system if start < LOW),
        firmware=tuple(_firmware_map()),
        direct_map=direct_map,
        text=text,
        notes=tuple(_notes()),
        vmcoreinfo=(int(address, 16), int(size, 16)),
        boot_params=params,
    )


def parse_iomem(text: str) -> list[tuple[int, int, str]]:
    """Start, size and name of each resource. KexecError where the kernel shows zeros, as to anybody but root."""
    found = []
    for line in text.splitlines():
        if match := _LINE.match(line):
            start, last = int(match[2], 16), int(match[3], 16)
            found.append((start, last - start + 1, match[4]))
    if not any(start for start, _, _ in found):
        raise KexecError("/proc/iomem shows no addresses: only root may read them")
    return found


def program_headers(data: bytes) -> list[tuple[int, int, int]]:
    """Virtual address, physical address and size of each PT_LOAD of an ELF file's beginning."""
    head = EHDR.unpack_from(data)
    offset, count = head[5], head[10]
    every = (PHDR.unpack_from(data, offset + number * PHDR.size) for number in range(count))
    return [(vaddr, paddr, memsz) for kind, _, _, vaddr, paddr, _, memsz, _ in every if kind == PT_LOAD]


def virtual_addresses(loads: Iterable[tuple[int, int, int]]) -> tuple[int, tuple[int, int, int]]:
    """The direct map's base, and the kernel's text, out of /proc/kcore's headers (fs/proc/kcore.c: p_paddr is -1 for the rest)."""
    real = [load for load in loads if load[1] != (1 << 64) - 1]
    text = next((load for load in real if load[0] >= KERNEL_MAP), None)
    direct = next((vaddr - paddr for vaddr, paddr, _ in real if vaddr < KERNEL_MAP), None)
    if text is None or direct is None:
        raise KexecError("/proc/kcore shows neither the kernel's text nor the direct map")
    return direct, text


def without(ranges: Iterable[Range], hole: Range) -> list[Range]:
    first, last = hole[0], hole[0] + hole[1]
    left = [
        part for start, size in ranges for part in ((start, min(start + size, first)), (max(start, last), start + size))
    ]
    return [(start, end - start) for start, end in left if end > start]


def _firmware_map() -> Iterable[tuple[int, int, str]]:
    for entry in sorted(Path("/sys/firmware/memmap").iterdir(), key=lambda path: int(path.name)):
        start, last = (int((entry / name).read_text(), 16) for name in ("start", "end"))
        yield start, last - start + 1, (entry / "type").read_text().strip()


def _notes() -> Iterable[Range]:
    for cpu in sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*"), key=lambda path: int(path.name[3:])):
        if (cpu / "crash_notes").exists():
            yield int((cpu / "crash_notes").read_text(), 16), int((cpu / "crash_notes_size").read_text())
