"""Verdicts for a terminal: one case in a line, a failure with its place and how to repeat it.

In: verdicts, case folders. Out: text; with colour where standard output is a terminal, plain elsewhere and with NO_COLOR. Rule:
words alone must say it: no meaning is carried by colour only.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.judge.model import CheckResult, Verdict
from harness.judge.records import EvidenceError
from harness.judge.seen import look
from harness.plan.model import Plan
from harness.report import store
from harness.report.around import Scene, scene
from harness.report.injections import injections
from harness.report.moment import TAIL, moment, waits_in_vain
from harness.report.page import STYLES, clean, page_width, render
from harness.report.summary import summary

__all__ = ["explain_failure", "repeat", "summary", "verdict_lines"]


def verdict_lines(verdict: Verdict, folder: Path) -> list[str]:
    """One case: word, name, why, each check, and where the evidence is."""
    return [
        *render(_headline(verdict)),
        *(line for check in _told(verdict) for line in render(_check(check))),
        *(f"  testbed: {clean(error)}" for error in verdict.errors[1:]),
        f"  evidence: {folder}",
    ]


def _told(verdict: Verdict) -> tuple[CheckResult, ...]:
    """Checks on evidence that proves nothing say nothing."""
    return () if verdict.errors else verdict.checks


def _headline(verdict: Verdict, why: bool = True) -> Text:
    text = Text(verdict.word, STYLES.get(verdict.word, ""))
    return text.append(
        f" {verdict.case} ({verdict.seconds:.2f} s)" + (f": {clean(verdict.why)}" if why else ""), "default"
    )


def _state(check: CheckResult) -> str:
    if not check.reached:
        return "INCONCLUSIVE"
    return "PASS" if check.held else "FAIL"


def _check(check: CheckResult) -> Padding:
    state = _state(check)
    text = Text(state, STYLES[state]).append(f" {check.check}: {clean(check.why)}", "default")
    if state == "FAIL":
        text.append("".join(f"\n  - {clean(finding)}" for finding in check.findings), "default")
    return Padding(text, (0, 0, 0, 2))


def explain_failure(verdict: Verdict, folder: Path, plan: Plan) -> str:
    """Everything about a case that is not as hoped for: the expectation, what was seen, the place on both sides with links and
    bonds, where the evidence is, and the command that repeats just this case."""
    return "\n".join(_failure(verdict, folder, plan))


def _failure(verdict: Verdict, folder: Path, plan: Plan) -> Iterator[str]:
    shown = [check for check in _told(verdict) if _state(check) == verdict.word]
    yield from render(_headline(verdict, why=not shown))
    yield from (f"  testbed: {clean(error)}" for error in verdict.errors[1:])
    places = dict(zip(map(id, verdict.checks), plan.expect_at, strict=False))
    for check in shown:
        yield from render(Padding(f"expected {check.check}: {check.about}", (0, 0, 0, 2)))
        if place := places.get(id(check)):
            yield f"  written in {shortened(place)}"
        yield from render(_check(check))
    yield from _place(verdict, folder, plan)
    nics = ", ".join(f"{nic.id} {nic.model}" for nic in plan.nics)
    yield f"  machine:  {plan.machine.kernel}, {plan.machine.machine}, {nics}"
    yield f"  evidence: {folder}"
    yield f"  again:    {repeat(plan)}"


def place_of(verdict: Verdict, plan: Plan) -> str:
    """`file:line` of the first expectation that did not hold or was not reached; of the testcase, if it is none of them."""
    written = zip(_told(verdict), plan.expect_at, strict=False)
    return shortened(next((at for check, at in written if not (check.reached and check.held)), plan.source))


def shortened(place: str) -> str:
    """A path below the current directory as one types it."""
    path, here = Path(place), Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else place


def _place(verdict: Verdict, folder: Path, plan: Plan) -> Iterator[str]:
    """The scene of the first failed expectation that has one, else the moment; for an error, the console's last lines."""
    try:
        events = store.read_case(folder)[1]
        seen = look(plan, events)
    except (store.StoreError, EvidenceError) as error:
        yield f"  the evidence cannot be shown: {error}"
        return
    if verdict.errors:
        yield from _tail([line.text for line in seen.records.console[-TAIL:]])
        return
    done = injections(events)
    failed = [expect for expect, check in zip(plan.expect, verdict.checks, strict=False) if _state(check) == "FAIL"]
    found = next((found for expect in failed if (found := scene(expect, seen, done))), None)
    if found is not None:
        yield ""
        yield from render(_drawn(found))
        yield from _then("at that time:", found.state, found.done)
        yield ""
    elif verdict.word != "PASS":
        then = moment(seen, done)
        yield from _tail(then.console)
        yield from _then(f"at {then.when}:", then.state, then.done)
    yield from (f"  waited in vain {clean(vain)}" for vain in waits_in_vain(events))


def _then(when: str, state: str, done: Sequence[str]) -> Iterator[str]:
    yield f"  {when} {clean(state)}"
    if done:
        yield f"  done before:  {clean('; '.join(done))}"


def _tail(said: Sequence[str]) -> Iterator[str]:
    """Each cut to the page, and never at a line's beginning, where CI systems look for commands."""
    yield f"  the console's last {len(said)} lines:" if said else "  the console stayed empty"
    room = max(page_width() - 6, 20)
    for line in map(clean, said):
        yield f"    | {line if len(line) <= room else line[: room - 1] + '…'}"


def _drawn(found: Scene) -> Padding:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    left, right = _columns(found)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column(found.left, width=left, no_wrap=True, overflow="ellipsis")
    table.add_column("", no_wrap=True)
    table.add_column(found.right, width=right, no_wrap=True, overflow="ellipsis")
    for row in found.rows:
        style = STYLES["FAIL"] if row.mark else ""
        table.add_row(row.number, Text(clean(row.left)), Text(row.mark, style), Text(clean(row.right)))
    return Padding(table, (0, 0, 0, 2))


def _columns(found: Scene) -> tuple[int, int]:
    """Widths of the two sides: what they need, and where that is too much, half of the page each."""
    left = max(len(text) for text in (found.left, *(row.left for row in found.rows)))
    right = max(len(text) for text in (found.right, *(row.right for row in found.rows)))
    fixed = max(len(row.number) for row in found.rows) + max(len(row.mark) for row in found.rows) + 10
    room = max(page_width() - fixed, 20)
    left = min(left, max(room // 2, room - right))
    return left, min(right, room - left)


def repeat(plan: Plan) -> str:
    """The command that runs just this case; a test in Python has its name as its source."""
    if "::" in plan.source:
        return shlex.join(["pytest", plan.source])
    path = shortened(plan.source.rpartition(":")[0] or plan.source)
    case = f"{path}::{plan.case}" if plan.scenario.params else path
    return shlex.join(["netpoll-harness", "run", case, *plan.options])
