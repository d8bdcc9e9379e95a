"""The end of a run: every case with its verdict, how long it took, and why, then a line that counts.

In: rows of (case, verdict's word, why, seconds). Out: lines. Rule: the worst comes last, where the eye ends up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from harness.report.page import STYLES, clean, render

Row = tuple[str, str, str, float]  # case, word, why, seconds

WORDS = list(STYLES)


def summary(rows: Iterable[Row], told: bool = False) -> list[str]:
    """The table, and `12 cases: 10 PASS, 2 FAIL`. What went well says no more than its name, and nothing where that was `told` already."""
    ordered = sorted(rows, key=lambda row: (_rank(row[1]), row[0]))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    shown = [row for row in ordered if not (told and row[1] == "PASS")]
    for case, word, why, seconds in shown:
        said = "" if word == "PASS" else clean(why)
        table.add_row(Text(word, STYLES.get(word, "")), f"{seconds:.2f} s", Text(case), Text(said))
    return [*(render(table) if shown else ()), _count(ordered)]


def _rank(word: str) -> int:
    return WORDS.index(word) if word in WORDS else len(WORDS)


def _count(rows: list[Row]) -> str:
    counts = Counter(word for _, word, _, _ in rows)
    words = ", ".join(f"{counts[word]} {word}" for word in sorted(counts, key=_rank))
    return f"{len(rows)} {'case' if len(rows) == 1 else 'cases'}: {words or 'none'}"
