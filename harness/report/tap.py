"""Verdicts as TAP (testanything.org) and as KTAP 1 (the kernel's Documentation/dev-tools/ktap.rst), for CI systems that read these.

In: verdicts. Out: lines. Rule: a case is a test with its checks as subtests; only PASS is `ok` without a directive, and what a guest said
cannot begin a line or a directive of its own.

The TAP is version 13, which every reader knows (Perl's prove refuses to hear of a later one); the checks are subtests as version 14 writes
them, which a reader of version 13 skips.

| verdict | TAP | KTAP |
|---|---|---|
| PASS | ok | ok |
| FAIL | not ok | not ok |
| KNOWN_BUG | not ok # TODO | not ok # XFAIL |
| INCONCLUSIVE | ok # SKIP | ok # SKIP |
| ERROR | not ok | not ok # ERROR |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judge.model import CheckResult, Verdict
from harness.report.page import clean

DEEPER = "    "


@dataclass(frozen=True)
class Dialect:
    """What is different: the line with the version, of subtests too where `nested`, and the directives."""

    version: str
    nested: bool
    directives: Mapping[str, str]
    notes: bool  # a YAML block says why; otherwise a line that begins with #


TAP = Dialect("TAP version 13", False, {"KNOWN_BUG": "TODO", "INCONCLUSIVE": "SKIP"}, True)
KTAP = Dialect("KTAP version 1", True, {"KNOWN_BUG": "XFAIL", "INCONCLUSIVE": "SKIP", "ERROR": "ERROR"}, False)
DIALECTS: Mapping[str, Dialect] = {"tap": TAP, "ktap": KTAP}
OK = ("PASS", "INCONCLUSIVE")


def lines(verdicts: Sequence[Verdict], dialect: Dialect) -> Iterator[str]:
    """The whole stream."""
    yield dialect.version
    yield f"1..{len(verdicts)}"
    for number, verdict in enumerate(verdicts, 1):
        yield from _case(number, verdict, dialect)


def _case(number: int, verdict: Verdict, dialect: Dialect) -> Iterator[str]:
    checks = () if verdict.errors else verdict.checks
    if checks:
        yield from (DEEPER + line for line in _checks(verdict, checks, dialect))
    told = f"{verdict.seconds:.2f} s: {verdict.why}" if verdict.word in OK else verdict.why
    if verdict.word != "PASS" and not dialect.notes:
        yield f"# {_plain(verdict.word)}: {_plain(told)}"
    yield _line(number, verdict.word, verdict.case, verdict.known_bug or verdict.why, dialect)
    if verdict.word != "PASS" and dialect.notes:
        yield from (f"  {line}" for line in ("---", f"verdict: {verdict.word}", f"why: {_quoted(told)}", "..."))


def _checks(verdict: Verdict, checks: Sequence[CheckResult], dialect: Dialect) -> Iterator[str]:
    yield dialect.version if dialect.nested else f"# Subtest: {_plain(verdict.case)}"
    yield f"1..{len(checks)}"
    for number, check in enumerate(checks, 1):
        word = "INCONCLUSIVE" if not check.reached else "PASS" if check.held else "FAIL"
        yield from (f"# {_plain(finding)}" for finding in (check.findings if word == "FAIL" else ()))
        yield _line(number, word, check.check, check.why, dialect)


def _line(number: int, word: str, name: str, why: str, dialect: Dialect) -> str:
    directive = dialect.directives.get(word)
    tail = f" # {directive} {_plain(why)}" if directive else ""
    return f"{'ok' if word in OK else 'not ok'} {number} {_plain(name).replace('#', '-')}{tail}"


def _plain(text: str) -> str:
    """One line that a reader cannot take for something else."""
    return " ".join(clean(text).split())


def _quoted(text: str) -> str:
    """A YAML text in single quotes."""
    return "'" + _plain(text).replace("'", "''") + "'"
