"""arp_answered: each ARP request for a client's address was answered once, with its MAC, to who asked.

In: requests as captured on their way to the guest, answers as the asker heard them. Out: the check. Rule: the asker's word counts
only with as many ARP frames from the guest on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.judge.model import CheckResult
from harness.judge.not_received import ARP, frames_to, strange_to
from harness.judge.seen import Seen
from harness.judge.strange import ETH_P_ARP
from harness.judge.told import Answer
from harness.judge.words import at, cut, many
from harness.scenario.expectations import ArpAnswered


def check(expect: ArpAnswered, seen: Seen) -> CheckResult:
    """The check of one `arp_answered` expectation."""
    about = f"at least {many(expect.at_least, 'ARP request')} for {expect.by} are answered once each, with its MAC"
    asked = sum(each.total for each in strange_to(seen, expect.by) if each.what == ARP)
    asker = seen.plan.endpoint(seen.plan.endpoint(expect.by).peer)
    captured = [
        each for each in frames_to(seen, expect.by) if (each.ethertype, each.smac) == (ETH_P_ARP, asker.local_mac)
    ]
    if asked < expect.at_least or len(captured) < asked:
        why = f"{many(asked, 'ARP request')} were sent and the capture saw {len(captured)}, need {expect.at_least}"
        return CheckResult(check="arp_answered", about=about, reached=False, held=None, why=why)
    heard = [each for each in seen.records.answers if each.endpoint == asker.id]
    problems = list(_problems(expect, seen, asked, heard))
    return CheckResult(
        check="arp_answered",
        about=about,
        reached=True,
        held=not problems,
        why=problems[0] if problems else f"{many(asked, 'request')} and as many answers from {expect.by}",
        findings=tuple(cut(problems, "findings")),
        numbers={"requests": asked, "answers": len(heard)},
    )


def _problems(expect: ArpAnswered, seen: Seen, asked: int, heard: Sequence[Answer]) -> Iterator[str]:
    mine = seen.plan.endpoint(expect.by)
    if len(heard) != asked:
        yield f"{many(asked, 'ARP request')} for {mine.local_ip}, {many(len(heard), 'answer')}"
    right = (mine.local_ip, mine.local_mac, seen.plan.endpoint(mine.peer).local_mac)
    for each in heard:
        if (each.ip, each.mac, each.to) != right:
            yield f"at {at(each.t)} {each.mac} says to {each.to} that it has {each.ip}; {right[1]} has {right[0]}"
    wire = [f for f in seen.records.frames if f.out and f.ethertype == ETH_P_ARP and f.nic in seen.nics_of(mine)]
    if len(wire) < len(heard):
        yield f"{many(len(heard), 'answer')} were heard, but {many(len(wire), 'ARP frame')} left the guest"
