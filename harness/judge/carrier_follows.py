"""carrier_follows: the guest's carrier follows each change of a link; or, for models known for it, never does.

In: `inject link` and `guest carrier` records of one NIC. Out: the check. Rule: a change that was undone, or followed by the crash,
before the guest had `within` seconds to see it proves nothing where the guest did not see it.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.judge.links import CLOCK_SLACK
from harness.judge.model import CheckResult
from harness.judge.records import Link
from harness.judge.seen import Seen
from harness.judge.words import at, many
from harness.scenario.expectations import CarrierFollows


@dataclass(frozen=True)
class Change:
    """One set_link, how long it stood, and after how long the guest's carrier was the same (None: never)."""

    link: Link
    stood: float
    delay: float | None

    def __str__(self) -> str:
        state = "up" if self.link.up else "down"
        seen = f"seen after {self.delay:.2f} s" if self.delay is not None else f"not seen in {self.stood:.1f} s"
        return f"link {state} at {at(self.link.t)}: {seen}"


def check(expect: CarrierFollows, seen: Seen) -> CheckResult:
    """The check of one `carrier_follows` expectation."""
    changes = changes_of(seen, expect.link)
    short = [change for change in changes if change.delay is None and change.stood < expect.within]
    wrong = [change for change in changes if (change.delay is not None) != expect.seen and change not in short]
    reached = bool(wrong) or (bool(changes) and not short)
    delays = [round(change.delay, 3) for change in changes if change.delay is not None]
    return CheckResult(
        check="carrier_follows",
        about=f"the guest's carrier of {expect.link} {'follows' if expect.seen else 'takes no notice of'} set_link",
        reached=reached,
        held=not wrong if reached else None,
        why=_why(expect, changes, short, wrong),
        findings=tuple(str(change) for change in wrong),
        numbers={"changes": len(changes), "seen": len(delays), **({"slowest": max(delays)} if delays else {})},
    )


def changes_of(seen: Seen, nic: str) -> list[Change]:
    """Every change of the NIC's link in order, each until the next one, the crash or the end."""
    cuts = sorted(link for link in seen.records.cuts if link.nic == nic)
    last = min(t for t in (seen.crash, seen.records.ended, seen.records.last) if t is not None)
    ends = [*(link.t for link in cuts[1:]), last]
    carriers = [link for link in seen.records.carriers if link.nic == nic]
    return [Change(cut, end - cut.t, _delay(cut, end, carriers)) for cut, end in zip(cuts, ends, strict=False)]


def _delay(cut: Link, end: float, carriers: list[Link]) -> float | None:
    """The guest may notice before QEMU has answered that it was done."""
    times = [link.t for link in carriers if link.up == cut.up and cut.t - CLOCK_SLACK <= link.t < end]
    return max(min(times) - cut.t, 0.0) if times else None


def _why(expect: CarrierFollows, changes: list[Change], short: list[Change], wrong: list[Change]) -> str:
    if not changes:
        return f"the link of {expect.link} was never changed"
    if wrong:
        return "; ".join(str(change) for change in wrong)
    if short:
        return f"too short to tell: {short[0]}, and {expect.within:g} s are asked for"
    said = "; ".join(str(change) for change in changes)
    return f"{many(len(changes), 'change')}: {said}"
