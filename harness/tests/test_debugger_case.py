"""A testcase with a debugger: what its checks refuse, what its plan becomes, what gdb's words mean, and the verdict on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.debugger.attach import Thread, areas, commands, parse
from harness.judge.judge import judge
from harness.plan.compile import compile_plan
from harness.plan.model import Ask, Await, Host
from harness.scenario.load import load
from harness.tests import judge_evidence as made
from harness.tests.scenario_table import Row, problems_of, row
from harness.tests.test_debugger_symbols import vmlinux

ROOT = Path(__file__).parents[2]
GOOD = """\
about: gdb on a kernel that panicked
guest:
  memory: 768
  nics:
    n0: {model: e1000}
    n1: {model: e1000}
    n2: {model: e1000}
  bonds:
    bond0: {mode: active-backup, slaves: [n1, n2]}
debugger: {device: n0}
steps:
  - crash: {how: sysrq-c}
  - debug: {}
expect:
  - debugged: {backtrace: [panic]}
"""
ROWS = [
    row(
        "no such NIC", "device: n0}", "device: n9}",
        "10:20: device 'n9' is no NIC of the guest; NICs: n0, n1, n2",
    ),
    row(
        "a bond", "device: n0}", "device: bond0}",
        "10:20: 'bond0' is a bond: gdb's datagrams leave by the host's kernel, which has no bond over the taps; write a NIC",
    ),
    row(
        "with a dump", "debugger: {device: n0}", "debugger: {device: n0}\ndump: {device: n0}",
        "10:1: the capture kernel has one client: it cannot send a dump and serve a debugger; write two testcases",
    ),
    row(
        "too little memory", "  memory: 768", "  memory: 256",
        "3:11: 256 MiB are too few for a guest with a capture kernel; write memory: 768 at least",
    ),
    row(
        "before the crash", "  - crash: {how: sysrq-c}\n  - debug: {}", "  - debug: {}\n  - crash: {how: sysrq-c}",
        "12:12: there is nothing to debug before a crash; move it behind the crash",
    ),
    row(
        "no step", "  - debug: {}\n", "",
        "14:15: no step has gdb attach; add a step `- debug: {}` behind the crash",
    ),
    row(
        "no debugger", "debugger: {device: n0}\n", "",
        "12:12: there is no debugger in this testcase; add `debugger: {device: ...}`",
        "14:15: there is no debugger in this testcase; add `debugger: {device: ...}`",
    ),
    row("no functions", "backtrace: [panic]", "backtrace: []", "15:27: 0 values are given here; give at least 1"),
]  # fmt: skip


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_a_testcase_that_makes_no_sense(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new, GOOD) == bad.problems


def test_the_plan(tmp_path: Path) -> None:
    (tmp_path / "case.yaml").write_text(GOOD)
    [scenario] = load(tmp_path / "case.yaml")
    plan = compile_plan(scenario, "case.yaml:1")
    assert plan.machine.capture
    arm = plan.stages[0].actions[-1]
    assert isinstance(arm, Ask)
    assert arm.op == "capture_arm"
    assert arm.args["cmdline"].endswith(
        "--module=e1000 --nic=52:54:00:6e:70:01 gdbstub 6443@198.51.100.90/DEV,6442@198.51.100.190/ --trap"
    )
    serving, debug = plan.stages[2].actions
    assert isinstance(serving, Await)
    assert isinstance(debug, Host)
    assert (serving.what, debug.args["tap"], debug.args["target"]) == ("console", "tap-n0", "udp:198.51.100.90:6443")


SAID = """\
warning: The remote protocol may be unreliable over UDP.
0xffffffff81a4e8cb in native_safe_halt ()

Thread 2 (Thread 2 (CPU 1, pid 129)):
rip            0xffffffff81173b3a  0xffffffff81173b3a <__crash_kexec+282>

Thread 1 (Thread 1 (CPU 0, pid 0)):
rip            0xffffffff81a4e8cb  0xffffffff81a4e8cb <native_safe_halt+11>

Thread 2 (Thread 2 (CPU 1, pid 129)):
#0  0xffffffff81173b3a in __crash_kexec ()
#1  0xffffffff819f6e70 in panic ()
#2  <signal handler called>
#3  0x00007f91a6fba350 in ?? ()
Backtrace stopped: Cannot access memory at address 0x7ffe69e59c38

