"""A failure that the driver of one of the NICs is known for, whatever the testcase is about.

In: a `Seen` whose word is FAIL or INCONCLUSIVE, its checks, the plan's driver bugs. Out: the one that explains it, or None. Rule: the evidence has the
bug's own sign, and what failed is only what that costs: last words in a panic, anything where the guest fell silent before one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.judge import queue_stopped
from harness.judge.records import Look
from harness.judge.seen import Seen
from harness.plan.drivers import DriverBug

DEPTH = 8  # functions, innermost first, one of which says what the CPU does
OF_THE_PANIC = frozenset({"parity", "event", "burst_failover", "flooded", "timed"})
SOUND = frozenset({"checksums", "sources", "macs", "silence"})  # no silence breaks these


def explains(seen: Seen, guilty: Iterable[str]) -> DriverBug | None:
    """`guilty`: the checks that failed, or were not reached."""
    checks = set(guilty)
    costs = bool(checks) and (not checks & SOUND if _fell_silent(seen) else checks <= OF_THE_PANIC)
    return next((bug for bug in seen.plan.driver_bugs if costs and _shows(bug, seen)), None)


def _fell_silent(seen: Seen) -> bool:
    """Before the crash: its agent did not answer, or a crash was asked for and made it say nothing."""
    crash, console = seen.crash, seen.records.console
    return bool(seen.records.silent) or (crash is not None and (not console or console[-1].t < crash))


def _shows(bug: DriverBug, seen: Seen) -> bool:
    if bug.queue is not None:
        return any(bug.queue in each.why.split("+") for each in queue_stopped.at_last(seen))
    return any(_goes_through(bug.hangs_in, look) for look in seen.records.looks if look.stack)


def _goes_through(wanted: Sequence[str], look: Look) -> bool:
    """In this order, innermost first, others between them."""
    called = [re.split(r"[+.]", name)[0] for name in (look.where or "", *look.stack)]
    rest = iter(called)
    return wanted[0] in called[:DEPTH] and all(name in rest for name in wanted)
