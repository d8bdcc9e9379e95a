"""dropped: while a link was down, the drop routine was given messages, and what it was given did not arrive.

In: drop, queue and arrival records and the link's down periods. Out: the check. Rule: only a link that the guest itself saw
go down, while messages were being sent, has provoked anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.judge.delivery import delivery
from harness.judge.links import Down, down_at, downs, surely_down
from harness.judge.messages import Key, keys, messages
from harness.judge.model import CheckResult
from harness.judge.records import Handled
from harness.judge.seen import Seen
from harness.judge.words import many, ranges
from harness.scenario.expectations import Dropped


def check(expect: Dropped, seen: Seen) -> CheckResult:
    """The check of one `dropped` expectation."""
    about = (
        f"while {expect.link} is down the drop routine of {expect.by} gets at least {many(expect.at_least, 'message')}"
    )
    periods = downs(seen.records, expect.link)
    if missing := not_reached(seen, expect.by, expect.link, periods):
        return CheckResult(check="dropped", about=about, reached=False, held=None, why=missing)
    given = within(handed_over(seen, expect.by), periods)
    queued = keys(seen.records.queued, expect.by)
    arrived = delivery(seen, expect.by, seen.plan.endpoint(expect.by).peer).arrived
    undead = [key for key in given if key in arrived and key not in queued]
    enough = len(given) >= expect.at_least
    return CheckResult(
        check="dropped",
        about=about,
        reached=True,
        held=enough and not undead,
        why=_why(expect, given, undead, enough),
        findings=tuple(_findings(expect, seen, periods, undead)),
        numbers={"dropped": len(given), "queued": len(given.keys() & queued.keys()), "arrived": len(undead)},
    )


def not_reached(seen: Seen, by: str, link: str, periods: Sequence[Down]) -> str | None:
    """Why nothing was provoked: link never down in the guest's eyes, or nothing sent meanwhile; None when it was."""
    if not periods:
        return f"the link of {link} never went down"
    if all(period.surely is None for period in periods):
        return f"the guest never saw the carrier of {link} go down ({periods[0]})"
    if within(handed_over(seen, by), periods):
        return None  # each drop is a message sent at that moment
    sent = messages(seen, by).values()
    if not any(surely_down(periods, message.first, message.last) for message in sent):
        return f"{by} sent nothing that surely fell into the time without link ({periods[0]})"
    return None


def handed_over(seen: Seen, by: str) -> dict[Key, Handled]:
    """Everything that the drop routine of `by` was given, queued or not, by time."""
    both = sorted(seen.records.dropped + seen.records.queued, key=lambda each: each.t)
    return keys(both, by)


def within(handled: dict[Key, Handled], periods: Sequence[Down]) -> dict[Key, Handled]:
    """Those that happened while the link may have been down."""
    return {key: each for key, each in handled.items() if down_at(periods, each.t, each.t)}


def named(found: Sequence[Key]) -> str:
    """`12-57 of g0, 3 of g1`."""
    labels = dict.fromkeys(label for label, _ in found)
    return ", ".join(f"{ranges(seq for own, seq in found if own == label)} of {label}" for label in labels)


def _why(expect: Dropped, given: dict[Key, Handled], undead: Sequence[Key], enough: bool) -> str:
    if undead:
        return f"dropped and arrived all the same: {named(undead)}"
    if not enough:
        return f"the drop routine of {expect.by} was given {many(len(given), 'message')}, need {expect.at_least}"
    return f"the drop routine was given {named(list(given))}; none of them arrived unqueued"


def _findings(expect: Dropped, seen: Seen, periods: Sequence[Down], undead: Sequence[Key]) -> list[str]:
    every = handed_over(seen, expect.by)
    given = within(every, periods)
    queued = keys(seen.records.queued, expect.by)
    lists = {
        "dropped": [key for key in given if key not in queued],
        "queued by the drop routine": [key for key in given if key in queued],
        "given to the drop routine while the link was up": [key for key in every if key not in given],
        "arrived although dropped": list(undead),
    }
    said = [f"{what}: {named(found)}" for what, found in lists.items() if found]
    return said + [f"{expect.link}: {period}" for period in periods]
