"""Views of many cases: the same by one process and by several, in order, and whole when a helping process dies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.report import views as shared
from harness.report.view import CaseView, view
from harness.report.views import ENOUGH, views


def folders(root: Path, count: int) -> list[Path]:
    """Cases whose plans are missing, which a report shows, too."""
    made = [root / f"case-{number:03}" for number in range(count)]
    for folder in made:
        folder.mkdir(parents=True)
        (folder / "evidence.jsonl").touch()
    return made


@pytest.mark.parametrize("processors", [1, 2, 3])
def test_any_number_of_processes_gives_the_same(
    processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(processors)))
    cases = folders(tmp_path, 3 * ENOUGH + 1)
    told: list[tuple[int, int]] = []
    made = views(cases, tmp_path, lambda done, of: told.append((done, of)))
    assert made == [view(case, tmp_path) for case in cases]
    assert told[-1] == (len(cases), len(cases))


def test_helpers_do_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    here: list[Path] = []

    def noted(folder: Path, root: Path) -> CaseView:
        here.append(folder)
        return view(folder, root)

    monkeypatch.setattr(shared, "view", noted)
    cases = folders(tmp_path, 2 * ENOUGH)
    views(cases, tmp_path)
    assert here == cases[::2]


def test_what_a_dead_helper_does_not_bring_is_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    cases = folders(tmp_path, 2 * ENOUGH)
    expected = views(cases, tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert views(cases, tmp_path) == expected
