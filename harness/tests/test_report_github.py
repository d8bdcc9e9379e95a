"""Annotations for GitHub: which verdicts are worth one, and that a guest cannot give commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.report.github import workflow_commands

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    ("PASS", None),
    ("FAIL", "::error file=a.yaml,title=FAIL a/b[nic=e1000]::3 lost"),
    ("ERROR", "::error file=a.yaml,title=ERROR a/b[nic=e1000]::3 lost"),
    ("INCONCLUSIVE", "::warning file=a.yaml,title=INCONCLUSIVE a/b[nic=e1000]::3 lost"),
    ("KNOWN_BUG", "::notice file=a.yaml,title=KNOWN_BUG a/b[nic=e1000]::3 lost"),
]


@pytest.mark.parametrize(("word", "line"), ROWS, ids=[word for word, _ in ROWS])
def test_a_verdict_is_an_annotation(word: str, line: str | None) -> None:
    assert list(workflow_commands([("a.yaml", "a/b[nic=e1000]", word, "3 lost")])) == ([line] if line else [])


def test_the_line_of_the_expectation_is_named() -> None:
    (line,) = workflow_commands([("a/b.yaml:31", "a/b", "FAIL", "3 lost")])
    assert line == "::error file=a/b.yaml,line=31,title=FAIL a/b::3 lost"


def test_a_guest_gives_no_commands() -> None:
    (line,) = workflow_commands([("a,b:c.yaml", "x\n::error::y,z", "FAIL", "100%\r\n::stop-commands::t\x1b[2J")])
    assert (
        line
        == "::error file=a%2Cb%3Ac.yaml,title=FAIL x%0A%3A%3Aerror%3A%3Ay%2Cz::100%25\\x0d%0A::stop-commands::t\\x1b[2J"
    )
    assert "\n" not in line


@pytest.mark.guest
@pytest.mark.parametrize("where", ["true", "false"])
def test_a_run_there_has_them(where: str, tmp_path: Path) -> None:
    case = ROOT / "harness/tests/must_fail/crash-wrong-event.yaml"
    words = [
        sys.executable,
        "-m",
        "harness.cli",
        "run",
        str(case),
        "--results",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GITHUB_ACTIONS": where}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert len(found) == (where == "true"), done.stdout
    number = 1 + next(number for number, text in enumerate(case.read_text().splitlines()) if "- event:" in text)
    assert all(f"file=harness/tests/must_fail/crash-wrong-event.yaml,line={number},title=" in line for line in found)
