"""uninterrupted: our stack sent on a machine that had crashed, and no interrupt of its NICs was enabled or came.

In: what the interrupts of each NIC were set to, and how many had come, after the first poll of the crashed context and later; ranges of
messages. Out: the check. Rule: what was read once, or with nothing sent in between, has not provoked anything, and a count that nothing
has ever been added to does not show that it counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.told import Interrupts
from harness.judge.words import at, cut, many
from harness.scenario.polling import Uninterrupted


def check(expect: Uninterrupted, seen: Seen) -> CheckResult:
    """The check of one `uninterrupted` expectation."""
    about = f"{expect.by} sends in a crashed context, and no interrupt of its NICs is enabled or comes"
    nics = sorted(seen.nics_of(seen.plan.endpoint(expect.by)))
    looks = {nic: [each for each in seen.records.interrupts if each.nic == nic] for nic in nics}
    sent = min((_sent_between(expect.by, seen, each) for each in looks.values()), default=0)
    missing = _not_reached(expect.by, looks, sent)
    if missing is not None:
        return CheckResult(check="uninterrupted", about=about, reached=False, held=None, why=missing)
    problems = [said for nic in nics for said in _problems(looks[nic])]
    good = f"{many(sent, 'message')} sent, and of {', '.join(nics)} no interrupt was enabled, and none came"
    return CheckResult(
        check="uninterrupted",
        about=about,
        reached=True,
        held=not problems,
        why=problems[0] if problems else good,
        findings=tuple(cut(problems, "findings")),
        numbers={"sent": sent, "came": sum(each[-1].told - each[0].told for each in looks.values())},
    )


def _not_reached(by: str, looks: Mapping[str, Sequence[Interrupts]], sent: int) -> str | None:
    unread = [nic for nic, each in looks.items() if len(each) < 2]
    if unread:
        return f"the interrupts of {', '.join(unread)} were not read before and after"
    if not sent:
        return f"{by} sent nothing while its NICs' interrupts were looked at"
    if not any(each[0].told for each in looks.values()):
        return f"no interrupt of {', '.join(looks)} came before the crash either, so that its count says nothing"
    return None


def _sent_between(by: str, seen: Seen, looks: Sequence[Interrupts]) -> int:
    """Messages handed over between the first look and the last."""
    if len(looks) < 2:
        return 0
    first, last = looks[0].t, looks[-1].t
    return sum(
        each.last - each.first + 1 for each in seen.records.sent if each.endpoint == by and first < each.t <= last
    )


def _problems(looks: Sequence[Interrupts]) -> list[str]:
    said = []
    for each in looks:
        where = [place for place, on in (("chip", each.chip), ("bus", each.bus)) if on]
        if where:
            said.append(f"interrupts of {each.nic} are enabled at the {' and the '.join(where)} at {at(each.t)}")
    for before, after in pairwise(looks):
        if after.told != before.told:
            came = many(after.told - before.told, "interrupt")
            said.append(f"{came} of {after.nic} came between {at(before.t)} and {at(after.t)}")
    return said
