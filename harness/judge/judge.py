"""From evidence to verdict: the judge's front door, `judge(plan, events)`.

In: a plan and the events of its run. Out: a `Verdict`. Rule: pure; the same evidence gives the same verdict, here and years
later. Precedence: a testbed error makes ERROR; else an injection whose moment never came makes INCONCLUSIVE; else a check that was
reached and did not hold makes FAIL; else a check that was not reached makes INCONCLUSIVE; else PASS. A known bug is applied last, strictly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from harness.judge import (
    arp_answered,
    burst_failover,
    carrier_follows,
    counted,
    counters_agree,
    debugged,
    delivered,
    driver_bugs,
    dropped,
    dumped,
    echoed,
    event,
    failover,
    flooded,
    held_back,
    invariants,
    latency,
    lost_only_while_down,
    not_received,
    parity,
    polled,
    pressed,
    queue_stopped,
    queued_delivered,
    sequence,
    timed,
    uninterrupted,
)
from harness.judge.consistency import errors
from harness.judge.model import CheckResult, Verdict, Word
from harness.judge.records import Event, EvidenceError
from harness.judge.seen import Seen, look
from harness.plan.model import Plan
from harness.scenario.model import Expect, KnownBug

CHECKS: dict[str, Callable[[Any, Seen], CheckResult]] = {
    "delivered": delivered.check,
    "parity": parity.check,
    "event": event.check,
    "carrier_follows": carrier_follows.check,
    "dropped": dropped.check,
    "queued_delivered": queued_delivered.check,
    "lost_only_while_down": lost_only_while_down.check,
    "failover": failover.check,
    "counted": counted.check,
    "polled": polled.check,
    "not_received": not_received.check,
    "arp_answered": arp_answered.check,
    "echoed": echoed.check,
    "pressed": pressed.check,
    "flooded": flooded.check,
    "queue_stopped": queue_stopped.check,
    "burst_failover": burst_failover.check,
    "latency": latency.check,
    "counters_agree": counters_agree.check,
    "held_back": held_back.check,
    "sequence": sequence.check,
    "dumped": dumped.check,
    "debugged": debugged.check,
    "uninterrupted": uninterrupted.check,
}
"""Each key of `Expect` and the function that checks it."""


def judge(plan: Plan, events: Iterable[Event]) -> Verdict:
    """The verdict on one case. Evidence that is not of the catalogue is an ERROR, not an exception."""
    try:
        seen = look(plan, events)
    except EvidenceError as error:
        return Verdict(case=plan.case, word="ERROR", why=str(error), checks=(), errors=(str(error),))
    if unable := seen.records.unable:
        return Verdict(case=plan.case, word="INCONCLUSIVE", why=unable[0].name, checks=(), errors=())
    checks = (*(_check(expect, seen) for expect in plan.expect), *timed.checks(seen), *invariants.checks(seen))
    faults = tuple(errors(seen))
    word, why = _word(checks, faults)
    word, why, bug = _known(_provoked(plan.known_bug, seen), word, why, checks)
    word, why, bug = _of_driver(seen, word, why, checks) or (word, why, bug)
    records = seen.records
    return Verdict(
        case=plan.case,
        word=word,
        why=why,
        checks=checks,
        errors=faults,
        known_bug=bug,
        by_chance=plan.known_bug is not None and plan.known_bug.chance,
        seconds=round((records.last if records.ended is None else records.ended) - (records.started or 0.0), 6),
        numbers={name: told for name, told in (("timings", records.timings), ("processor", records.spent)) if told},
    )


def _check(expect: Expect, seen: Seen) -> CheckResult:
    """The one expectation that is given."""
    key = next(key for key in CHECKS if getattr(expect, key) is not None)
    return CHECKS[key](getattr(expect, key), seen)


def _word(checks: Iterable[CheckResult], faults: tuple[str, ...]) -> tuple[Word, str]:
    if faults:
        return "ERROR", faults[0]
    checks = list(checks)
    for check in checks:
        if check.check == "timed" and not check.reached:  # then what failed may have failed for want of it
            return "INCONCLUSIVE", f"timed: {check.why}"
    for check in checks:
        if check.reached and not check.held:
            return "FAIL", f"{check.check}: {check.why}"
    for check in checks:
        if not check.reached:
            return "INCONCLUSIVE", f"{check.check}: {check.why}"
    return "PASS", "; ".join(f"{check.check}: {check.why}" for check in checks[:1]) or "nothing was expected"


def _provoked(bug: KnownBug | None, seen: Seen) -> KnownBug | None:
    """None if the evidence shows that what the bug needs did not happen this time."""
    if bug is None:
        return None
    told = bug.console is None or any(re.search(bug.console, line.text) for line in seen.records.console)
    held_up = bug.queue is None or any(
        bug.queue in ("any", *each.why.split("+")) for each in queue_stopped.at_last(seen)
    )
    return bug if told and held_up else None


def _known(bug: KnownBug | None, word: Word, why: str, checks: Iterable[CheckResult]) -> tuple[Word, str, str | None]:
    """Strict: what is stated must come, by the checks that are stated. ERROR counts only where the testcase states ERROR."""
    if bug is None:
        return word, why, None
    if word == bug.verdict:
        came = _guilty(word, checks)
        if bug.checks and set(bug.checks) != came:
            return word, f"{_otherwise(bug, came)}; {why}", bug.reason
        return "KNOWN_BUG", f"{word} as known: {bug.reason}; {why}", bug.reason
    if word == "PASS" and not bug.by_chance:
        return "FAIL", f"known bug is gone: {bug.reason}; expected {bug.verdict}, but all held", bug.reason
    return word, why, bug.reason


def _of_driver(seen: Seen, word: Word, why: str, checks: Iterable[CheckResult]) -> tuple[Word, str, str] | None:
    """After what the testcase states: a driver's bug explains what else would be news."""
    if word not in ("FAIL", "INCONCLUSIVE"):
        return None
    bug = driver_bugs.explains(seen, _guilty(word, checks))
    return None if bug is None else ("KNOWN_BUG", f"{word} as known of {bug.driver}: {bug.reason}; {why}", bug.reason)


def _guilty(word: Word, checks: Iterable[CheckResult]) -> set[str]:
    """The checks that make the word. Invariants want frames to look at, so which of them are not reached is chance."""
    if word == "FAIL":
        return {check.check for check in checks if check.reached and not check.held}
    unreached = {
        check.check for check in checks if not check.reached and (check.check in CHECKS or check.check == "timed")
    }
    return {"timed"} if "timed" in unreached else unreached  # as `_word` has it: the rest may be for want of that


def _otherwise(bug: KnownBug, came: set[str]) -> str:
    new, gone = sorted(came - set(bug.checks)), sorted(set(bug.checks) - came)
    said = [f"{', '.join(new)} besides"] if new else []
    said += [f"not {', '.join(gone)}"] if gone else []
    return f"{bug.verdict}, but otherwise than known ({bug.reason}): {' and '.join(said)}"
