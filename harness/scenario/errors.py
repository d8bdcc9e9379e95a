"""What is wrong with a testcase, and where: values that the loader collects and one exception that carries them all.

In: positions from `harness.scenario.document`, sentences from the checks. Out: lines `file:line:column: what; what to do`.
Rule: an author sees every error of a load at once, each with its place and its remedy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file, counted from 1; line 0 means the file as a whole. `file` is empty in the testcase itself."""

    line: int = 0
    column: int = 0
    file: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One error. `what` and `remedy` are sentences without a full stop. `by`: who includes the file, if it is a fragment; of many who
    do one is named."""

    file: str
    at: Position
    what: str
    remedy: str
    by: str = field(default="", compare=False)

    def __str__(self) -> str:
        place = f"{self.file}:{self.at.line}:{self.at.column}" if self.at.line else self.file
        return f"{place}: {self.what}; {self.remedy}" + (f" (included by {self.by})" if self.by else "")


class ScenarioErrors(ValueError):
    """Every problem found in the testcases that were loaded, in reading order, each once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


def suggest(word: str, known: Iterable[str], noun: str = "known") -> str:
    """`did you mean 'x'?` where something is close, otherwise all known words."""
    words = list(dict.fromkeys(str(item) for item in known))
    close = get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"{noun}: {', '.join(words)}" if words else f"{noun}: none"
