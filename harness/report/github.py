"""Verdicts as annotations of a GitHub Actions run: what did not hold stands beside the testcase in the pull request.

In: rows of (file or file:line, case, verdict's word, why). Out: workflow commands, a line each. Rule: what a guest said is escaped, so that it can give no
commands of its own (docs.github.com, "Workflow commands": % CR LF in data, : and , too in properties).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.report.page import clean

LEVELS = {"FAIL": "error", "ERROR": "error", "INCONCLUSIVE": "warning", "KNOWN_BUG": "notice"}
DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
PROPERTY = DATA | {":": "%3A", ",": "%2C"}

LINE = re.compile(r":\d+$")

Row = tuple[str, str, str, str]


def workflow_commands(rows: Iterable[Row]) -> Iterator[str]:
    """A command for each case that is worth one."""
    for place, case, word, why in rows:
        if level := LEVELS.get(word):
            file, _, line = place.rpartition(":") if LINE.search(place) else (place, "", "")
            at = f"file={_escaped(file, PROPERTY)}" + (f",line={line}" if line else "")
            title = _escaped(f"{word} {case}", PROPERTY)
            yield f"::{level} {at},title={title}::{_escaped(clean(why), DATA)}"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in text)
