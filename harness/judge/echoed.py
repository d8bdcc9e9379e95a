"""echoed: what an rx_hook was given came back, sent from inside the receive path.

In: arrivals at the echoing endpoint, what its hook says of each send, arrivals at its peer. Out: the check. Rule: an echo counts as one in
the receive path only if the poll or interrupt routine that handed the datagram over was still running.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.judge.align import align
from harness.judge.delivery import delivery
from harness.judge.dropped import named
from harness.judge.messages import Key, unfinished
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.words import cut, many
from harness.scenario.expectations import Echoed


@dataclass(frozen=True)
class _Echoes:
    """What became of the datagrams that an echoing endpoint was sent."""

    given: tuple[Key, ...]  # to the rx_hook, in order
    tried: int  # in the receive path
    inside: int  # of them sent
    never_there: tuple[Key, ...]
    never_back: tuple[Key, ...]
    twice: tuple[Key, ...]
    disordered: tuple[Key, ...]
    damaged: int
    stopped: tuple[str, ...]  # sends that never finished


def check(expect: Echoed, seen: Seen) -> CheckResult:
    """The check of one `echoed` expectation."""
    order = ", in order" if expect.in_order else ""
    about = (
        f"every datagram comes back from the rx_hook of {expect.by} once, byte-exact{order}, {expect.at_least} at least"
    )
    found = _echoes(expect, seen)
    if found.tried < expect.at_least:
        why = f"{expect.by} had {many(found.tried, 'datagram')} to send inside the receive path, need {expect.at_least}"
        return CheckResult(check="echoed", about=about, reached=False, held=None, why=why)
    problems = _problems(expect, found)
    return CheckResult(
        check="echoed",
        about=about,
        reached=True,
        held=not problems,
        why=problems[0] if problems else f"{many(len(found.given), 'datagram')} came back, {found.inside} sent inside",
        findings=tuple(cut(problems, "findings")),
        numbers={"given": len(found.given), "inside": found.inside, "lost": len(found.never_there + found.never_back)},
    )


def _echoes(expect: Echoed, seen: Seen) -> _Echoes:
    peer = seen.plan.endpoint(expect.by).peer
    there = delivery(seen, peer, expect.by)
    given = tuple(each.key for each in there.came)
    labels = {label for label, _ in there.sent}
    inside = [each.sent for each in seen.records.echoes if each.endpoint == expect.by and each.inside]
    home = [each for each in seen.records.arrivals if each.endpoint == peer]
    back = [(each.label, each.seq) for each in home if each.ok and each.seq is not None and each.label in labels]
    found = align(given, back)
    return _Echoes(
        given=given,
        tried=len(inside),
        inside=sum(inside),
        never_there=tuple(message.key for message in there.lost),
        never_back=tuple(given[place] for place in found.lost),
        twice=tuple(given[place] for _, place in found.duplicated),
        disordered=tuple(given[place] for place in found.reordered) if expect.in_order else (),
        damaged=sum(not each.ok for each in home) + len(there.damaged),
        stopped=tuple(each.label for each in unfinished(seen, peer)),
    )


def _problems(expect: Echoed, found: _Echoes) -> list[str]:
    lists: dict[str, Sequence[Key]] = {
        f"never reached {expect.by}": found.never_there,
        "given to the rx_hook and never came back": found.never_back,
        "came back more than once": found.twice,
        "came back out of order": found.disordered,
    }
    said = [f"{what}: {named(every)}" for what, every in lists.items() if every]
    if found.inside < expect.at_least:
        said.insert(0, f"refused in the receive path: {found.tried - found.inside} of {found.tried}")
    said += [f"{many(found.damaged, 'datagram')} damaged on the way"] if found.damaged else []
    return said + [f"the sender stopped in the middle of {label}" for label in found.stopped]
