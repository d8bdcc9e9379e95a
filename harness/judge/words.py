"""How findings are worded: ranges of numbers, lists that are cut with a count, times.

Rule: what is left out of a list is counted, never silently dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MOST = 20  # findings of one kind that are written out
MOST_RANGES = 40


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """[first, last] of each run of consecutive numbers, ascending; repeats count once."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def ranges(numbers: Iterable[int]) -> str:
    """`12-57, 60`; after MOST_RANGES runs `and 3 more ranges`."""
    every = runs(numbers)
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in every[:MOST_RANGES])
    return shown + (f" and {many(len(every) - MOST_RANGES, 'more range')}" if len(every) > MOST_RANGES else "")


def many(count: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def cut(findings: Sequence[str], what: str) -> list[str]:
    """At most MOST findings; the rest is counted."""
    shown = list(findings[:MOST])
    return shown + ([f"and {len(findings) - MOST} more: {what}"] if len(findings) > MOST else [])


def short(text: str, width: int = 100) -> str:
    """A line of console text in quotes, cut in the middle of a report line."""
    return f"`{text}`" if len(text) <= width else f"`{text[: width - 1]}…`"


def at(t: float) -> str:
    """A case time."""
    return f"{t:.3f} s"
