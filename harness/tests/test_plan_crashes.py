"""Each way to crash a guest: what is done for it, and what is set beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest.crashes import WAYS
from harness.plan.compile import compile_plan
from harness.plan.crashes import FROM_OUTSIDE
from harness.plan.explain import explain
from harness.scenario.crashes import KINDS
from harness.scenario.load import load
from harness.scenario.model import CrashWord
from harness.tests.scenario_table import GOOD, Row, problems_of, row

SAID: dict[CrashWord, tuple[str, ...]] = {
    "sysrq-break": (
        'agent  sysctl {"values": {"kernel.sysrq": 1}}  within 15 s',
        'qmp    {"execute": "chardev-send-break", "arguments": {"id": "console"}}',
        'type   "c" on the serial line',
    ),
    "sysrq-keyboard": (
        'agent  sysctl {"values": {"kernel.sysrq": 1}}  within 15 s',
        'qmp    {"execute": "send-key", "arguments": {"keys": [{"type": "qcode", "data": "alt"}, '
        '{"type": "qcode", "data": "sysrq"}, {"type": "qcode", "data": "c"}]}}',
    ),
    "mce": (
        'qmp    {"execute": "human-monitor-command", "arguments": {"command-line": "mce 0 9 0xb200000000000000 0x5 0 0"}}',
    ),
    "oom": (
        'agent  sysctl {"values": {"vm.panic_on_oom": 1}}  within 15 s',
        'agent  crash {"how": "oom"}  within 1 s',
    ),
    "hung-task": (
        'agent  sysctl {"values": {"kernel.hung_task_panic": 1, "kernel.hung_task_timeout_secs": 1}}  within 15 s',
        'agent  crash {"how": "hung-task"}  within 1 s',
    ),
}


@pytest.mark.parametrize("how", SAID)
def test_what_is_done_to_crash_a_guest(tmp_path: Path, how: CrashWord) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(GOOD.replace("how: sysrq-c", f"how: {how}"))
    plan = compile_plan(load(file)[0], "case.yaml:1")
    lines = [line.strip() for line in explain(plan).splitlines()]
    assert [line for line in lines if line in SAID[how]] == list(SAID[how])


def test_each_way_is_somebodys_work() -> None:
    assert {*WAYS, *FROM_OUTSIDE, "sysrq-wire"} == set(KINDS)
    assert not WAYS.keys() & FROM_OUTSIDE.keys()


ROWS = [
    row(
        f"{how} and its sysctl off",
        "guest:\n",
        f"guest:\n  sysctl: {{{name}: 0}}\n",
        f"5:{14 + len(name)}: {name} is 0, so {how} crashes nothing; remove it: the plan sets it to {value}",
    )
    for how, kind in KINDS.items()
    for name, value in kind.sysctl.items()
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_a_crash_that_a_sysctl_rules_out_is_refused(bad: Row, tmp_path: Path) -> None:
    how = bad.id.split()[0]
    good = GOOD.replace("how: sysrq-c", f"how: {how}")
    assert problems_of(tmp_path, bad.old, bad.new, good) == bad.problems
