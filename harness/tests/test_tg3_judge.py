"""What the judge makes of a served device's evidence: what it counted, and a QEMU that cannot have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.judge.judge import judge
from harness.judge.model import CheckResult
from harness.plan.compile import compile_plan
from harness.plan.model import Device, Plan, Qmp, Serve
from harness.scenario.errors import ScenarioErrors
from harness.scenario.load import load

CASES = Path(__file__).resolve().parents[2] / "testcases" / "tg3"


def plan_of(name: str) -> Plan:
    return compile_plan(load(CASES / f"{name}.yaml")[0], name)


def start(t: float = 0.0) -> dict[str, Any]:
    return {"t": t, "src": "run", "kind": "start", "case": "x", "wall": "2026-01-01T00:00:00+00:00", "versions": {}}


def activity(t: float, nic: str, **counts: int) -> dict[str, Any]:
    return {"t": t, "src": "device", "kind": "activity", "nic": nic, "since": t - 0.05, "counts": counts}


def counted(events: list[dict[str, Any]]) -> CheckResult:
    verdict = judge(plan_of("reorder"), [start(), *events, {"t": 9.0, "src": "run", "kind": "end"}])
    return next(check for check in verdict.checks if check.check == "counted")


def test_counts_add_up_over_the_activities_of_that_nic() -> None:
    enough = counted([activity(1, "n0", reorder=30), activity(2, "n0", reorder=20, msi=5)])
    assert (enough.reached, enough.held) == (True, True)
    less = counted([activity(1, "n0", reorder=49), activity(2, "n1", reorder=100)])
    assert (less.reached, less.held) == (False, None), "not provoked is never passed"


def test_a_qemu_without_vfio_user_is_inconclusive_with_that_reason() -> None:
    unable = {"t": 1.0, "src": "run", "kind": "unable", "what": "this QEMU has no vfio-user-pci"}
    verdict = judge(plan_of("reorder"), [start(), unable, {"t": 2.0, "src": "run", "kind": "end"}])
    assert (verdict.word, verdict.why) == ("INCONCLUSIVE", "this QEMU has no vfio-user-pci")


def test_the_plan_serves_the_nic_before_it_is_plugged_in_and_faults_are_commands() -> None:
    plan = plan_of("no-dma")
    setup = [action for action in plan.stages[0].actions if isinstance(action, Serve | Qmp)]
    assert isinstance(setup[0], Serve)
    assert isinstance(setup[1], Qmp)
    assert (setup[1].execute, setup[1].socket_of) == ("device_add", "n0")
    commands = [action for stage in plan.stages for action in stage.actions if isinstance(action, Device)]
    assert [(each.op, each.args["name"], each.args["on"]) for each in commands] == [
        ("fault", "no-dma", True),
        ("fault", "no-dma", False),
    ]


WRONG = {
    "another NIC": ("model: tg3", "model: e1000", "takes no faults"),
    "no such NIC": ("nic: n0, begin", "nic: n7, begin", "'n7' is no NIC"),
    "no such fault": ("begin: no-dma", "begin: no-dna", "did you mean 'no-dma'"),
    "neither": ("begin: no-dma", "chance: 1", "either begins or ends"),
    "an end without a beginning": ("begin: no-dma", "begin: drop", "has not begun"),
    "a delay of nothing": ("begin: no-dma", "begin: delay", "changes nothing"),
}


@pytest.mark.parametrize(("old", "new", "said"), WRONG.values(), ids=WRONG.keys())
def test_faults_that_make_no_sense_are_told_before_anything_starts(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (CASES / "no-dma.yaml").read_text()
    assert old in text
    file = tmp_path / "case.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ScenarioErrors) as wrong:
        load(file)
    assert said in str(wrong.value)
