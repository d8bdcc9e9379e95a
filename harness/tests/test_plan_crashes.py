"""Each way to crash a guest: what is done for it, and what is set beforehand."""

from __future__ import annotations

import re
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

MODULE = Path(__file__).parents[2] / "images/npcrash/npcrash.c"
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
    "null": (
        "load   npcrash.ko",
        'agent  sysctl {"values": {"kernel.panic_on_oops": 1}}  within 15 s',
        'agent  crash {"how": "null"}  within 1 s',
    ),
    "kill": ("kill   QEMU", "await  the end of QEMU  within 30 s"),
}


@pytest.mark.parametrize("how", SAID)
def test_what_is_done_to_crash_a_guest(tmp_path: Path, how: CrashWord) -> None:
    file = tmp_path / "case.yaml"
    text = GOOD.replace("how: sysrq-c", f'how: "{how}"')
    file.write_text(text.replace("  - parity: {to: log}\n", "") if how == "kill" else text)
    plan = compile_plan(load(file)[0], "case.yaml:1")
    lines = [line.strip() for line in explain(plan).splitlines()]
    assert [line for line in lines if line in SAID[how]] == list(SAID[how])


def test_each_way_is_somebodys_work() -> None:
    of_module = {how for how, kind in KINDS.items() if kind.module}
    assert {*WAYS, *FROM_OUTSIDE, "sysrq-wire", *of_module} == set(KINDS)
    assert not of_module & {*WAYS, *FROM_OUTSIDE}
    assert of_module == set(re.findall(r'\{ "([a-z-]+)", way_', MODULE.read_text())), (
        "the module has each, and no other"
    )
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
    good = GOOD.replace("how: sysrq-c", f'how: "{how}"')
    assert problems_of(tmp_path, bad.old, bad.new, good) == bad.problems


MACHINE = [
    row(
        "starved by a crash without a watchdog",
        "how: sysrq-c",
        "how: watchdog",
        "21:18: the guest has no watchdog; add to guest: watchdog: inject-nmi",
    ),
    row(
        "starved by a step without a watchdog",
        "- crash: {how: sysrq-c}",
        "- machine: {do: starve}\n  - crash: {how: sysrq-c}",
        "21:19: the guest has no watchdog; add to guest: watchdog: none",
    ),
    row(
        "another processor where there is one",
        "how: sysrq-c",
        "how: tx-lock-elsewhere",
        "21:18: tx-lock-elsewhere takes 2 processors, the guest has 1; add to guest: smp: 2",
    ),
    row(
        "resumed while it runs",
        "- crash: {how: sysrq-c}",
        "- machine: {do: resume}\n  - crash: {how: sysrq-c}",
        "21:19: the machine runs here, so there is nothing to resume; remove this step",
    ),
    row(
        "asked while it is paused",
        "- crash: {how: sysrq-c}",
        "- machine: {do: pause}\n  - run: {argv: ['true']}\n  - machine: {do: resume}\n  - crash: {how: sysrq-c}",
        "22:10: the guest is to run a command, but step 5 paused the machine; resume it before: `- machine: {do: resume}`",
    ),
    row(
        "parity of a machine that is killed",
        "how: sysrq-c",
        "how: kill",
        "24:13: parity is about a panic, but a crash by kill ends the machine without one; expect `delivered`",
    ),
    row(
        "missing messages excused where nobody kills",
        "- delivered: {from: sender, to: sink}",
        "- delivered: {from: sender, to: sink, but_last: 2}",
        "23:51: the last messages may be missing where the machine is killed, but no step does that; remove it, or add a step `- crash: {how: kill}`",
    ),
]
WATCHED = [
    row(
        "a crash that the guest outlives",
        "how: sysrq-c",
        "how: watchdog",
        "22:18: the guest outlives its watchdog's action 'none'; write a step `- machine: {do: starve}`, or give it another action",
    ),
    row(
        "a step that the guest does not outlive",
        "watchdog: none",
        "watchdog: reset",
        "22:19: the guest does not outlive its watchdog's action 'reset'; write a step `- crash: {how: watchdog}`",
    ),
]


@pytest.mark.parametrize("bad", MACHINE, ids=lambda bad: bad.id)
def test_what_a_machine_cannot_do_is_refused(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems


@pytest.mark.parametrize("bad", WATCHED, ids=lambda bad: bad.id)
def test_a_watchdog_does_what_it_does(bad: Row, tmp_path: Path) -> None:
    good = GOOD.replace("guest:\n", "guest:\n  watchdog: none\n", 1)
    if bad.old != "how: sysrq-c":
        good = good.replace("  - crash:", "  - machine: {do: starve}\n  - crash:")
    assert problems_of(tmp_path, bad.old, bad.new, good) == bad.problems
