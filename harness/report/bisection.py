"""What `git bisect run` is told of a run: good, bad, or that it cannot tell.

In: pytest's status and the case folders that the run made. Out: an exit code of git-bisect(1). Rule: what the kernel did is judged here
without the testcases' known bugs, for a known bug is just what somebody bisects for; only a failure by evidence is bad.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import IntEnum
from pathlib import Path

import pytest

from harness.judge.judge import judge
from harness.report import store


class BisectExit(IntEnum):
    """git-bisect(1): 125 skips the commit, 1 to 127 else is bad, from 128 on the bisection is given up."""

    GOOD = 0
    BAD = 1
    CANNOT_TELL = 125
    INTERRUPTED = 130
    GIVE_UP = 255  # the command line makes no sense, on no commit


def exit_of(status: int, words: Collection[str]) -> BisectExit:
    """`status`: pytest's; `words`: the verdicts of the cases that ran."""
    if status == pytest.ExitCode.INTERRUPTED:
        return BisectExit.INTERRUPTED
    if status == pytest.ExitCode.USAGE_ERROR:
        return BisectExit.GIVE_UP
    if "FAIL" in words:
        return BisectExit.BAD
    return BisectExit.GOOD if words and set(words) == {"PASS"} else BisectExit.CANNOT_TELL


def words_of(folders: Iterable[Path]) -> list[str]:
    """The verdict on each case as if no bug were known. Raises StoreError."""
    found: list[str] = []
    for folder in folders:
        plan, events = store.read_case(folder)
        found.append(judge(plan.model_copy(update={"known_bug": None, "driver_bugs": ()}), events).word)
    return found


def case_folders(results: Path) -> frozenset[Path]:
    """The cases in a results folder, which earlier runs may have used, too."""
    return frozenset(store.cases(results)) if any(results.glob(f"*/{store.PLAN}")) else frozenset()
