"""What a person reads: a failure explained, the table at the end of a run, colour only where it belongs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.judge.records import Event
from harness.plan.model import Plan
from harness.report import store, terminal
from harness.tests.judge_evidence import (
    PANIC_LINES,
    console,
    crashed,
    datagrams,
    event,
    kmsg,
    link,
    numbered,
    plan,
    run,
    rx,
    send,
    stamped,
)
from harness.tests.test_judge_drops import BOTH, DOWN, came, handled, sent
from harness.tests.test_report_store import saved

PARITY = plan({"parity": {"to": "h"}}, stack="kernel", crash=True)
DELIVERED = plan({"delivered": {"from": "g", "to": "h"}})


def explained(planned: Plan, events: list[Event], tmp_path: Path) -> str:
    folder = saved(tmp_path, planned, events)
    verdict = store.rejudge(folder)
    text = terminal.explain_failure(verdict, folder, planned)
    assert f"evidence: {folder}" in text
    assert "again:    netpoll-harness run synthetic.yaml" in text
    return text


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_a_lost_line_is_shown_with_its_neighbours_on_both_sides(tmp_path: Path) -> None:
    text = explained(PARITY, crashed(PANIC_LINES[:4] + PANIC_LINES[5:]), tmp_path)
    lines = text.splitlines()
    assert lines[0].startswith("FAIL judge/synthetic (")
    assert "expected parity: from the crash through the line with `end Kernel panic`" in text
    head = next(place for place, line in enumerate(lines) if "serial console" in line and "wire" in line)
    rows = [squeezed(line) for line in lines[head + 1 : head + 6]]
    assert [row.split()[0] for row in rows] == ["3", "4", "5", "6", "7"]
    assert rows[2] == "5 [ 20.004000] Call Trace: lost"
    assert rows[3] == "6 [ 20.005000] <TASK> [ 20.005000] <TASK>"
    assert "at that time: no link was touched" in lines[head + 6]


SCENES: dict[str, tuple[Plan, list[Event], list[str]]] = {
    "damaged": (PARITY, crashed([*PANIC_LINES[:4], "[   20.004000] Coll Trace:", *PANIC_LINES[5:]]),
                ["Call Trace: damaged [ 20.004000] Coll Trace:"]),
    "link-state": (PARITY, run(event(9.9, "inject", "crash", how="nmi"), link(10.0055, "n0", False, 0.001), console(PANIC_LINES),
                               datagrams(PANIC_LINES[:7])), ["at that time: n0 link down since 10.005 s, carrier down"]),
    "silence": (PARITY, crashed(PANIC_LINES[:4], PANIC_LINES[:4]), ["stopped printing after line 4", " last "]),
    "datagrams": (DELIVERED, run(send(30), rx([*range(12), *range(20, 30)])), ["g 12 1.100 to 1.200 s lost", "g 11 1.100"]),
    "dropped": (plan({"lost_only_while_down": {"from": "g", "to": "h", "link": "n0"}}),
                run(sent(), BOTH, handled("dropped", [10, *DOWN]), came([10, *DOWN])), ["g 10 1.100 to 1.110 s lost dropped"]),
    "kernel-messages": (plan({"delivered": {"from": "g", "to": "h"}}, stack="kernel"),
                        run(kmsg(20), console(numbered(20), 2.0, 0.01), datagrams(numbered(19), 2.0, 0.01)), ["k 19 [ 5.019"]),
    "nothing-to-draw": (plan({"event": {"name": "RESET"}}), run(), ["RESET never came"]),
}  # fmt: skip


@pytest.mark.parametrize(("planned", "events", "words"), SCENES.values(), ids=SCENES)
def test_scenes(planned: Plan, events: list[Event], words: list[str], tmp_path: Path) -> None:
    text = squeezed(explained(planned, events, tmp_path))
    assert text.startswith("FAIL")
    assert [word for word in words if squeezed(word) in text] == words, text


def test_five_lines_even_at_the_edge_and_what_was_done_before(tmp_path: Path) -> None:
    events = [*crashed(PANIC_LINES[1:]), *link(9.5, "n0", False, 0.1), event(9.6, "inject", "meteor", size="large")]
    text = explained(PARITY, sorted(events, key=lambda each: float(each["t"])), tmp_path)
    assert [f"{number} [" in squeezed(text) for number in range(1, 7)] == [True] * 5 + [False]
    assert "at that time: n0 link down since 9.500 s, carrier down" in text
    assert "done before:  link n0 down at 9.500 s; meteor large at 9.600 s; crash sysrq-c at 9.900 s" in text
    assert "machine:  debian-6.1, pc, n0 e1000, n1 e1000" in text


TALK = stamped(f"eth0: line {number}" for number in range(7))


def test_without_lines_to_compare_the_moment_of_the_wait_is_shown(tmp_path: Path) -> None:
    waited = event(8.0, "await", "timeout", what="event", of="RESET", state=None, count=1, within=5.0, seen="count 0")
    events = run(console(TALK, start=0.5), link(2.0, "n0", False, 0.1), waited)
    text = explained(plan({"event": {"name": "RESET"}}), events, tmp_path)
    assert "waited in vain until 8.000 s for QEMU's event RESET: 5 s had passed, count 0" in text
    assert "the console's last 5 lines:" in text
    assert "at 8.000 s, when it had been waited in vain: n0 link down since 2.000 s, carrier down" in text
    assert "done before:  link n0 down at 2.000 s" in text


def test_a_wait_in_vain_is_told_beside_the_lines_that_were_lost(tmp_path: Path) -> None:
    waited = event(8.0, "await", "timeout", what="received", of="h", state=None, count=10, within=3.0, seen="count 9")
    text = explained(DELIVERED, run(send(10), rx(range(9)), waited), tmp_path)
    assert "waited in vain until 8.000 s for h to have received 10: 3 s had passed, count 9" in text
    assert "lost" in text


def test_a_long_line_of_the_console_is_cut_to_the_page(tmp_path: Path) -> None:
    events = run(console(stamped(["x" * 900]), start=0.5))
    text = explained(plan({"event": {"name": "RESET"}}), events, tmp_path)
    assert max(map(len, text.splitlines())) <= 120
    assert "x…" in text


def test_an_error_shows_the_consoles_last_lines(tmp_path: Path) -> None:
    broken = event(1.0, "run", "error", what="QEMU ended by itself", hint="see case.log")
    text = explained(DELIVERED, run(console(PANIC_LINES[:7], start=0.5), broken), tmp_path)
    assert text.startswith("ERROR judge/synthetic")
    assert "QEMU ended by itself (see case.log)" in text
    assert "the console's last 5 lines:" in text
    assert PANIC_LINES[6] in text
    assert PANIC_LINES[1] not in text


def test_an_inconclusive_case_says_what_was_missing(tmp_path: Path) -> None:
    text = explained(PARITY, run(event(9.9, "inject", "crash", how="nmi")), tmp_path)
    assert text.startswith("INCONCLUSIVE")
    assert "the console shows no panic; it is empty" in text


def test_evidence_that_is_gone_does_not_hide_the_verdict(tmp_path: Path) -> None:
    folder = saved(tmp_path, DELIVERED, run(send(10), rx(range(9))))
    verdict = store.rejudge(folder)
    (folder / "evidence.jsonl").unlink()
    text = terminal.explain_failure(verdict, folder, DELIVERED)
    assert "lost: 9 of g" in text
    assert "the evidence cannot be shown" in text


def test_a_guest_cannot_steer_the_terminal(tmp_path: Path) -> None:
    evil = "[   20.003500] \x1b]0;owned\x07\x1b[2J\x9b31m"
    shown = [*PANIC_LINES[:3], evil, *PANIC_LINES[3:]]
    text = explained(PARITY, crashed(PANIC_LINES, shown), tmp_path)
    assert "\\x1b]0;owned" in text
    assert not [letter for letter in text if (ord(letter) < 32 and letter != "\n") or 127 <= ord(letter) < 160]


def test_verdict_lines(tmp_path: Path) -> None:
    folder = saved(tmp_path, DELIVERED, run(send(10), rx(range(9))))
    lines = terminal.verdict_lines(store.rejudge(folder), folder)
    assert lines[0].startswith("FAIL judge/synthetic (")
    assert "  FAIL delivered: lost: 9 of g (1 message) (and 1 further finding)" in lines
    assert "    - lost: 9 of g (1 message)" in lines
    assert "  PASS kernel: no complaint of the kernel" in lines
    assert lines[-1] == f"  evidence: {folder}"


def test_text_that_looks_like_markup_is_text() -> None:
    """Case names have brackets, findings may have anything."""
    rows = [("crash/panic[nic=e1000]", "FAIL", "[bold]lost[/bold] :smile: \x1b[31m", 1.5)]
    assert "crash/panic[nic=e1000]" in terminal.summary(rows)[0]
    assert "[bold]lost[/bold] :smile: \\x1b[31m" in terminal.summary(rows)[0]


ROWS = [("b", "FAIL", "parity: 3 lost", 2.0), ("a", "PASS", "all came", 1.25), ("c", "ERROR", "no tap", 0.1)]


def test_summary_ends_with_the_worst_and_counts() -> None:
    lines = terminal.summary(ROWS)
    assert [line.split()[0] for line in lines[:-1]] == ["PASS", "FAIL", "ERROR"]
    assert "all came" not in lines[0]
    assert "1.25 s" in lines[0]
    assert lines[-1] == "3 cases: 1 PASS, 1 FAIL, 1 ERROR"
    assert terminal.summary([])[-1] == "0 cases: none"


PRINT = "from harness.report.terminal import summary; print('\\n'.join(summary([('x', 'FAIL', 'why', 1.0)])))"


def on_a_terminal(**environment: str) -> bytes:
    """What a process prints on a pseudo terminal."""
    ours, theirs = pty.openpty()
    base = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run(
        [sys.executable, "-c", PRINT],
        stdout=theirs,
        env={**base, "TERM": "xterm", **environment},
        check=True,
        timeout=30,
    )
    os.close(theirs)
    data = os.read(ours, 1 << 16)
    os.close(ours)
    return data


def test_colour_on_a_terminal() -> None:
    assert b"\x1b[1;31mFAIL" in on_a_terminal()


def test_no_colour_where_it_is_not_wanted() -> None:
    assert b"\x1b" not in on_a_terminal(NO_COLOR="1")


def test_no_colour_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, check=True, timeout=30)
    assert b"\x1b" not in done.stdout
    assert done.stdout.startswith(b"FAIL")


@pytest.mark.parametrize(
    ("params", "case"),
    [
        ({}, "synthetic.yaml"),
        ({"nic": "e1000"}, f"'synthetic.yaml::{DELIVERED.scenario.name}[nic=e1000]'"),
        ({"nic": "e1000", "crash": "sysrq-c"}, f"'synthetic.yaml::{DELIVERED.scenario.name}[nic=e1000,crash=sysrq-c]'"),
    ],
)
def test_the_command_that_repeats_a_case(params: dict[str, str], case: str) -> None:
    scenario = DELIVERED.scenario.model_copy(update={"params": params})
    plan = DELIVERED.model_copy(update={"scenario": scenario, "case": scenario.case})
    assert terminal.repeat(plan) == f"netpoll-harness run {case}"


def test_the_command_names_a_kernel_that_the_testcase_does_not() -> None:
    other: Any = DELIVERED.model_copy(update={"options": ("--kernel", "debian-6.12")})
    assert terminal.repeat(other).endswith("--kernel debian-6.12")
