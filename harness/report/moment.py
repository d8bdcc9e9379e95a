"""What a case was doing when there are no lines to compare: the moment of a wait in vain, or the end.

In: what the judge has seen, the events, what had been injected. Out: a `Moment`, and a sentence for each wait in vain. Rule: nothing is
judged here, and a guest's own words stay as they came: whoever shows them cleans them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.judge.links import state_at
from harness.judge.records import Event
from harness.judge.seen import Seen
from harness.judge.words import at
from harness.report.injections import Injection
from harness.report.waiting import wait_words

TAIL = 5  # lines of the console


@dataclass(frozen=True)
class Moment:
    """`when`: in words. `console`: the last lines until then. `state`: of links and bonds. `done`: what had been injected."""

    when: str
    console: tuple[str, ...]
    state: str
    done: tuple[str, ...]


def moment(seen: Seen, done: Sequence[Injection]) -> Moment:
    """When something was first waited for in vain, or the end of the case."""
    vain = next(iter(seen.records.timeouts), None)
    t = vain.t if vain else seen.records.last
    said = [line.text for line in seen.records.console if line.t <= t]
    return Moment(
        f"{at(t)}, when it had been waited in vain" if vain else f"{at(t)}, the end",
        tuple(said[-TAIL:]),
        state_at(seen.records, t),
        tuple(f"{each.text} at {at(each.t)}" for each in done if each.t <= t),
    )


def waits_in_vain(events: Iterable[Event]) -> tuple[str, ...]:
    """Each wait whose deadline passed: for what, how long, and how far it had come."""
    return tuple(
        _words(event) for event in events if (event["src"], event["kind"]) == ("await", "timeout") and "what" in event
    )


def _words(event: Event) -> str:
    what = wait_words(str(event["what"]), str(event.get("of", "")), event.get("state"), event.get("count"))
    return f"until {event['t']:.3f} s for {what}: {event.get('within', 0):g} s had passed, {event.get('seen', 'nothing seen')}"
