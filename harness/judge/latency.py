"""latency: how long messages took from the sender to the wire, as a distribution; what was late, as opposed to lost.

In: what came, and when it was printed or handed over. Out: delays, their p50, p99 and maximum, the check. Rule: a kernel's line is as old
as its printk stamp says, counted from the quickest line of the case, so that the guest's clock need not agree with the host's; a datagram is
taken to have been handed over as late as its range allows, so that no delay is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from harness.judge.arrived import arrivals
from harness.judge.delivery import delivery
from harness.judge.lines import stamp_of, wire_lines
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.words import many
from harness.scenario.oracles import Latency

LATE = 1.0  # seconds; a line that came after that was late, one that never came is lost


def check(expect: Latency, seen: Seen) -> CheckResult:
    """The check of one `latency` expectation."""
    about = f"messages from {expect.from_} reach {expect.to} in time"
    found = delays(seen, expect.from_, expect.to)
    if not found or max(found) < expect.at_least:
        longest = f"the longest took {max(found) * 1000:.1f} ms" if found else "none came"
        why = f"no message took {expect.at_least:g} s: {longest}"
        return CheckResult(check="latency", about=about, reached=False, held=None, why=why)
    wrong = [
        f"{name} is {got * 1000:.1f} ms, allowed are {limit * 1000:g} ms"
        for name, got, limit in (("p99", percentile(found, 99), expect.p99), ("the longest", max(found), expect.most))
        if limit is not None and got > limit
    ]
    numbers = distribution(found)
    said = ", ".join(f"{name[:-3]} {value:.1f} ms" for name, value in numbers.items())
    why = "; ".join(wrong) or f"{many(len(found), 'message')}: {said}"
    return CheckResult(check="latency", about=about, reached=True, held=not wrong, why=why, numbers=numbers)


def distribution(found: Sequence[float]) -> dict[str, float | int]:
    """p50, p99 and maximum in milliseconds; nothing for nothing."""
    if not found:
        return {}
    values = {"p50_ms": percentile(found, 50), "p99_ms": percentile(found, 99), "max_ms": max(found)}
    return {name: round(value * 1000, 3) for name, value in values.items()}


def percentile(found: Sequence[float], percent: int) -> float:
    """The nearest rank: the smallest value that so many percent do not exceed."""
    return sorted(found)[max(ceil(len(found) * percent / 100), 1) - 1]


def delays(seen: Seen, sender: str, to: str) -> list[float]:
    """Seconds that each message took which came, in order of arrival."""
    if seen.plan.endpoint(sender).stack == "kernel":
        return [delay for _, delay in line_delays(seen, to)]
    found = delivery(seen, sender, to)
    return [max(came.t - found.sent[came.key].last, 0.0) for came in found.came if came.key in found.sent]


def line_delays(seen: Seen, to: str) -> list[tuple[str, float]]:
    """Text and delay of each line that came with a printk stamp."""
    extended = seen.plan.endpoint(seen.plan.endpoint(to).peer).extended
    lines = wire_lines(arrivals(seen, to), extended, seen.stamped)
    printed = {line.text for line in seen.kernel}  # a damaged stamp says nothing of time
    sound = [line for line in lines if line.text in printed]
    ages = [(line.text, line.t - stamp) for line in sound if (stamp := stamp_of(line.text)) is not None]
    shown = [line.t - line.stamp for line in seen.kernel if line.stamp is not None]
    quickest = min((*shown, *(age for _, age in ages)), default=0.0)
    return [(text, age - quickest) for text, age in ages]
