"""docs/faults.md: cells from evidence, and the page in the tree is a run's with a row for each fault of the testcase."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.judge.records import Event
from harness.plan.compile import compile_plan
from harness.plan.model import Plan
from harness.report import faults, store
from harness.scenario.load import load_tree
from harness.tests.judge_evidence import event

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "testcases" / "pmd" / "tg3-faults.yaml"


def plans() -> dict[str, Plan]:
    return {each.scenario.case: compile_plan(each.scenario, each.source) for each in load_tree([FILE])}


def case(stack: str, fault: str) -> Plan:
    return next(plan for name, plan in plans().items() if f"stack={stack},fault={fault}]" in name)


def story(fault: str, arrivals: list[tuple[float, str, int]]) -> list[Event]:
    """A fault from 2 s to 10 s; five messages while it lasts, two afterwards; what arrived when."""
    sends = [
        event(t, "guest", "sending", endpoint="sender", label=label, count=count, size=64, seed=seed)
        for t, label, count, seed in ((3.0, "during", 5, 1), (11.0, "after", 2, 2))
    ]
    sent = [
        event(t, "guest", "sent", endpoint="sender", label=label, first=0, last=count - 1)
        for t, label, count in ((3.1, "during", 5), (11.1, "after", 2))
    ]
    rx = [event(t, "host", "rx", endpoint="log", label=label, seq=seq, ok=True, why="") for t, label, seq in arrivals]
    told = [
        event(0.0, "run", "start", case="", wall="", versions={}),
        event(1.9, "run", "stage", step=1, title="begin"),
        event(2.0, "inject", "fault", nic="n0", op="fault", args={"name": fault, "on": True}),
        event(9.9, "run", "stage", step=4, title="end"),
        event(10.0, "inject", "fault", nic="n0", op="fault", args={"name": fault, "on": False}),
        event(1.0, "device", "reset", nic="n0"),
        event(9.0, "device", "reset", nic="n0"),
    ]
    return sorted([*told, *sends, *sent, *rx], key=lambda each: each["t"])


def test_messages_are_told_by_when_they_came() -> None:
    arrivals = [(3.2, "during", 0), (3.3, "during", 0), (9.95, "during", 1), (10.2, "during", 2), (11.2, "after", 1)]
    found = faults.fate(case("pmd", "no-dma"), story("no-dma", arrivals), "6.1")
    assert found is not None
    assert (found.sent, found.in_time, found.late, found.sent_after, found.came_after, found.resets) == (
        5,
        1,
        2,
        2,
        1,
        1,
    )
    assert found.cells() == ("1 of 5", "2", "2", "1 of 2", "1")


def test_a_case_without_a_fault_is_none_of_these() -> None:
    told = [each for each in story("no-dma", []) if each["kind"] != "fault"]
    assert faults.fate(case("pmd", "no-dma"), told, "6.1") is None


def test_a_run_without_faults_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(store.StoreError, match="run testcases/pmd/tg3-faults"):
        faults.page([folder for folder in (tmp_path,) if (folder / "plan.json").exists()])


def test_the_page_in_the_tree_has_every_fault_under_both_drivers() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    rows = {row[1]: row[0] for row in re.findall(r"^(\| `([a-z-]+)` \|.*\|)$", page, re.MULTILINE)}
    assert set(rows) == {name.split("fault=")[1].rstrip("]") for name in plans()}
    for row in rows.values():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 1 + 2 * len(faults.COLUMNS)
        assert all(cells), row
