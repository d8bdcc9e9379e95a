"""counted: a device of ours did something, or a fault of it struck, so many times.

In: `device activity` records. Out: the check. Rule: it is about what was provoked, not about the guest: what did not happen often
enough was not reached, which is inconclusive and never a failure.
"""

from __future__ import annotations

from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.scenario.expectations import Counted


def check(expect: Counted, seen: Seen) -> CheckResult:
    """The check of one `counted` expectation."""
    total = sum(each.counts.get(expect.what, 0) for each in seen.records.counted if each.nic == expect.nic)
    reached = total >= expect.at_least
    return CheckResult(
        check="counted",
        about=f"{expect.nic} counted {expect.what} at least {expect.at_least} times",
        reached=reached,
        held=True if reached else None,
        why=f"{expect.nic} counted {total} of {expect.what}",
        findings=(),
        numbers={expect.what: total},
    )
