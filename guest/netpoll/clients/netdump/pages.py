"""Which pages a collector has asked for, which are here, and which to ask for again.

In: replies to SEND_MEM, the time. Out: requests, and whole pages. The one rule: every request has a number of its own, and a page is
asked for again when later requests were answered and it was not, or when its time is up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

REORDER = 3


@dataclass(slots=True)
class Asked:
    """One request under way."""

    page: int
    when: float
    parts: dict[int, bytes] = field(default_factory=dict)


class Window:
    """Pages `first` to `count`. `ranges`: the RAM below `low`, [first, one past the last] ascending. `done` holds whole pages, (number, bytes), until they are taken."""

    def __init__(self, first: int, count: int, parts: int, size: int, ranges: list[list[int]]) -> None:
        self.low = first  # below this, all is here
        self.ranges = ranges
        self.done: list[tuple[int, bytes]] = []
        self.resent = self.bad = 0
        self._next = first
        self._count, self._parts, self._size = count, parts, size
        self._asked: dict[int, Asked] = {}
        self._again: list[int] = []
        self._here: dict[int, bool] = {}  # pages above low: are they RAM?
        self._timeout, self._smooth = 1.0, 0.0

    @property
    def finished(self) -> bool:
        """Every page is here."""
        return self.low >= self._count

    def requests(self, number: int, now: float) -> list[tuple[int, int]]:
        """(nr, page) to ask for now; numbers count from `number`."""
        if self._asked:
            oldest = next(iter(self._asked.values()))
            if now - oldest.when > self._timeout:
                self._timeout = min(2 * self._timeout, 2.0)
                self._lose(list(self._asked))
        out = []
        while len(self._asked) < self._size and (page := self._pick()) is not None:
            self._asked[number] = Asked(page, now)
            out.append((number, page))
            number += 1
        return out

    def _pick(self) -> int | None:
        while self._again:
            page = self._again.pop()
            if page >= self.low and page not in self._here:
                return page
        if self._next >= self._count or self._next - self.low > 64 * self._size:
            return None
        self._next += 1
        return self._next - 1

    def wait(self, now: float) -> float:
        """Seconds until requests() has something to ask for again."""
        if not self._asked:
            return 0.0
        return max(0.0, next(iter(self._asked.values())).when + self._timeout - now)

    def part(self, nr: int, at: int, data: bytes, now: float) -> None:
        """MEM: a piece of a page, `at` its offset; each piece is as long as all."""
        asked = self._asked.get(nr)
        size = len(data)
        if asked is None or not size or at % size or at // size >= self._parts:
            self.bad += 1
            return
        asked.parts[at] = data
        if len(asked.parts) == self._parts:
            self._answered(nr, now)
            self._complete(asked.page, b"".join(asked.parts[at] for at in sorted(asked.parts)))

    def reserved(self, nr: int, following: int, now: float) -> None:
        """RESERVED: no RAM up to the page `following`, or (0) to the end; a `following` that cannot be speaks for its page alone."""
        asked = self._asked.get(nr)
        if asked is None:
            self.bad += 1
            return
        self._answered(nr, now)
        last = following if asked.page < following <= self._count else self._count if not following else asked.page + 1
        if asked.page == self.low:  # else it may be a page that was asked for before, while others are under way
            self.low = last
            self._next = max(self._next, last)
            self._advance()
        elif asked.page > self.low:
            self._here[asked.page] = False

    def refused(self, nr: int, now: float) -> None:
        """ERROR: there is no such page."""
        self.reserved(nr, self._count + 1, now)

    def _answered(self, nr: int, now: float) -> None:
        """It is no longer under way; those asked for well before it are lost."""
        sample = now - self._asked.pop(nr).when
        self._smooth = sample if not self._smooth else self._smooth + (sample - self._smooth) / 8
        self._timeout = min(max(4 * self._smooth, 0.1), 2.0)
        lost = []
        for before in self._asked:
            if before > nr - REORDER:
                break
            lost.append(before)
        self._lose(lost)

    def _lose(self, numbers: list[int]) -> None:
        self.resent += len(numbers)
        self._again += [self._asked.pop(nr).page for nr in reversed(numbers)]

    def _complete(self, page: int, data: bytes) -> None:
        if page < self.low or page in self._here:
            return
        self.done.append((page, data))
        self._here[page] = True
        self._advance()

    def _advance(self) -> None:
        """Past what is here: RAM makes the last range longer, or begins another."""
        while (ram := self._here.pop(self.low, None)) is not None:
            if ram and self.ranges and self.ranges[-1][1] == self.low:
                self.ranges[-1][1] += 1
            elif ram:
                self.ranges.append([self.low, self.low + 1])
            self.low += 1

    def take(self) -> list[tuple[int, bytes]]:
        """Whole pages, ascending."""
        done, self.done = sorted(self.done), []
        return done
