"""One case as the HTML report shows it: everything taken from its folder, nothing judged anew.

In: a case's folder. Out: a `CaseView`. Rule: a folder that was damaged or written by another version is a case with an error, not the
end of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from harness.judge.model import CheckResult, Verdict
from harness.judge.records import Event, EvidenceError
from harness.judge.seen import Seen, look
from harness.plan.model import Plan
from harness.report import store
from harness.report.around import Scene, everything, scene
from harness.report.drawing import Picture, draw
from harness.report.injections import Injection, injections
from harness.report.moment import Moment, moment, waits_in_vain
from harness.report.terminal import repeat
from harness.report.timeline import Span, timeline

FILES = ("case.pcapng", "console.log", "evidence.jsonl", "verdict.json", "plan.json", "case.log")
SHOWN_LINES = 150  # of a comparison that failed
MOST_FINDINGS = 12
WHY = 240  # characters of a reason in a heading


@dataclass(frozen=True)
class Link:
    """A file of the case, relative to the report."""

    text: str
    href: str


@dataclass(frozen=True)
class CaseView:
    """What the template needs of one case. `id` is its anchor, set by the report."""

    name: str
    word: str
    why: str
    seconds: float
    about: str
    nic: str
    kernel: str
    testcase: str  # name without the NIC: the row of the matrix
    again: str
    links: tuple[Link, ...]
    checks: tuple[CheckResult, ...] = ()
    errors: tuple[str, ...] = ()
    known_bug: str | None = None
    scene: Scene | None = None
    lines: Scene | None = None
    moment: Moment | None = None  # where there is no scene
    vain: tuple[str, ...] = ()  # waits
    pictures: tuple[Picture, ...] = ()
    injections: tuple[Injection, ...] = ()
    steps: tuple[Span, ...] = ()
    id: str = ""
    first: bool = False

    @property
    def words(self) -> str:
        """What the filter looks at."""
        return f"{self.name} {self.nic} {self.kernel} {self.word} {self.why} {self.known_bug or ''}".lower()[:600]


def view(folder: Path, root: Path) -> CaseView:
    """A case's folder below `root`, where the report will stand."""
    try:
        plan = store.read_plan(folder)
    except store.StoreError as error:
        return _unreadable(folder, root, str(error))
    verdict = _verdict(folder, plan)
    plain = CaseView(
        name=plan.case,
        word=verdict.word,
        why=verdict.why[:WHY],
        seconds=verdict.seconds,
        about=plan.scenario.about.rstrip("."),
        nic="+".join(nic.model for nic in plan.nics),
        kernel=_kernel(folder, plan),
        testcase=_testcase(plan),
        again=repeat(plan),
        links=_links(folder, root),
        checks=() if verdict.errors else tuple(_short(check) for check in verdict.checks),
        errors=verdict.errors,
        known_bug=verdict.known_bug,
    )
    try:
        events = store.read_case(folder)[1]
        return _with_evidence(plain, plan, events, verdict)
    except store.StoreError as error:
        return replace(plain, errors=(*plain.errors, str(error)))


def _unreadable(folder: Path, root: Path, why: str) -> CaseView:
    """A case whose plan was damaged, or written by another version: its files are there all the same."""
    return CaseView(
        name=folder.name,
        word="ERROR",
        why=why[:WHY],
        seconds=0.0,
        about="a case whose plan cannot be read",
        nic="?",
        kernel="?",
        testcase=folder.name,
        again="",
        links=_links(folder, root),
        errors=(why,),
    )


def _verdict(folder: Path, plan: Plan) -> Verdict:
    """As written; computed where the run was killed before it could be."""
    try:
        return store.read_verdict(folder)
    except store.StoreError:
        try:
            return store.rejudge(folder)
        except store.StoreError as error:
            return Verdict(case=plan.case, word="ERROR", why=str(error), checks=(), errors=(str(error),))


def _with_evidence(plain: CaseView, plan: Plan, events: Sequence[Event], verdict: Verdict) -> CaseView:
    found, done = timeline(plan, events), injections(events)
    pictures = [draw(found, 0.0, found.end, "the whole case")]
    if found.close:
        begin, end = found.close
        pictures.append(draw(found, begin, end, f"close-up, {begin:.3f} s to {end:.3f} s"))
    steps = next((lane.spans for lane in found.lanes if lane.name == "steps"), [])
    shown = replace(plain, pictures=tuple(pictures), injections=done, steps=tuple(steps), vain=waits_in_vain(events))
    if verdict.word == "PASS":
        return shown
    try:
        return _where_it_went_wrong(shown, look(plan, events), plan, verdict)
    except EvidenceError:
        return shown


def _where_it_went_wrong(shown: CaseView, seen: Seen, plan: Plan, verdict: Verdict) -> CaseView:
    """With the first wrong line of the first check that did not hold, and all lines of its comparison; else with the moment."""
    done = shown.injections
    for expect, check in zip(plan.expect, verdict.checks, strict=False):
        if check.reached and not check.held and (found := scene(expect, seen, done)):
            return replace(shown, scene=found, lines=everything(expect, seen, SHOWN_LINES))
    return replace(shown, moment=moment(seen, done))


def _kernel(folder: Path, plan: Plan) -> str:
    try:
        return store.read_versions(folder).get("kernel", plan.machine.kernel)
    except store.StoreError:
        return plan.machine.kernel


def _testcase(plan: Plan) -> str:
    """The case's name without the parameters that only say which NIC."""
    models = {nic.model for nic in plan.nics}
    rest = [f"{axis}={value}" for axis, value in plan.scenario.params.items() if value not in models]
    return plan.scenario.name + (f"[{','.join(rest)}]" if rest else "")


def _short(check: CheckResult) -> CheckResult:
    """A report is for reading; verdict.json has every finding."""
    if len(check.findings) <= MOST_FINDINGS:
        return check
    rest = f"and {len(check.findings) - MOST_FINDINGS} more findings, in verdict.json"
    return check.model_copy(update={"findings": (*check.findings[:MOST_FINDINGS], rest)})


def _links(folder: Path, root: Path) -> tuple[Link, ...]:
    base = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.as_posix()
    names = [name for name in FILES if (folder / name).is_file() and (folder / name).stat().st_size]
    names += (
        sorted(path.name for pattern in ("tap-*.pcapng", "dgram-*.pcapng") for path in folder.glob(pattern))
        if "case.pcapng" not in names
        else []
    )
    return tuple(Link(name, quote(f"./{base}/{name}" if base != "." else f"./{name}")) for name in names)