Thread 1 (Thread 1 (CPU 0, pid 0)):
#0  native_safe_halt ()
[Inferior 1 (Remote target) detached]
"""


def test_what_gdb_says() -> None:
    assert parse(SAID) == (
        Thread(1, "CPU 0, pid 0", "0xffffffff81a4e8cb", ("native_safe_halt",)),
        Thread(2, "CPU 1, pid 129", "0xffffffff81173b3a", ("__crash_kexec", "panic", "<signal handler called>", "??")),
    )
    assert parse("Remote communication error.  Target disconnected.") == ()


def test_what_gdb_is_asked() -> None:
    compared = areas(vmlinux((8, 0, 5, 0), notes=b"build", pci_fixup=b"", other=b"x"))
    assert [(each.name, each.data) for each in compared] == [(".notes", b"build"), (".pci_fixup", b"")]
    asked = commands(Path("/s"), "udp:1.2.3.4:5", compared[:1], Path("/t"))
    assert asked[1:3] == ["file /s", "target remote udp:1.2.3.4:5"]
    assert asked[-1] == "dump binary memory /t/.notes 0x0 0x5"


PANICKED = [made.event(3.0, "console", "line", text=line) for line in made.PANIC_LINES[:8]]
BEGAN = made.event(8.0, "console", "line", text="capture: 3.001 began")
SERVING = made.event(9.0, "console", "line", text="netpoll: serving 6.1.0-50-amd64, 1 CPUs: <Netpoll>")
CPU = {"id": 1, "name": "CPU 0, pid 7", "rip": "0xffffffff81173b3a", "frames": ["__crash_kexec", "panic", "vfs_write"]}
IDLE = {"id": 2, "name": "CPU 1, pid 0", "rip": "0xffffffff81a4e8cb", "frames": ["native_safe_halt", "do_idle"]}


def session(**keys: Any) -> dict[str, Any]:
    given = {"rc": 0, "seconds": 1.5, "threads": [CPU], "memory": {".notes": True}, "said": "No such port.\n"}
    return made.event(10.0, "host", "debugger", **(given | keys))


HELD = {"PASS": True, "FAIL": False, "INCONCLUSIVE": None}


@pytest.mark.parametrize(
    ("events", "expect", "word", "why"),
    [
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session()], {}, "PASS",
            "CPU 0, pid 7 died at 0xffffffff81173b3a: __crash_kexec < panic < vfs_write", id="as it should be",
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session(threads=[CPU, IDLE])], {"cpus": 2}, "PASS",
            "beside it CPU 1, pid 0 in native_safe_halt", id="another CPU",
        ),
        pytest.param([BEGAN], {}, "INCONCLUSIVE", "the console shows no panic", id="no panic"),
        pytest.param(PANICKED, {}, "FAIL", "no capture kernel began", id="no capture kernel"),
        pytest.param(
            [*PANICKED, BEGAN], {}, "FAIL", "the capture kernel said at last: `capture: 3.001 began`", id="no stub"
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session(threads=[])], {}, "FAIL",
            "gdb saw no thread; it said at last: `No such port.`", id="no connection",
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session(rc=None)], {}, "FAIL", "gdb did not end within 1.5 s", id="no end"
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session()], {"cpus": 2}, "FAIL",
            "gdb saw 1 thread, the guest has 2 CPUs", id="a CPU too few",
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session()], {"backtrace": ["panic", "__crash_kexec"]}, "FAIL",
            "no backtrace goes through panic < __crash_kexec", id="the wrong order",
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session(threads=[CPU | {"frames": ["panic"]}, IDLE | {"frames": ["vfs_write"]}])],
            {"backtrace": ["panic", "vfs_write"], "cpus": 2}, "FAIL", "no backtrace goes through", id="spread over two CPUs",
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session(memory={".notes": False})], {}, "FAIL",
            ".notes in memory is not as in the kernel's image", id="other memory",
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session(memory={})], {}, "FAIL", "gdb read nothing of the memory", id="no memory"
        ),
        pytest.param(
            [*PANICKED, BEGAN, SERVING, session(threads=[CPU | {"rip": ""}])], {}, "FAIL",
            "CPU 0, pid 7 has no instruction pointer", id="no registers",
        ),
        pytest.param(
            [*PANICKED, session(threads=[{"name": "x"}])], {}, "ERROR", "`threads` is", id="evidence of another form"
        ),
        pytest.param([*PANICKED, session(memory={"x": 1})], {}, "ERROR", "`memory` is", id="memory of another form"),
        pytest.param([*PANICKED, session(rc="0")], {}, "ERROR", "`rc` is", id="an exit status of another form"),
    ],
)  # fmt: skip
def test_the_verdict(events: list[dict[str, Any]], expect: dict[str, Any], word: str, why: str) -> None:
    plan = made.plan({"debugged": {"backtrace": ["__crash_kexec", "panic"]} | expect}, crash=True)
    verdict = judge(plan, made.run(made.event(2.9, "inject", "crash", how="sysrq-c"), *events))
    if word == "ERROR":
        assert (verdict.word, why in verdict.why) == (word, True), verdict
        return
    [check] = [check for check in verdict.checks if check.check == "debugged"]
    assert (check.held, why in check.why) == (HELD[word], True), verdict


def test_the_shipped_testcase_asks_for_the_whole_way() -> None:
    for scenario in load(ROOT / "testcases/debugger/panic.yaml"):
        [expect] = scenario.expect
        assert expect.debugged is not None
        assert expect.debugged.backtrace[:3] == ("__crash_kexec", "panic", "sysrq_handle_crash")
