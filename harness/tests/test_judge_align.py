"""Two sequences side by side: tables, and that random loss, repetition and disorder are found exactly."""

from __future__ import annotations

from collections import Counter
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judge.align import align
from harness.judge.words import cut, ranges, runs

#   expected, observed, lost, reordered, duplicated, unknown (as keys)
CASES = {
    "nothing": ("", "", "", "", "", ""),
    "all": ("abc", "abc", "", "", "", ""),
    "all-lost": ("abc", "", "abc", "", "", ""),
    "first-lost": ("abc", "bc", "a", "", "", ""),
    "last-lost": ("abc", "ab", "c", "", "", ""),
    "swapped": ("abcd", "acbd", "", "b", "", ""),
    "one-overtakes-many": ("abcdef", "fabcde", "", "f", "", ""),
    "twice-in-a-row": ("abc", "abbc", "", "", "b", ""),
    "twice-later": ("abc", "abca", "", "", "a", ""),
    "strange": ("abc", "axbc", "", "", "", "x"),
    "equal-lines": ("aba", "aba", "", "", "", ""),
    "one-of-two-equal-lost-at-the-front": ("aba", "ba", "a", "", "", ""),
    "one-of-two-equal-lost-at-the-end": ("aba", "ab", "a", "", "", ""),
    "equal-lines-one-too-many": ("aa", "aaa", "", "", "a", ""),
    "everything-at-once": ("abcdef", "bacxcf", "de", "b", "c", "x"),
}


@pytest.mark.parametrize(
    ("expected", "observed", "lost", "reordered", "duplicated", "unknown"), CASES.values(), ids=CASES
)
def test_what_is_found(expected: str, observed: str, lost: str, reordered: str, duplicated: str, unknown: str) -> None:
    found = align(expected, observed)
    assert "".join(expected[place] for place in found.lost) == lost
    assert sorted(expected[place] for _, place in found.duplicated) == sorted(duplicated)
    assert "".join(observed[at] for at in found.unknown) == unknown
    assert len(found.reordered) == len(reordered)
    assert found.perfect == (expected == observed)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_loss_repetition_and_disorder_are_found_exactly(data: st.DataObject) -> None:
    """Unique items: what was done to them is what is reported, item by item."""
    size = data.draw(st.integers(0, 40))
    expected = list(range(size))
    kept = data.draw(st.lists(st.sampled_from(expected), unique=True) if size else st.just([]))
    copies = [item for item in kept for _ in range(data.draw(st.integers(1, 3)))]
    observed = data.draw(st.permutations(copies))
    found = align(expected, observed)
    assert set(found.lost) == set(expected) - set(kept)
    assert Counter(place for _, place in found.duplicated) == Counter(copies) - Counter(set(copies))
    assert found.unknown == ()
    in_order = [at for place, at in sorted(found.matched.items()) if place not in found.reordered]
    assert in_order == sorted(in_order), "without the reordered ones the rest must be in order"


@given(st.text("abc", max_size=12), st.text("abcx", max_size=12))
@settings(max_examples=200, deadline=None)
def test_every_item_is_accounted_for_once(expected: str, observed: str) -> None:
    found = align(expected, observed)
    explained = [*found.matched.values(), *(at for at, _ in found.duplicated), *found.unknown]
    assert sorted(explained) == list(range(len(observed)))
    assert sorted([*found.matched, *found.lost]) == list(range(len(expected)))
    assert all(expected[place] == observed[at] for place, at in found.matched.items())
    assert len(found.matched) - len(found.reordered) == _lcs(expected, observed)


def _lcs(a: str, b: str) -> int:
    """Length of a longest common subsequence, the slow way."""
    row = [0] * (len(b) + 1)
    for x in a:
        row = [0, *row[1:]]
        previous = 0
        for at, y in enumerate(b, 1):
            previous, row[at] = row[at], previous + 1 if x == y else max(row[at], row[at - 1])
    return row[-1]


def test_thousands_of_equal_lines_do_not_explode() -> None:
    began = perf_counter()
    found = align(["same"] * 4000, ["same"] * 3990)
    assert len(found.lost) == 10
    assert perf_counter() - began < 20


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([7], "7"), ([12, 13, 14, 60], "12-14, 60"), ([3, 1, 2, 2], "1-3"), (range(0, 100, 2), None)],
)
def test_ranges(numbers: list[int], text: str | None) -> None:
    assert runs(numbers) == runs(reversed(list(numbers)))
    if text is None:
        assert ranges(numbers).endswith("and 10 more ranges")
    else:
        assert ranges(numbers) == text


def test_a_cut_list_says_how_much_is_missing() -> None:
    assert cut([str(n) for n in range(23)], "lines")[-1] == "and 3 more: lines"
    assert cut(["a"], "lines") == ["a"]
