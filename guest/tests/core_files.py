"""ELF vmcores made by hand, for tests: any segments, any notes, and page tables inside of them.

In: what a test says. Out: bytes. The rule it keeps: nothing here uses the reader's own layouts: fields stand where elf(5),
struct elf_prstatus and the SDM put them, as numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REG_ORDER = [
    "r15",
    "r14",
    "r13",
    "r12",
    "rbp",
    "rbx",
    "r11",
    "r10",
    "r9",
    "r8",
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "orig_rax",
    "rip",
    "cs",
    "eflags",
    "rsp",
    "ss",
    "fs_base",
    "gs_base",
    "ds",
    "es",
    "fs",
    "gs",
]
PRESENT, WRITE, HUGE = 1, 2, 0x80
DIRECT_MAP = 0xFFFF888000000000
TEXT = 0xFFFFFFFF81000000


@dataclass(frozen=True)
class Load:
    """A PT_LOAD: `data` from `paddr` on; `memsz` beyond it is memory that the file does not hold."""

    paddr: int
    data: bytes
    vaddr: int = 0
    memsz: int | None = None


def note(owner: bytes, kind: int, data: bytes) -> bytes:
    name = owner + b"\0"
    return struct.pack("<III", len(name), len(data), kind) + _pad(name) + _pad(data)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def prstatus(pid: int = 0, **registers: int) -> bytes:
    """An NT_PRSTATUS note; registers that are not named have their place in REG_ORDER as value."""
    values = [registers.get(name, at) for at, name in enumerate(REG_ORDER)]
    body = bytearray(336)
    struct.pack_into("<i", body, 32, pid)
    struct.pack_into("<27Q", body, 112, *values)
    return note(b"CORE", 1, bytes(body))


def vmcoreinfo(**values: object) -> bytes:
    """Keys of SYMBOL() and NUMBER() as SYMBOL_name and NUMBER_name."""
    lines = []
    for key, value in values.items():
        kind, _, name = key.partition("_")
        lines.append(f"{kind}({name})={value}" if kind in ("SYMBOL", "NUMBER") else f"{key}={value}")
    return note(b"VMCOREINFO", 0, "".join(line + "\n" for line in lines).encode())


def core(loads: Sequence[Load], notes: bytes = b"", **header: int) -> bytes:
    """A core file: header, program headers, notes, memory. `header` overrides e_* fields by name."""
    fields = {"e_type": 4, "e_machine": 62, "e_phoff": 64, "e_phentsize": 56, "e_phnum": 1 + len(loads), "e_shoff": 0}
    fields |= header
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = ident + struct.pack(
        "<HHIQQQIHHHHHH", fields["e_type"], fields["e_machine"], 1, 0, fields["e_phoff"], fields["e_shoff"], 0,
        64, fields["e_phentsize"], fields["e_phnum"], 0, 0, 0,
    )  # fmt: skip
    at = 64 + 56 * (1 + len(loads))
    headers = [struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(notes), len(notes), 4)]
    at += len(notes)
    for load in loads:
        memsz = len(load.data) if load.memsz is None else load.memsz
        headers.append(struct.pack("<IIQQQQQQ", 1, 7, at, load.vaddr, load.paddr, len(load.data), memsz, 0))
        at += len(load.data)
    return elf + b"".join(headers) + notes + b"".join(load.data for load in loads)


class Tables:
    """Page tables in physical memory from `root` on; pages for further tables follow it."""

    def __init__(self, root: int, levels: int = 4) -> None:
        self.root, self.levels = root, levels
        self.pages: dict[int, bytearray] = {root: bytearray(4096)}

    def map(self, vaddr: int, paddr: int, level: int = 0, flags: int = PRESENT | WRITE) -> None:
        """Map one page: of 4 KiB at level 0, 2 MiB at 1, 1 GiB at 2."""
        table = self.root
        for at in range(self.levels - 1, level, -1):
            table = self._next(table, vaddr >> (12 + 9 * at) & 511)
        entry = paddr | flags | (HUGE if level else 0)
        struct.pack_into("<Q", self.pages[table], 8 * (vaddr >> (12 + 9 * level) & 511), entry)

    def _next(self, table: int, index: int) -> int:
        (entry,) = struct.unpack_from("<Q", self.pages[table], 8 * index)
        if not entry:
            entry = max(self.pages) + 4096 | PRESENT | WRITE
            self.pages[entry & ~0xFFF] = bytearray(4096)
            struct.pack_into("<Q", self.pages[table], 8 * index, entry)
        return int(entry) & ~0xFFF

    def loads(self) -> list[Load]:
        return [Load(paddr, bytes(page)) for paddr, page in sorted(self.pages.items())]


def small_kernel(memory: Mapping[int, bytes] | None = None, levels: int = 4, phys_base: int = 0) -> bytes:
    """Two CPUs, page tables at 16 MiB above `phys_base`, text, direct map, and a vmalloc area of two pages in reverse order."""
    root = 0x1000000 + phys_base
    tables = Tables(root, levels)
    pages = {
        0x200000: b"text".ljust(4096, b"."),
        0x300000: b"low page".ljust(4096, b"-"),
        0x301000: b"high".ljust(4096, b"+"),
    }
    pages |= memory or {}
    tables.map(TEXT, 0x200000, level=1)
    vmalloc = 0xFFFFC90000000000 if levels == 4 else 0xFFA0000000000000
    tables.map(vmalloc, 0x301000)
    tables.map(vmalloc + 4096, 0x300000)
    direct = DIRECT_MAP if levels == 4 else 0xFF11000000000000
    tables.map(direct, 0, level=2)
    info = vmcoreinfo(
        OSRELEASE="6.1.0-test", SYMBOL_swapper_pg_dir=f"{0xFFFFFFFF81000000:x}", SYMBOL__stext=f"{TEXT:x}",
        NUMBER_phys_base=phys_base, NUMBER_pgtable_l5_enabled=int(levels == 5), KERNELOFFSET="0",
    )  # fmt: skip
    notes = prstatus(1, rip=TEXT, rsp=vmalloc + 4096) + prstatus(0, rip=TEXT + 16) + info
    loads = [Load(paddr, data) for paddr, data in sorted(pages.items())]
    return core([*loads, *tables.loads()], notes)
