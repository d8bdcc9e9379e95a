"""A case's folder: written, read back, judged again; and folders that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.plan.model import Plan
from harness.report import store
from harness.report.store import StoreError
from harness.tests.judge_evidence import PANIC_LINES, crashed, plan, run, rx, send

PLAN = plan({"delivered": {"from": "g", "to": "h"}})
EVENTS = run(send(30), rx(range(29)))


def saved(results: Path, planned: Plan = PLAN, events: list[Event] | None = None) -> Path:
    """A case as a run leaves it."""
    folder = store.new_case(results, planned, {"kernel": "6.1.0-42-amd64"})
    lines = "".join(json.dumps(each) + "\n" for each in (EVENTS if events is None else events))
    (folder / "evidence.jsonl").write_text(lines)
    return folder


def test_round_trip(tmp_path: Path) -> None:
    folder = saved(tmp_path / "results")
    assert store.read_case(folder) == (PLAN, EVENTS)
    assert json.loads((folder / "versions.json").read_text()) == {"kernel": "6.1.0-42-amd64"}
    verdict = judge(PLAN, EVENTS)
    store.write_verdict(folder, verdict)
    assert store.read_verdict(folder) == verdict
    assert sorted(path.name for path in folder.iterdir()) == [
        "evidence.jsonl",
        "plan.json",
        "verdict.json",
        "versions.json",
    ]


@pytest.mark.parametrize(
    "events", [EVENTS, crashed(PANIC_LINES[:4]), EVENTS[:-1]], ids=["fail", "not-reached", "killed"]
)
def test_judging_again_gives_the_same_verdict_and_writes_nothing(events: list[Event], tmp_path: Path) -> None:
    folder = saved(tmp_path, events=events)
    verdict = judge(PLAN, events)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert store.rejudge(folder) == verdict
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_evidence_cut_in_the_middle_of_a_line_is_that_of_a_killed_harness(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    evidence = folder / "evidence.jsonl"
    os.truncate(evidence, evidence.stat().st_size - 5)
    verdict = store.rejudge(folder)
    assert verdict.word == "ERROR"
    assert "the harness was killed" in verdict.why


def test_a_case_that_ran_before_is_kept(tmp_path: Path) -> None:
    folders = [saved(tmp_path) for _ in range(3)]
    assert [folder.name for folder in folders] == ["judge_synthetic", "judge_synthetic.2", "judge_synthetic.3"]
    assert store.cases(tmp_path) == folders
    assert store.cases(folders[1]) == [folders[1]]


def test_verdicts_of_a_run(tmp_path: Path) -> None:
    good, bad, _unjudged = saved(tmp_path, events=run(send(30), rx(range(30)))), saved(tmp_path), saved(tmp_path)
    for folder in (good, bad):
        store.write_verdict(folder, store.rejudge(folder))
    assert [verdict.word for verdict in store.verdicts(tmp_path)] == ["PASS", "FAIL"]
    assert list(store.verdicts(tmp_path / "nothing-was-run")) == []


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("send/out[nic=e1000,crash=sysrq-c]", "send_out_nic=e1000,crash=sysrq-c"),
        ("../../etc/passwd", "etc_passwd"),
        ("...", "case"),
        ("a b\nc", "a_b_c"),
    ],
)
def test_folder_names(case: str, name: str) -> None:
    assert store.folder_name(case) == name


def test_folders_that_are_no_case(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    wrong = {"nowhere": "no such folder", "file": "not a folder", "empty": "plan.json is missing"}
    for name, words in wrong.items():
        with pytest.raises(StoreError, match=words):
            store.rejudge(tmp_path / name)
    for name, words in {**wrong, "empty": "neither a case's folder nor one of results"}.items():
        with pytest.raises(StoreError, match=words):
            store.cases(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("plan.json", b"", "plan.json: Invalid JSON"),
        ("plan.json", b"\xff\x00", "plan.json: Invalid JSON"),
        ("plan.json", b"{}", "plan.json: case: Field required"),
        ("evidence.jsonl", b"nonsense\n", "evidence.jsonl:1: not an event"),
        ("evidence.jsonl", b"[1]\n", "evidence.jsonl:1: an event needs t, src and kind"),
    ],
)
def test_damaged_files_are_named(file: str, content: bytes, words: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / file).write_bytes(content)
    with pytest.raises(StoreError, match=words):
        store.rejudge(folder)


def test_a_case_that_was_never_run(tmp_path: Path) -> None:
    folder = store.new_case(tmp_path, PLAN, {})
    with pytest.raises(StoreError, match="never run"):
        store.rejudge(folder)
    with pytest.raises(StoreError, match="netpoll-harness judge"):
        store.read_verdict(folder)


def test_a_results_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--results"):
        store.new_case(tmp_path / "file" / "results", PLAN, {})


def test_a_verdict_of_another_version_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "verdict.json").write_text('{"case": "x", "word": "MAYBE", "why": "", "checks": []}')
    with pytest.raises(StoreError, match=r"verdict.json: word: .*\n.*another version"):
        store.read_verdict(folder)
