"""Two runs side by side: what got worse, what got better, what only one of them has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.judge.model import Verdict, Word
from harness.report import compare, store
from harness.tests.report_cases import HOSTILE, PARITY, VERSIONS, make


def run(root: Path, words: dict[str, Word], **versions: str) -> Path:
    """A results folder with these verdicts."""
    for case, word in words.items():
        folder = store.new_case(root, PARITY.model_copy(update={"case": case}), VERSIONS | versions)
        store.write_verdict(folder, Verdict(case=case, word=word, why=f"{word}, {HOSTILE}", checks=()))
    return root


BEFORE: dict[str, Word] = {"a": "PASS", "b": "FAIL", "c": "PASS", "d": "KNOWN_BUG", "e": "ERROR", "f": "PASS"}
AFTER: dict[str, Word] = {"a": "PASS", "b": "PASS", "c": "FAIL", "d": "INCONCLUSIVE", "e": "FAIL", "g": "PASS"}


def test_each_case_is_in_its_group(tmp_path: Path) -> None:
    found = compare.compare(run(tmp_path / "1", BEFORE), run(tmp_path / "2", AFTER, kernel="6.12"))
    assert {change.case: change.group for change in found.changes} == {
        "a": "same", "b": "better", "c": "worse", "d": "other", "e": "better", "f": "gone", "g": "came",
    }  # fmt: skip
    assert found.versions == {"kernel": ("6.1.0-50-amd64", "6.12")}


def test_the_same_case_run_twice_is_matched_in_order(tmp_path: Path) -> None:
    for root, words in ((tmp_path / "1", ["PASS", "PASS"]), (tmp_path / "2", ["PASS", "FAIL"])):
        for word in words:
            run(root, {"x": word})  # type: ignore[dict-item]
    found = compare.compare(tmp_path / "1", tmp_path / "2")
    assert [(change.words, change.group) for change in found.changes] == [
        (("PASS", "PASS"), "same"),
        (("PASS", "FAIL"), "worse"),
    ]


@pytest.mark.parametrize(("first", "second", "status"), [("1", "2", 1), ("2", "1", 1), ("1", "1", 0)])
def test_the_command_says_it_and_fails_if_something_got_worse(
    first: str, second: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "1", BEFORE)
    run(tmp_path / "2", AFTER, kernel="6.12")
    page = tmp_path / "changes.html"
    words = ["compare", str(tmp_path / first), str(tmp_path / second), "--html", str(page)]
    assert main(words) == status
    said = capsys.readouterr().out
    assert ("kernel: " in said) == (first != second)
    assert ("worse" in said) == (status == 1)
    assert "\x1b" not in said
    html = page.read_text()
    assert html.count("<script") == 0
    assert html.count("</tr>") > len(BEFORE)
    assert "&lt;script&gt;document.title" in html


def test_judged_again_with_todays_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "1", "fail")
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    old = store.read_verdict(folder).model_copy(update={"word": "PASS", "checks": ()})
    store.write_verdict(folder, old)
    assert main(["compare", str(tmp_path / "1"), str(tmp_path / "2")]) == 1
    assert main(["compare", str(tmp_path / "1"), str(tmp_path / "2"), "--again"]) == 0
    assert store.read_verdict(folder) == old, "nothing is written"
    assert capsys.readouterr().out.splitlines()[-1] == "1 case: 1 the same"


def test_a_folder_without_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "1", BEFORE)
    assert main(["compare", str(tmp_path / "1"), str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
