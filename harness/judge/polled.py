"""polled: the queue stopped while messages were sent, and netpoll polled and tried again until each of them was gone.

In: the sender's last counters, drop records and arrivals. Out: the check. Rule: a queue that never stopped has not provoked anything,
and counters that were never told prove nothing either.
"""

from __future__ import annotations

from guest.netpoll.skbuff import DropReason
from harness.judge.delivery import delivery
from harness.judge.dropped import named
from harness.judge.messages import Key, unfinished
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.told import Counters
from harness.judge.words import many
from harness.scenario.expectations import Polled

NUMBERS = ("sent", "retried", "polled", "dropped", "dev_tx_stopped", "dev_tx_woken")


def check(expect: Polled, seen: Seen) -> CheckResult:
    """The check of one `polled` expectation."""
    need = many(expect.at_least, "message")
    about = f"the queue of {expect.by} stops, and at least {need} leave after polling and another try; none is dropped for it"
    counters = next((each for each in reversed(seen.records.counters) if each.endpoint == expect.by), None)
    missing = _not_reached(expect, counters)
    if counters is None or missing is not None:
        return CheckResult(check="polled", about=about, reached=False, held=None, why=missing or "")
    given_up = _given_up(expect, seen)
    lost = [message.key for message in delivery(seen, expect.by, seen.plan.endpoint(expect.by).peer).lost]
    stopped = [each.label for each in unfinished(seen, expect.by)]
    return CheckResult(
        check="polled",
        about=about,
        reached=True,
        held=not (given_up or lost or stopped),
        why=_why(counters, given_up, lost, stopped),
        findings=tuple(_findings(given_up, lost)),
        numbers=_numbers(counters) | {"lost": len(lost), "given_up": len(given_up)},
    )


def _not_reached(expect: Polled, counters: Counters | None) -> str | None:
    """Why nothing was provoked; None when it was: stopped, and enough sends that polled and tried again."""
    if counters is None:
        return f"the counters of {expect.by} were never told"
    value = counters.values.get
    if not value("dev_tx_stopped"):
        return f"the queue of {expect.by} never stopped in {many(value('sent', 0), 'send')}"
    retried = min(value("retried", 0), value("polled", 0))
    if retried < expect.at_least:
        return f"{many(retried, 'send')} of {expect.by} polled and tried again, need {expect.at_least}"
    return None


def _given_up(expect: Polled, seen: Seen) -> list[Key]:
    """Messages that the drop routine was given because the queue stayed stopped through all retries."""
    both = seen.records.dropped + seen.records.queued
    why = DropReason.RETRIES.value
    return [(each.label, each.seq) for each in both if each.endpoint == expect.by and each.why == why]


def _why(counters: Counters, given_up: list[Key], lost: list[Key], stopped: list[str]) -> str:
    if given_up:
        return f"the queue stayed stopped through all retries: {named(given_up)} dropped"
    if lost:
        return f"lost although the queue was polled open: {named(lost)}"
    if stopped:
        return f"the sender stopped in the middle of {', '.join(stopped)}"
    value = counters.values.get
    return (
        f"the queue stopped {many(value('dev_tx_stopped', 0), 'time')}; {many(value('retried', 0), 'message')} left after "
        f"{many(value('polled', 0), 'poll')}, none was dropped"
    )


def _findings(given_up: list[Key], lost: list[Key]) -> list[str]:
    lists = {"dropped because the queue stayed stopped": given_up, "sent and never arrived": lost}
    return [f"{what}: {named(found)}" for what, found in lists.items() if found]


def _numbers(counters: Counters) -> dict[str, float | int]:
    return {name: counters.values.get(name, 0) for name in NUMBERS}
