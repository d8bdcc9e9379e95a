"""Where the time of a case goes: evidence in, seconds a stage out, without a gap and without anything counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bench import stages
from harness.observe.events import read_evidence

EVENTS = [
    {"t": 0.001, "src": "run", "kind": "start"},
    {"t": 0.010, "src": "run", "kind": "timing", "what": "spawn"},
    {"t": 0.060, "src": "run", "kind": "timing", "what": "qemu"},
    {"t": 0.080, "src": "run", "kind": "timing", "what": "migrated"},
    {"t": 0.120, "src": "run", "kind": "timing", "what": "restore"},
    {"t": 0.130, "src": "run", "kind": "did", "step": 0, "what": "AddTap"},
    {"t": 0.131, "src": "run", "kind": "did", "step": 0, "what": "getfd"},
    {"t": 0.140, "src": "run", "kind": "did", "step": 0, "what": "device_add"},
    {"t": 0.340, "src": "run", "kind": "did", "step": 0, "what": "nic_wait at guest"},
    {"t": 0.330, "src": "guest", "kind": "nic"},
    {"t": 0.400, "src": "run", "kind": "did", "step": 0, "what": "await carrier"},
    {"t": 0.450, "src": "run", "kind": "did", "step": 0, "what": "netconsole_open at guest"},
    {"t": 0.460, "src": "run", "kind": "did", "step": 0, "what": "sysctl at guest"},
    {"t": 0.560, "src": "run", "kind": "did", "step": 1, "what": "np_send at guest"},
    {"t": 0.570, "src": "inject", "kind": "crash"},
    {"t": 0.600, "src": "run", "kind": "did", "step": 2, "what": "crash at guest"},
    {"t": 0.620, "src": "run", "kind": "settled"},
    {"t": 0.650, "src": "run", "kind": "end"},
]
EXPECTED = {
    "spawn QEMU": 0.010, "QMP greeting": 0.050, "restore": 0.020, "agent": 0.040, "tap": 0.011, "device_add": 0.009,
    "driver bound": 0.200, "carrier": 0.060, "stack started": 0.050, "other set-up": 0.010, "traffic": 0.100,
    "panic": 0.040, "settle": 0.020, "take down": 0.030,
}  # fmt: skip


def test_every_stage_gets_what_ended_in_it() -> None:
    assert stages.of_events(EVENTS) == pytest.approx(EXPECTED)


def test_the_stages_add_up_to_the_case() -> None:
    assert sum(stages.of_events(EVENTS).values()) == pytest.approx(0.650)


def test_the_table_names_each_stage_once_with_its_share() -> None:
    lines = stages.table([EXPECTED, EXPECTED])
    assert next(line for line in lines if line.startswith("driver bound")).split()[2:] == ["200.0", "200.0", "30.8%"]
    assert lines[-1].split() == ["together", "650.0", "650.0"]


def test_evidence_of_an_older_run_shows_what_it_can() -> None:
    events = list(read_evidence(Path(__file__).parent / "golden/evidence-panic-nmi-e1000.jsonl"))
    assert set(stages.of_events(events)) <= set(stages.STAGES)
    assert stages.of_events(events)["take down"] > 0
