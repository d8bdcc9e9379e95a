"""The dump against the machine: each page in the file must be the page that is in the guest's RAM when QEMU has stopped.

In: a dump, the descriptor of the RAM. Out: counts, and the first pages that differ. Rule: the capture kernel lives in its own region and in the first MiB,
neither of which a dump holds, so nothing else may have changed since the panic. What does differ is named by number, not explained away.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

PAGE = 4096
NAMED = 20  # pages that are named
RAM_MOST = 2048  # MiB: above, machines put a hole into the addresses (hw/i386/pc_q35.c: 2.75 GiB)


@dataclass
class Comparison:
    """`outside`: pages of the file that this machine has no RAM for."""

    pages: int = 0
    equal: int = 0
    zero: int = 0
    different: int = 0
    outside: int = 0
    named: tuple[int, ...] = ()


def compare(pages: Iterable[tuple[int, bytes]], ram: int) -> Comparison:
    """`ram`: a descriptor of the guest's memory, physical address 0 first. Raises BadDump while it reads the pages."""
    result = Comparison()
    zero = bytes(PAGE)
    with mmap.mmap(ram, 0, prot=mmap.PROT_READ) as memory:
        for pfn, page in pages:
            result.pages += 1
            at = pfn * PAGE
            if at + PAGE > len(memory):
                result.outside += 1
            elif memory[at : at + PAGE] == page:
                result.equal += 1
                result.zero += page == zero
            else:
                result.different += 1
                if len(result.named) < NAMED:
                    result.named = (*result.named, pfn)
    return result
