"""queued_delivered: what netpoll_queue held while a link was down left after it came up, in order.

In: queue, late and arrival records and the link's down periods. Out: the check. Rule: as for `dropped`, and the link must
have come up again, or nothing could leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.judge.align import align
from harness.judge.delivery import Came, delivery
from harness.judge.dropped import handed_over, named, not_reached, within
from harness.judge.links import CLOCK_SLACK, Down, downs
from harness.judge.messages import Key, keys
from harness.judge.model import CheckResult
from harness.judge.records import Handled
from harness.judge.seen import Seen
from harness.judge.words import many
from harness.scenario.expectations import QueuedDelivered


@dataclass(frozen=True)
class _Queue:
    """What became of the messages that were queued while the link was down."""

    held: tuple[Key, ...]  # in the order in which they were queued
    lost: tuple[Key, ...]
    early: tuple[Key, ...]  # arrived before the link came up again
    disordered: tuple[Key, ...]
    repeated: tuple[Key, ...]
    unserved: tuple[Key, ...]  # lost, and the worker never said that it handed them to the device
    overflow: tuple[Key, ...]  # dropped, because the queue was full or the routine does not queue

    @property
    def sound(self) -> bool:
        return not (self.lost or self.early or self.disordered or self.repeated)


def check(expect: QueuedDelivered, seen: Seen) -> CheckResult:
    """The check of one `queued_delivered` expectation."""
    need = many(expect.at_least, "message")
    about = (
        f"netpoll_queue of {expect.by} holds at least {need} while {expect.link} is down, and delivers them in order"
    )
    periods = downs(seen.records, expect.link)
    missing = not_reached(seen, expect.by, expect.link, periods) or _never_up(expect, periods)
    if missing:
        return CheckResult(check="queued_delivered", about=about, reached=False, held=None, why=missing)
    queue = _queue(expect, seen, periods)
    enough = len(queue.held) >= expect.at_least
    return CheckResult(
        check="queued_delivered",
        about=about,
        reached=True,
        held=enough and queue.sound,
        why=_why(expect, queue, enough),
        findings=tuple(_findings(expect, queue, periods)),
        numbers={
            "queued": len(queue.held),
            "delivered": len(queue.held) - len(queue.lost),
            "lost": len(queue.lost),
            "not_queued": len(queue.overflow),
        },
    )


def _never_up(expect: QueuedDelivered, periods: Sequence[Down]) -> str | None:
    if any(period.restored is not None or period.back is not None for period in periods):
        return None
    return f"the link of {expect.link} never came up again ({periods[0]})"


def _queue(expect: QueuedDelivered, seen: Seen, periods: Sequence[Down]) -> _Queue:
    queued = within(keys(seen.records.queued, expect.by), periods)
    given = within(handed_over(seen, expect.by), periods)
    came = [each for each in delivery(seen, expect.by, seen.plan.endpoint(expect.by).peer).came if each.key in queued]
    held = list(queued)
    found = align(held, [each.key for each in came])
    served = keys(seen.records.late, expect.by)
    return _Queue(
        held=tuple(held),
        lost=tuple(held[place] for place in found.lost),
        early=tuple(each.key for each in came if _early(each, queued, periods)),
        disordered=tuple(held[place] for place in found.reordered),
        repeated=tuple(held[place] for _, place in found.duplicated),
        unserved=tuple(held[place] for place in found.lost if held[place] not in served),
        overflow=tuple(key for key in given if key not in keys(seen.records.queued, expect.by)),
    )


def _early(came: Came, queued: dict[Key, Handled], periods: Sequence[Down]) -> bool:
    """Did a message arrive while the link that it was queued for was still down?"""
    put = queued[came.key].t
    own = next(period for period in periods if period.begin <= put <= period.end)
    up = min((t for t in (own.restored, own.back) if t is not None), default=None)
    return up is not None and came.t < up - CLOCK_SLACK


def _why(expect: QueuedDelivered, queue: _Queue, enough: bool) -> str:
    if not enough:
        return f"netpoll_queue of {expect.by} held {many(len(queue.held), 'message')}, need {expect.at_least}"
    bad = {"never arrived": queue.lost, "left while the link was down": queue.early}
    bad |= {"arrived out of order": queue.disordered, "arrived more than once": queue.repeated}
    said = [f"queued but {what}: {named(found)}" for what, found in bad.items() if found]
    return "; ".join(said) or f"{named(queue.held)} were queued and arrived in order after the link came up"


def _findings(expect: QueuedDelivered, queue: _Queue, periods: Sequence[Down]) -> list[str]:
    lists = {
        "queued": queue.held,
        "queued but never arrived": queue.lost,
        "queued but left while the link was down": queue.early,
        "queued but arrived out of order": queue.disordered,
        "queued but arrived more than once": queue.repeated,
        "queued, and never handed to the device by the worker": queue.unserved,
        "dropped and not queued": queue.overflow,
    }
    said = [f"{what}: {named(found)}" for what, found in lists.items() if found]
    return said + [f"{expect.link}: {period}" for period in periods]
