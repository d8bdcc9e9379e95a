"""Two runs side by side: which verdicts changed between two kernels, two commits, two days.

In: two results folders. Out: a `Comparison` of values, and it as text or as one HTML page. Rule: cases are matched by name, runs of the
same case in one folder in their order; a case that only one run has is told, never dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from harness.judge.model import Verdict
from harness.judge.words import many
from harness.report import store
from harness.report.page import STYLES, clean, render

RANKS = {word: rank for rank, word in enumerate(STYLES)}  # from the best to the worst
GROUPS = {
    "worse": "Worse",
    "better": "Better",
    "other": "Different",
    "gone": "Only in the first",
    "came": "Only in the second",
}
KNOWN = ("KNOWN_BUG", "INCONCLUSIVE")  # neither is better than the other


@dataclass(frozen=True)
class Change:
    """One case. None: this run does not have it."""

    case: str
    before: Verdict | None
    after: Verdict | None

    @property
    def group(self) -> str:
        """A key of GROUPS, or `same`."""
        if self.before is None or self.after is None:
            return "came" if self.before is None else "gone"
        first, second = self.before.word, self.after.word
        if first == second:
            return "same"
        if first in KNOWN and second in KNOWN:
            return "other"
        return "worse" if RANKS[second] > RANKS[first] else "better"

    @property
    def words(self) -> tuple[str, str]:
        return self.before.word if self.before else "", self.after.word if self.after else ""

    @property
    def why(self) -> str:
        """The reason of the verdict that is worth one: the new one, unless it passed."""
        for each in (self.after, self.before):
            if each is not None and each.word != "PASS":
                return each.why
        return ""


@dataclass(frozen=True)
class Comparison:
    """`versions`: what the two runs ran on, where that differs."""

    first: str
    second: str
    changes: tuple[Change, ...]
    versions: Mapping[str, tuple[str, str]]

    def group(self, name: str) -> list[Change]:
        return [change for change in self.changes if change.group == name]


def compare(first: Path, second: Path, verdict_of: Callable[[Path], Verdict] = store.read_verdict) -> Comparison:
    """`verdict_of`: store.rejudge for today's checks on both. Raises StoreError."""
    before, after = _by_case(first, verdict_of), _by_case(second, verdict_of)
    keys = sorted(before.keys() | after.keys())
    changes = tuple(Change(key[0], before.get(key), after.get(key)) for key in keys)
    return Comparison(str(first), str(second), changes, _versions(first, second))


def _by_case(results: Path, verdict_of: Callable[[Path], Verdict]) -> dict[tuple[str, int], Verdict]:
    found: dict[tuple[str, int], Verdict] = {}
    seen: dict[str, int] = defaultdict(int)
    for folder in store.cases(results):
        verdict = verdict_of(folder)
        found[verdict.case, seen[verdict.case]] = verdict
        seen[verdict.case] += 1
    return found


def _versions(first: Path, second: Path) -> dict[str, tuple[str, str]]:
    one, two = (store.environment(each, store.cases(each)) for each in (first, second))
    names = dict.fromkeys([*one, *two])
    return {name: (one.get(name, ""), two.get(name, "")) for name in names if one.get(name) != two.get(name)}


def text(found: Comparison) -> list[str]:
    """For a terminal or a log."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    for _ in ("group", "before", "after", "case"):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for name, heading in GROUPS.items():
        for change in found.group(name):
            first, second = (Text(word or "-", STYLES.get(word, "")) for word in change.words)
            table.add_row(Text(heading.lower()), first, second, Text(change.case), Text(clean(change.why)))
    lines = render(table) if any(found.group(name) for name in GROUPS) else []
    return [*_differing(found), *lines, _count(found)]


def _differing(found: Comparison) -> Iterator[str]:
    for name, (first, second) in found.versions.items():
        yield f"{name}: {clean(first) or '-'} -> {clean(second) or '-'}"


def _count(found: Comparison) -> str:
    counts = Counter(change.group for change in found.changes)
    words = [f"{counts[name]} {heading.lower()}" for name, heading in GROUPS.items() if counts[name]]
    words.append(f"{counts['same']} the same")
    return f"{many(len(found.changes), 'case')}: {', '.join(words)}"
