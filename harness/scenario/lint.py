"""Lint: everything that is wrong with testcases, ready to print, without running any.

In: files and folders. Out: the scenarios that are good and a line for each problem. Rule: never raises for what an author wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from harness.scenario.errors import ScenarioErrors
from harness.scenario.load import Loaded, load_tree


def lint(paths: Sequence[Path], known_kernels: Collection[str] | None = None) -> tuple[list[Loaded], list[str]]:
    """(cases, []) when all is well, otherwise ([], lines of `file:line:column: what; what to do`)."""
    try:
        return load_tree(paths, known_kernels), []
    except ScenarioErrors as errors:
        return [], [str(problem) for problem in errors.problems]
