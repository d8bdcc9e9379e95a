"""Two sequences side by side: what was expected, and what came. Nothing here knows what the items are.

In: expected and observed keys, each in order. Out: which expected items never came, which came more than once, which came
out of order, and which observed items nobody expected. Rule: as much as possible is explained in order (a longest common
subsequence), so that one line that overtook another is one finding and not two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

NEAR = 32  # of equal keys only those this near to the k-th are tried; keeps a thousand equal lines affordable


@dataclass(frozen=True)
class Alignment:
    """Indices into `expected` and `observed`. Every observed index is in exactly one of `matched`, `duplicated`, `unknown`."""

    matched: dict[int, int]  # expected -> observed, in order or not
    lost: tuple[int, ...]  # expected
    reordered: tuple[int, ...]  # expected: matched, but not in order; the fewest that explain it
    duplicated: tuple[tuple[int, int], ...]  # (observed, the expected index it repeats)
    unknown: tuple[int, ...]  # observed

    @property
    def perfect(self) -> bool:
        """Everything expected came once, in order, and nothing else."""
        return not (self.lost or self.reordered or self.duplicated or self.unknown)


def align(expected: Sequence[Hashable], observed: Sequence[Hashable]) -> Alignment:
    """Explain `observed` by `expected`. O(n log n) where keys are mostly unique."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(expected):
        places[key].append(index)
    in_order = _longest_in_order(_candidates(places, observed))
    matched = dict(in_order)
    used = set(matched.values())
    reordered, duplicated, unknown = [], [], []
    for at, key in enumerate(observed):
        if at in used:
            continue
        if key not in places:
            unknown.append(at)
        elif (free := next((place for place in places[key] if place not in matched), None)) is not None:
            matched[free] = at
            reordered.append(free)
        else:
            duplicated.append((at, places[key][-1]))
    lost = tuple(index for index in range(len(expected)) if index not in matched)
    return Alignment(matched, lost, tuple(sorted(reordered)), tuple(duplicated), tuple(unknown))


def _candidates(places: dict[Hashable, list[int]], observed: Sequence[Hashable]) -> list[tuple[int, int]]:
    """(expected, observed) pairs of equal keys: observed ascending, expected descending within one observed item."""
    seen: Counter[Hashable] = Counter()
    pairs: list[tuple[int, int]] = []
    for at, key in enumerate(observed):
        if key in places:
            nth = seen[key]
            seen[key] += 1
            near = places[key][max(0, nth - NEAR) : nth + NEAR + 1] or places[key][-1:]
            pairs += [(place, at) for place in reversed(near)]
    return pairs


def _longest_in_order(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Hunt and Szymanski: a longest run of pairs that ascends in both numbers, by patience sorting."""
    tops: list[int] = []  # the smallest last expected index of an ascending run of each length
    ends: list[int] = []  # the pair that ends it
    before: list[int] = []  # for each pair: the pair that precedes it in its run, -1 for none
    for number, (place, _) in enumerate(pairs):
        length = bisect_left(tops, place)
        before.append(ends[length - 1] if length else -1)
        if length == len(tops):
            tops.append(place)
            ends.append(number)
        else:
            tops[length], ends[length] = place, number
    run: list[tuple[int, int]] = []
    number = ends[-1] if ends else -1
    while number >= 0:
        run.append(pairs[number])
        number = before[number]
    return run[::-1]
