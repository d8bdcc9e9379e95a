"""The page tables of x86-64: a virtual address to a physical one (Intel SDM volume 3, 4.5; AMD APM volume 2, 5.3).

In: the root's physical address, a reader of physical memory. Out: a physical address, and how many bytes are mapped in a
row from there. The rule it keeps: at most five reads a walk, so tables that point at themselves or at nothing end, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from guest.netpoll.clients.vmcore.errors import NotInDump

PAGE_SHIFT = 12
INDEX_BITS = 9
PRESENT, PSE = 1 << 0, 1 << 7
PROTNONE = 1 << 8  # Linux: not present for the CPU, yet a page is there (asm/pgtable_types.h: _PAGE_PROTNONE)
ADDRESS = ((1 << 52) - 1) & ~0xFFF  # bits 12..51
LARGEST = 2  # the level (from 0, the last) of the largest page: 1 GiB in the table of page directory pointers
_NAMES = {4: ("PTE", "PMD", "PUD", "PGD"), 5: ("PTE", "PMD", "PUD", "P4D", "PGD")}  # Linux's, from level 0

ReadPhysical = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class PageTables:
    """Where the walk begins. `levels` is 4 or 5; `sme_mask` is the encryption bit that entries carry (0: none)."""

    root: int
    levels: int = 4
    sme_mask: int = 0


def canonical(address: int, levels: int) -> bool:
    """True if the bits above those translated all equal the highest translated one."""
    top = address >> (PAGE_SHIFT + INDEX_BITS * levels - 1)
    return top in (0, (1 << (65 - PAGE_SHIFT - INDEX_BITS * levels)) - 1)


def translate(tables: PageTables, address: int, read: ReadPhysical) -> tuple[int, int]:
    """(physical address, bytes to the end of its page). Raises NotInDump, naming the level that ended the walk."""
    if not canonical(address, tables.levels):
        raise NotInDump(f"{address:#x} is not canonical with {tables.levels} levels of page tables")
    table = tables.root
    for level in reversed(range(tables.levels)):
        entry = _entry(tables, table, address, level, read)
        shift = PAGE_SHIFT + INDEX_BITS * level
        if level == 0 or (level <= LARGEST and entry & PSE):
            size = 1 << shift
            base = entry & ADDRESS & ~(size - 1)
            return base | (address & (size - 1)), size - (address & (size - 1))
        table = entry & ADDRESS
    raise AssertionError("level 0 ends the walk")


def _entry(tables: PageTables, table: int, address: int, level: int, read: ReadPhysical) -> int:
    index = address >> (PAGE_SHIFT + INDEX_BITS * level) & ((1 << INDEX_BITS) - 1)
    try:
        entry = int.from_bytes(read(table + 8 * index, 8), "little") & ~tables.sme_mask
    except NotInDump as error:
        raise NotInDump(
            f"{address:#x}: its {_NAMES[tables.levels][level]} at {table + 8 * index:#x} is not in the dump"
        ) from error
    leaf = level == 0 or (level <= LARGEST and entry & PSE)
    if not (entry & PRESENT or (leaf and entry & PROTNONE)):
        raise NotInDump(f"{address:#x} is not mapped: {_NAMES[tables.levels][level]} {entry:#x}")
    return entry
