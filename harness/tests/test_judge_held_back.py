"""held_back: late is not lost, and what was not held back proves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.judge.judge import judge
from harness.plan.compile import compile_plan
from harness.plan.sockets import needs_sockets
from harness.scenario.load import load
from harness.tests.judge_evidence import event, plan, run
from harness.tests.scenario_table import GOOD, Row, problems_of, row

N = 10
STOPPED = event(2.0, "inject", "reader", nic="n0", state="stopped")
RUNNING = event(4.0, "inject", "reader", nic="n0", state="running")


def sent(t: float) -> list[dict[str, Any]]:
    return [
        event(t - 0.5, "guest", "sending", endpoint="g", label="g", count=N, size=[18, 18], seed=1),
        event(t, "guest", "sent", endpoint="g", label="g", first=0, last=N - 1),
        event(t, "guest", "done", endpoint="g", label="g", count=N),
    ]


def came(t: float, numbers: range) -> list[dict[str, Any]]:
    return [event(t, "host", "rx", endpoint="h", label="g", seq=seq, ok=True) for seq in numbers]


CASES: dict[str, tuple[list[dict[str, Any]], bool, bool | None, str]] = {
    "all late": ([STOPPED, *sent(3.0), RUNNING, *came(4.5, range(N))], True, True, "1.500 to 1.500 s late"),
    "one lost": ([STOPPED, *sent(3.0), RUNNING, *came(4.5, range(1, N))], True, False, "9 came afterwards"),
    "sent before": ([*sent(1.9), STOPPED, RUNNING, *came(4.5, range(N))], False, None, "0 messages were sent"),
    "came through": ([STOPPED, *sent(3.0), *came(3.1, range(1)), RUNNING, *came(4.5, range(1, N))], False, None, "1 of them came through"),
    "never went on": ([STOPPED, *sent(3.0)], False, None, "does not say that the reader of n0 stopped and went on"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "reached", "held", "why"), CASES.values(), ids=CASES)
def test_what_was_held_back(events: list[dict[str, Any]], reached: bool, held: bool | None, why: str) -> None:
    verdict = judge(plan({"held_back": {"from": "g", "to": "h", "nic": "n0", "at_least": N}}), run(*events))
    (found,) = (check for check in verdict.checks if check.check == "held_back")
    assert (found.reached, found.held) == (reached, held), found.why
    assert why in found.why


WAIT = "- wait: {received: sink, count: 10}"
STOP, GO = "- reader: {nic: n0, state: stopped}", "- reader: {nic: n0, state: running}"
ROWS = [
    row(
        "a model that does not wait",
        WAIT,
        STOP.replace("n0", "n1"),
        "18:19: QEMU's e1000 does not wait for a reader: what it does not take is queued in QEMU; use virtio-net",
    ),
    row(
        "goes on though it never stopped",
        WAIT,
        GO,
        "18:30: the reader of 'n0' runs already; remove this step",
    ),
    row(
        "held back by nobody",
        "- parity: {to: log}",
        "- held_back: {from: sender, to: sink, nic: n0}",
        "24:46: no steps stop the reader of 'n0' and let it go on; add `- reader: {nic: n0, state: stopped}`, and `running` later",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_what_cannot_be_held_back_is_refused(bad: Row, tmp_path: Path) -> None:
    good = GOOD.replace("matrix:\n  nic: [e1000, virtio-net]\n", "").replace('"${nic}"', "virtio-net")
    problems = tuple(f"{int(line) - 2}:{rest}" for line, _, rest in (each.partition(":") for each in bad.problems))
    assert problems_of(tmp_path, bad.old, bad.new, good) == problems


def test_such_a_case_runs_on_sockets(tmp_path: Path) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(GOOD.replace("nic: [e1000, virtio-net]", "nic: [virtio-net]").replace(WAIT, f"{STOP}\n  {GO}"))
    (case,) = load(file)
    assert needs_sockets(compile_plan(case, "case.yaml:1"))
    file.write_text(GOOD)
    assert not needs_sockets(compile_plan(load(file)[0], "case.yaml:1"))
