"""The same cases again and again: does any verdict differ? `--repeat N`.

In: cases, and (case, verdict, by chance) of each run of one. Out: a name for each repetition, and how many verdicts there were and how many differ from
what most runs of their case came to. Rule: a case that does not always come to the same verdict is a flake, whatever the verdicts are; but a case whose
testcase states a bug that comes and goes says the same with PASS and with KNOWN_BUG.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

AS_STATED = "PASS or KNOWN_BUG"
_NUMBER = re.compile(r"#\d+$")


@dataclass(frozen=True)
class Flakes:
    """`verdicts` of `cases`; `differ`: how many are not what most of their case's are; `lines`: which cases, and what they came to."""

    verdicts: int
    cases: int
    differ: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.verdicts} verdicts of {self.cases} cases, {self.differ} differ"


def name_of(case: str, number: int, times: int) -> str:
    """`crash/panic[nic=e1000]#3`; a case that runs once keeps its name."""
    return case if times == 1 else f"{case}#{number}"


def case_of(name: str) -> str:
    """Without the number."""
    return _NUMBER.sub("", name)


def number_of(name: str) -> int:
    """The repetition; 0 where a case runs once."""
    found = _NUMBER.search(name)
    return int(found[0][1:]) if found else 0


def times(text: str) -> int:
    """As argparse's `type`. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of times: 1, 2, 3 ...")
    return int(text)


def flakes(runs: Iterable[tuple[str, str, bool]]) -> Flakes:
    """Of (case, verdict's word, is its known bug one of chance?), case names with or without a number."""
    by_case: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, word, by_chance in runs:
        by_case[case_of(name)][AS_STATED if by_chance and word in ("PASS", "KNOWN_BUG") else word] += 1
    differing = {case: words for case, words in by_case.items() if len(words) > 1}
    lines = [
        f"{case}: {', '.join(f'{count} {word}' for word, count in words.most_common())}"
        for case, words in sorted(differing.items())
    ]
    differ = sum(words.total() - words.most_common(1)[0][1] for words in differing.values())
    return Flakes(sum(words.total() for words in by_case.values()), len(by_case), differ, tuple(lines))
