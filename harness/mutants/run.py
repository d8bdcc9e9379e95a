"""Every seeded defect against its case, and the score.

In: the tables. Out: an `Outcome` each, and a printed table. Rule: a defect counts as caught when the case is as it must be without it, and with it the
check that is named is what turned it: red for a defect of the stack or of a kernel; anything but right for one of the harness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.judge.judge import judge
from harness.judge.model import Verdict, Word
from harness.judge.records import Event
from harness.mutants import drivers, harnesses, kernels, pollmode, stack
from harness.mutants.defect import Defect, seeded
from harness.mutants.harnesses import Blind
from harness.mutants.kernels import Flaw, recorded
from harness.mutants.rig import play
from harness.plan.model import Plan
from harness.run import Options, load

TESTCASES = Path(__file__).resolve().parents[2] / "testcases"
FLAWS = {flaw.name: flaw for flaw in kernels.TABLE}
DEFECTS = {defect.name: defect for defect in (*drivers.TABLE, *pollmode.TABLE, *stack.TABLE)}


@dataclass(frozen=True)
class Outcome:
    """One defect: `before` is the verdict without it, which must be `must` (by `check`, if that is not PASS); `after` with it."""

    kind: str
    name: str
    where: str
    case: str
    check: str
    must: Word
    before: Verdict
    after: Verdict

    @property
    def right_before(self) -> bool:
        """Without the defect the case is as it must be."""
        return self.before.word == self.must and (self.must == "PASS" or self.check in guilty(self.before))

    @property
    def caught(self) -> bool:
        """And the named check turned it."""
        if self.kind == "harness":
            return self.right_before and (
                self.after.word != self.must or (self.must != "PASS" and self.check not in guilty(self.after))
            )
        wanted = "INCONCLUSIVE" if self.kind == "kernel" and FLAWS[self.name].must == "INCONCLUSIVE" else "FAIL"
        return self.right_before and self.after.word == wanted and self.check in guilty(self.after)


def guilty(verdict: Verdict) -> list[str]:
    """The checks that make the word."""
    bad = [
        each
        for each in verdict.checks
        if (not each.reached if verdict.word == "INCONCLUSIVE" else each.reached and not each.held)
    ]
    return [each.check for each in bad]


@cache
def _plan(case: str) -> Plan:
    path = TESTCASES / f"{case.partition('[')[0]}.yaml"
    return next(plan for plan in load([path], Options(results=Path())) if plan.case == case)


@cache
def _played(case: str, moderation: float) -> Verdict:
    return judge(_plan(case), play(_plan(case), moderation))


@cache
def _recorded(case: str) -> Verdict:
    return judge(_plan(case), recorded(case))


def of_stack(defect: Defect) -> Outcome:
    """Play the case with the defect in the stack."""
    plan = _plan(defect.case)
    before = _played(defect.case, defect.moderation)
    with seeded(defect):
        events = play(plan, defect.moderation)
    return Outcome("stack", defect.name, defect.where, defect.case, defect.check, "PASS", before, judge(plan, events))


def of_kernel(flaw: Flaw) -> Outcome:
    """Judge the recorded case as the defect would have left it."""
    after = judge(_plan(flaw.case), flaw.change(recorded(flaw.case)))
    return Outcome("kernel", flaw.name, "evidence", flaw.case, flaw.check, "PASS", _recorded(flaw.case), after)


def of_harness(blind: Blind) -> Outcome:
    """Judge with the defect in the harness."""
    plan = _plan(blind.case)
    before = _evidence(blind)
    must = "PASS" if not blind.flaw else FLAWS[blind.flaw].must if blind.flaw in FLAWS else "FAIL"
    with seeded(Defect(blind.name, blind.where, blind.broken, blind.case, blind.check, blind.also)):
        after = judge(plan, _events(blind))
    return Outcome("harness", blind.name, blind.where, blind.case, blind.check, must, before, after)


def _evidence(blind: Blind) -> Verdict:
    return judge(_plan(blind.case), _events(blind))


def _events(blind: Blind) -> list[Event]:
    """Of the recorded run, with its flaw; or played with a defect of the stack, where it is the observers that are blind."""
    if blind.flaw in DEFECTS:
        with seeded(DEFECTS[blind.flaw]):
            return play(_plan(blind.case))
    events = recorded(blind.case)
    return FLAWS[blind.flaw].change(events) if blind.flaw else events


def outcomes() -> Iterator[Outcome]:
    """Of every table, in order."""
    yield from map(of_stack, (*drivers.TABLE, *pollmode.TABLE, *stack.TABLE))
    yield from map(of_kernel, kernels.TABLE)
    yield from map(of_harness, harnesses.TABLE)


def report(found: Iterable[Outcome], say: Callable[[str], None]) -> bool:
    """The table and the score; whether all were caught."""
    every = list(found)
    wide = max(len(outcome.name) for outcome in every)
    for outcome in every:
        where = outcome.where.removeprefix("guest.").removeprefix("harness.")
        say(
            f"{outcome.kind:8}{outcome.name:{wide}}  {where:46}  {outcome.case.partition('[')[0]:32} {outcome.check:21} {_how(outcome)}"
        )
    cases = {outcome.case for outcome in every}
    green = {outcome.case for outcome in every if outcome.must == "PASS" and outcome.right_before}
    say(f"without a defect: {len(green)} of {len(cases)} cases green")
    say(f"with one: {sum(outcome.caught for outcome in every)} of {len(every)} caught by the check that is named")
    return all(outcome.caught for outcome in every)


def _how(outcome: Outcome) -> str:
    if outcome.caught:
        return f"{outcome.must} -> {outcome.after.word}"
    by = f" by {', '.join(guilty(outcome.after))}" if guilty(outcome.after) else ""
    return f"MISSED: {outcome.before.word} without, {outcome.after.word}{by} with it: {outcome.after.why}"
