"""What the judge says: one `CheckResult` per expectation, one `Verdict` per case. Plain values, saved as verdict.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.frozen import Frozen

Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "ERROR", "KNOWN_BUG"]


class CheckResult(Frozen):
    """One expectation. `reached`: its condition was provoked, by evidence. `held` is None when not reached."""

    check: str  # the expectation's key, e.g. `parity`
    about: str  # the expectation in words, with its arguments
    reached: bool
    held: bool | None
    why: str  # one sentence: what was seen; for a check not reached: what was missing
    findings: tuple[str, ...] = Field(default=(), strict=False)  # e.g. each lost line with link state at that time
    numbers: dict[str, float | int] = {}  # e.g. sent, received, lost, gap_seconds


class Verdict(Frozen):
    """The verdict on one case. `word` follows from `checks`, `errors` and the plan's known bug alone."""

    case: str
    word: Word
    why: str
    checks: tuple[CheckResult, ...] = Field(strict=False)
    errors: tuple[str, ...] = Field(default=(), strict=False)
    known_bug: str | None = None  # the reason stated in the testcase, where one applies
    by_chance: bool = False  # the testcase states a bug that comes and goes: this word is as good as PASS or KNOWN_BUG
    seconds: float = 0
    numbers: dict[str, Any] = {}
