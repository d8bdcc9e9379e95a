"""flooded: while the kernel was dying, traffic came at its NIC.

In: captured frames towards the guest that belong to no flow of the testcase. Out: the check. Rule: it is about what was provoked, not
about the guest: too few frames in the time of the panic make the case inconclusive.
"""

from __future__ import annotations

from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.words import at, many
from harness.scenario.expectations import Flooded


def check(expect: Flooded, seen: Seen) -> CheckResult:
    """The check of one `flooded` expectation."""
    about = (
        f"at least {expect.at_least} frames of the flood reach {expect.nic} between the crash and the end of the panic"
    )
    begin, end = seen.crash, seen.panic_over
    if begin is None or end is None:
        why = "no crash was asked for" if begin is None else "the console shows no end of a panic"
        return CheckResult(check="flooded", about=about, reached=False, held=None, why=why)
    inward = [frame for frame in seen.records.frames if not frame.out and frame.nic == expect.nic]
    found = sum(begin <= frame.t <= end.t for frame in inward)
    reached = found >= expect.at_least
    return CheckResult(
        check="flooded",
        about=about,
        reached=reached,
        held=True if reached else None,
        why=f"{many(found, 'frame')} came at {expect.nic} between {at(begin)} and {at(end.t)}",
        numbers={"during": found, "in_all": len(inward)},
    )
