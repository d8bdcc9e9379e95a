"""Addresses of a guest's kernel as names: what /proc/kallsyms of the template said.

In: lines `ffffffff81000000 T _stext` or with `[module]` behind. Out: `name+0x1c` for an address. Rule: a clone has the template's
addresses (no KASLR, modules loaded before), so one table serves all its cases; an address outside any text is no name.
"""

from __future__ import annotations

import base64
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LIMIT = 32 << 20  # bytes of a table, unpacked; a guest sends it and is not trusted
FARTHEST = 0x10000  # bytes behind a symbol's start that may still be its code


@dataclass(frozen=True)
class Symbols:
    """Text symbols in order of address."""

    addresses: tuple[int, ...]
    names: tuple[str, ...]

    def resolve(self, address: int) -> str | None:
        """`name+0xoffset`, with `[module]` behind it where it is one's; None if no function is there."""
        place = bisect_right(self.addresses, address) - 1
        if place < 0 or address - self.addresses[place] > FARTHEST:
            return None
        name, _, module = self.names[place].partition(" ")
        return f"{name}+{address - self.addresses[place]:#x}" + (f" {module}" if module else "")


def parse(lines: Iterable[str]) -> Symbols:
    """The table of /proc/kallsyms; lines that are none of it are left out."""
    found: dict[int, str] = {}
    for line in lines:
        words = line.split()
        if len(words) in (3, 4) and words[1] in "tTwW":
            try:
                found.setdefault(int(words[0], 16), " ".join(words[2:]))
            except ValueError:
                continue
    found.pop(0, None)  # kptr_restrict shows zeros
    ordered = sorted(found.items())
    return Symbols(tuple(address for address, _ in ordered), tuple(name for _, name in ordered))


def address_of(path: Path, name: str) -> int | None:
    """Of a symbol that is no function, too, where the table has it."""
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[0], 16) for line in lines if line.split()[2:] == [name]), None)


@lru_cache(maxsize=1)
def load(path: Path) -> Symbols:
    """The table saved beside a template, some 50,000 names; empty if there is none."""
    return parse(path.read_text().splitlines()) if path.exists() else Symbols((), ())


def unpack(packed: str) -> str:
    """What the agent sends: zlib, base64. ValueError when it is not that, or too large."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(base64.b64decode(packed, validate=True), LIMIT)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if stream.unconsumed_tail:
        raise ValueError(f"symbols of more than {LIMIT} bytes")
    return text.decode("ascii", "replace")
