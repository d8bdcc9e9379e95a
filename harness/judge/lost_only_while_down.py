"""lost_only_while_down: losses are excused by a link that was down when the message was sent, and by nothing else.

In: a `Delivery` and the link's down periods. Out: the check. Rule: messages must have been sent surely before, surely during
and surely after the time without link; a loss is excused if its message may have been sent within it.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.judge.delivery import Delivery, delivery
from harness.judge.dropped import named
from harness.judge.links import Down, down_at, downs, state_at, surely_down
from harness.judge.messages import Key, Message
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.words import at, cut, many
from harness.scenario.expectations import LostOnlyWhileDown


def check(expect: LostOnlyWhileDown, seen: Seen) -> CheckResult:
    """The check of one `lost_only_while_down` expectation."""
    about = f"messages from {expect.from_} to {expect.to} are lost only while {expect.link} is down"
    way = seen.way_from(expect.from_)
    periods = downs(seen.records, expect.link, way)
    found = delivery(seen, expect.from_, expect.to)
    parts = _parts(found, periods)
    if missing := _not_reached(expect, periods, parts):
        return CheckResult(check="lost_only_while_down", about=about, reached=False, held=None, why=missing)
    lost = found.lost
    guilty = [message for message in lost if not down_at(periods, message.first, message.last)]
    return CheckResult(
        check="lost_only_while_down",
        about=about,
        reached=True,
        held=not guilty,
        why=_why(expect, found, guilty),
        findings=tuple(_findings(expect, seen, found, guilty, periods)),
        numbers={"sent": len(found.sent), "lost": len(lost), "lost_while_up": len(guilty)} | parts,
    )


def _parts(found: Delivery, periods: Sequence[Down]) -> dict[str, float | int]:
    """How many messages were surely sent before the first loss of carrier, while there was none, and after the last."""
    if not periods:
        return {"before": 0, "during": 0, "after": 0}
    first, last = periods[0].begin, periods[-1].end
    sent = found.sent.values()
    return {
        "before": sum(message.last < first for message in sent),
        "during": sum(surely_down(periods, message.first, message.last) for message in sent),
        "after": sum(message.first > last for message in sent),
    }


def _not_reached(expect: LostOnlyWhileDown, periods: Sequence[Down], parts: dict[str, float | int]) -> str | None:
    if not periods:
        return f"the link of {expect.link} never went down"
    if all(period.surely is None for period in periods):
        return f"the guest never saw the carrier of {expect.link} go down ({periods[0]})"
    few = [f"{count} {when}" for when, count in parts.items() if count < expect.at_least_sent]
    if few:
        return f"too few messages were surely sent: {', '.join(few)}; need {expect.at_least_sent} each ({periods[-1]})"
    return None


def _keys(found: Sequence[Message]) -> list[Key]:
    return [message.key for message in found]


def _why(expect: LostOnlyWhileDown, found: Delivery, guilty: Sequence[Message]) -> str:
    if guilty:
        return f"lost although {expect.link} was up: {named(_keys(guilty))}"
    lost = found.lost
    which = f", all sent while {expect.link} was down: {named(_keys(lost))}" if lost else ""
    return f"{len(lost)} of {many(len(found.sent), 'message')} lost{which}"


def _findings(
    expect: LostOnlyWhileDown, seen: Seen, found: Delivery, guilty: Sequence[Message], periods: Sequence[Down]
) -> list[str]:
    excused = [message for message in found.lost if message not in guilty]
    said = [f"lost while {expect.link} was down: {named(_keys(excused))}"] if excused else []
    said += cut(
        [
            f"lost while {expect.link} was up: {message.seq} of {message.label}, sent by {at(message.last)}; "
            f"{state_at(seen.records, message.last)}"
            for message in guilty
        ],
        "messages lost while the link was up",
    )
    said += cut([f"damaged: {each.why} at {at(each.t)}" for each in found.damaged], "damaged datagrams")
    return said + [f"{expect.link}: {period}" for period in periods]
