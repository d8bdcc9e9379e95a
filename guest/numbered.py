"""Numbered text lines, for the kernel's netconsole: `npt LABEL SEQ FILL`.

In: label, sequence number, seed and size. Out: one printable line. Rule: the line follows from its arguments alone, so that
whoever reads it at the other end can say whether it arrived whole.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import NamedTuple

_LINE = re.compile(r"\bnpt ([a-z][a-z0-9_-]{0,14}) (\d+)(?: ([a-p]*))?")


class Numbered(NamedTuple):
    label: str
    seq: int
    fill: str


def size_of(seed: int, seq: int, low: int, high: int) -> int:
    """The wanted size of message `seq`, in [low, high]."""
    return random.Random(f"{seed}/{seq}").randint(low, high)


def numbered_line(label: str, seq: int, seed: int, size: int) -> str:
    """The line of message `seq`, `size` characters long where the number leaves room, without a newline."""
    head = f"npt {label} {seq}"
    room = size - len(head) - 1
    if room <= 0:
        return head
    digest = hashlib.shake_128(f"{label}/{seed}/{seq}".encode()).digest((room + 1) // 2)
    fill = "".join(chr(97 + (byte >> 4)) + chr(97 + (byte & 15)) for byte in digest)
    return f"{head} {fill[:room]}"


def parse_numbered(text: str) -> Numbered | None:
    """The numbered line inside `text` (which may carry a timestamp or level before it), or None."""
    found = _LINE.search(text)
    if found is None:
        return None
    return Numbered(found.group(1), int(found.group(2)), found.group(3) or "")
