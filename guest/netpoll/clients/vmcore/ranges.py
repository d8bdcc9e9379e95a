"""Which part of the file holds which memory.

In: segments and the file's size. Out: `Ranges`, looked up by address. The rule it keeps: ranges are disjoint and in the
file, so one bisection answers; where segments overlap (kernel text is in two of /proc/vmcore) the first in order of address wins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """Memory `start`..`end` (end not included) is at `offset` of the file."""

    start: int
    end: int
    offset: int


class Ranges:
    """Disjoint ranges in order of address."""

    def __init__(self, candidates: Iterable[Range], file_size: int) -> None:
        inside = (_cut(each, file_size) for each in candidates)
        self._ranges = list(_disjoint(sorted((r for r in inside if r.start < r.end), key=lambda r: (r.start, -r.end))))
        self._starts = [each.start for each in self._ranges]

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def find(self, address: int) -> tuple[int, int] | None:
        """(offset in the file, bytes in a row from there), or None."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._ranges[at].end:
            return None
        found = self._ranges[at]
        return found.offset + address - found.start, found.end - address


def _cut(each: Range, file_size: int) -> Range:
    """What of it is in the file: a dump that was cut off still has its beginning."""
    return Range(each.start, min(each.end, each.start + max(0, file_size - each.offset)), each.offset)


def _disjoint(ordered: Iterable[Range]) -> Iterator[Range]:
    end = 0
    for each in ordered:
        if each.end > end:
            skip = max(0, end - each.start)
            yield Range(each.start + skip, each.end, each.offset + skip)
            end = each.end
