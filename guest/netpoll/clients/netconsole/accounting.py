"""Which sequence numbers came: gaps, late arrivals, duplicates, a sender that restarted.

In: (seq, usec) of each whole message. Out: what is noteworthy about it. The rule it keeps: the state is the runs of
numbers still missing, bounded, so that memory does not grow with traffic; a gap stays open until it is filled.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass

MAX_RUNS = 1024  # missing runs held open; the oldest beyond that are lost for good
RECENT = 1024  # numbers whose time is remembered, to tell a duplicate from a sender that restarted
EARLY = 32  # how far before the first number one may come and still be late, not a restart (ncrx's oos window)
BACKWARDS = 10_000_000  # usec; CPUs' clocks disagree by less, so a later number with an earlier time is a new boot


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers first..last were skipped; they may still come late."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Late:
    """A number that was missing, now here."""

    seq: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A number that was here already."""

    seq: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """The sender counts anew from `seq`: it rebooted. What was missing before is lost for good."""

    seq: int
    lost: int  # numbers still missing of the run before


Note = Gap | Late | Duplicate | Restarted


class Accounts:
    """The numbers of one sender. Starts with the first that comes: what was before it is unknown, not missing."""

    def __init__(self) -> None:
        self.highest = -1
        self.lost = 0  # missing for good: of earlier boots, and beyond MAX_RUNS
        self._first = -1
        self._usec = 0  # the latest time
        self._runs: list[tuple[int, int]] = []  # missing, ascending
        self._recent: OrderedDict[int, int] = OrderedDict()

    def seen(self, seq: int, usec: int) -> bool:
        """This very record has been counted (and is recent)."""
        return self._recent.get(seq) == usec

    def note(self, seq: int, usec: int) -> Note | None:
        """Count one whole message; what is noteworthy about it, if anything."""
        note = self._place(seq, usec)
        if not isinstance(note, Duplicate):
            self._remember(seq, usec)
        return note

    def _place(self, seq: int, usec: int) -> Note | None:
        if self.highest < 0:
            self._first = seq
            return None
        if seq > self.highest:
            return self._ahead(seq, usec)
        if self._fill(seq):
            return Late(seq)
        if self.seen(seq, usec):
            return Duplicate(seq)
        if seq < self._first <= seq + EARLY and usec <= self._usec:
            self._before_first(seq)
            return Late(seq)
        return self._restart(seq)

    def _remember(self, seq: int, usec: int) -> None:
        self.highest = max(self.highest, seq)
        self._usec = max(self._usec, usec)
        self._recent[seq] = usec
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def _ahead(self, seq: int, usec: int) -> Note | None:
        if usec + BACKWARDS < self._usec:
            return self._restart(seq)
        if seq == self.highest + 1:
            return None
        self._runs.append((self.highest + 1, seq - 1))
        if len(self._runs) > MAX_RUNS:
            first, last = self._runs.pop(0)
            self.lost += last - first + 1
        return Gap(self.highest + 1, seq - 1)

    def _fill(self, seq: int) -> bool:
        at = bisect_right(self._runs, (seq, 1 << 64)) - 1
        if at < 0 or self._runs[at][1] < seq:
            return False
        first, last = self._runs[at]
        halves = [(first, seq - 1), (seq + 1, last)]
        self._runs[at : at + 1] = [run for run in halves if run[0] <= run[1]]
        return True

    def _before_first(self, seq: int) -> None:
        if seq + 1 < self._first:
            self._runs.insert(0, (seq + 1, self._first - 1))
        self._first = seq

    def _restart(self, seq: int) -> Restarted:
        lost = self.missing_count
        self.lost += lost
        self._runs.clear()
        self._recent.clear()
        self._first, self.highest, self._usec = seq, seq, 0
        return Restarted(seq, lost)

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Runs (first, last) still open, ascending."""
        return list(self._runs)

    @property
    def missing_count(self) -> int:
        """Numbers in open runs."""
        return sum(last - first + 1 for first, last in self._runs)

    @property
    def contiguous(self) -> int:
        """The highest number before the first gap; -1 before anything came."""
        return self._runs[0][0] - 1 if self._runs else self.highest
