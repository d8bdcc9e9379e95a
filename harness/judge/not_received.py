"""not_received: frames that are not for the client reached neither its rx_hook nor the wrong fate.

In: strange frames as sent, as captured on their way to the guest, and as they came out behind netpoll; arrivals at the hook. Out: the
check. Rule: silence proves something only of a client that was listening, so a proper message sent after the last strange frame must have
arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.judge.delivery import delivery
from harness.judge.dropped import named
from harness.judge.messages import Key, messages, unfinished
from harness.judge.model import CheckResult
from harness.judge.records import Frame
from harness.judge.seen import Seen
from harness.judge.strange import seen_of
from harness.judge.told import Passed, Strange
from harness.judge.words import cut, many
from harness.scenario.expectations import NotReceived

ARP = "arp-request"


def check(expect: NotReceived, seen: Seen) -> CheckResult:
    """The check of one `not_received` expectation."""
    fate = {"passed_on": "passed on once", "eaten": "eaten"}[expect.fate]
    about = (
        f"of at least {many(expect.at_least, 'strange frame')} none reaches the rx_hook of {expect.at}, each is {fate}"
    )
    sent = strange_to(seen, expect.at)
    if missing := _not_reached(expect, seen, sent):
        return CheckResult(check="not_received", about=about, reached=False, held=None, why=missing)
    leaked = _leaked(expect, seen, sent)
    problems = [
        *_listed("reached the rx_hook", leaked),
        *(_passed_on(expect, seen, sent) if expect.fate == "passed_on" else _eaten(expect, seen, sent)),
        *_listed("sent properly and lost", _lost(expect, seen)),
        *(
            f"the sender stopped in the middle of {each.label}"
            for each in unfinished(seen, seen.plan.endpoint(expect.at).peer)
        ),
    ]
    return CheckResult(
        check="not_received",
        about=about,
        reached=True,
        held=not problems,
        why=problems[0] if problems else f"{many(_total(sent), 'strange frame')}, each {fate}; the hook got none",
        findings=tuple(cut(problems, "findings")),
        numbers={"sent": _total(sent), "leaked": len(leaked), "passed_on": len(_passed(expect, seen))},
    )


def strange_to(seen: Seen, endpoint: str) -> list[Strange]:
    """The strange frames that were sent towards an endpoint."""
    peer = seen.plan.endpoint(endpoint).peer
    return [each for each in seen.records.strange if each.endpoint == peer]


def frames_to(seen: Seen, endpoint: str) -> list[Frame]:
    """Captured frames on their way to an endpoint's side, over the NICs it is behind."""
    plan = seen.plan.endpoint(endpoint)
    nics, out = seen.nics_of(plan), plan.at == "host"
    return [frame for frame in seen.records.frames if frame.out == out and frame.nic in nics]


def _total(sent: Iterable[Strange]) -> int:
    return sum(each.total for each in sent)


def _not_reached(expect: NotReceived, seen: Seen, sent: Sequence[Strange]) -> str | None:
    if _total(sent) < expect.at_least:
        return f"{many(_total(sent), 'strange frame')} were sent to {expect.at}, need {expect.at_least}"
    captured = seen_of(frames_to(seen, expect.at), seen.flow(seen.plan.endpoint(expect.at).peer), sent)
    for what in dict.fromkeys(each.what for each in sent):
        wanted = _total(each for each in sent if each.what == what)
        if captured[what] < wanted:
            return f"of {wanted} frames {what} the capture saw {captured[what]} go to {expect.at}"
    if not _listening(expect, seen, max(each.t for each in sent)):
        return f"nothing that was sent after the strange frames arrived: {expect.at} may have been deaf"
    return None


def _listening(expect: NotReceived, seen: Seen, since: float) -> bool:
    """Did a message that was sent after `since` arrive? On one path nothing overtakes."""
    peer = seen.plan.endpoint(expect.at).peer
    arrived = delivery(seen, peer, expect.at).arrived
    return any(message.first >= since and key in arrived for key, message in messages(seen, peer).items())


def _leaked(expect: NotReceived, seen: Seen, sent: Sequence[Strange]) -> list[Key]:
    labels = {each.label for each in sent}
    own = (each for each in seen.records.arrivals if each.endpoint == expect.at)
    return [(each.label, each.seq or 0) for each in own if each.label in labels]


def _lost(expect: NotReceived, seen: Seen) -> list[Key]:
    return [message.key for message in delivery(seen, seen.plan.endpoint(expect.at).peer, expect.at).lost]


def _passed(expect: NotReceived, seen: Seen) -> list[Passed]:
    return [each for each in seen.records.passed if each.endpoint == expect.at]


def _passed_on(expect: NotReceived, seen: Seen, sent: Sequence[Strange]) -> list[str]:
    """Each came out behind netpoll once, as it was, and no ARP request was answered."""
    passed = _passed(expect, seen)
    good = [(each.label, each.seq) for each in passed if each.ok and each.seq is not None]
    wanted = [(each.label, seq) for each in sent for seq in range(each.total)]
    answers = _answers(expect, seen) if any(each.what == ARP for each in sent) else 0
    damaged = sum(not each.ok for each in passed)
    return [
        *_listed("not passed on", sorted(set(wanted) - set(good))),
        *_listed("passed on more than once", sorted(key for key, times in Counter(good).items() if times > 1)),
        *([f"passed on, but not as sent: {many(damaged, 'frame')}"] if damaged else []),
        *([f"{many(answers, 'answer')} to ARP requests that nobody was to answer"] if answers else []),
    ]


def _answers(expect: NotReceived, seen: Seen) -> int:
    return sum(each.endpoint == seen.plan.endpoint(expect.at).peer for each in seen.records.answers)


def _eaten(expect: NotReceived, seen: Seen, sent: Sequence[Strange]) -> list[str]:
    """None came out behind netpoll, and the device counted each; an ARP request is answered instead."""
    passed = [(each.label, each.seq or 0) for each in _passed(expect, seen)]
    told = (each for each in reversed(seen.records.counters) if each.endpoint == expect.at)
    eaten = next((each.values.get("dev_rx_trapped", 0) for each in told), 0)
    wanted = _total(each for each in sent if each.what != ARP)
    short = f"{many(wanted, 'strange frame')} were to be eaten, the device counted {eaten}"
    return [*_listed("passed on instead of eaten", passed), *([short] if eaten < wanted else [])]


def _listed(what: str, found: Sequence[Key]) -> list[str]:
    return [f"{what}: {named(found)}"] if found else []
