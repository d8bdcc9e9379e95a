"""queue_stopped: a TX queue stopped, the guest kernel's own or that of our stack's device; and was woken again, where that is asked for.

In: `queue` records. Out: the check. Rule: what was not seen was not provoked; whether it was woken is asked only of a queue that stopped.
"""

from __future__ import annotations

from itertools import pairwise

from harness.judge.model import CheckResult
from harness.judge.records import Queue
from harness.judge.seen import Seen
from harness.judge.words import at, cut, many
from harness.scenario.oracles import QueueStopped


def check(expect: QueueStopped, seen: Seen) -> CheckResult:
    """The check of one `queue_stopped` expectation."""
    whose = "the guest kernel's TX queue" if expect.by == "kernel" else "the TX queue of our stack's device"
    about = f"{whose} of {expect.nic} stops at least {many(expect.at_least, 'time')}"
    about += ", and takes frames again after the last time" if expect.woken else ""
    own = [each for each in seen.records.queues if (each.nic, each.by, each.side) == (expect.nic, expect.by, "guest")]
    stops = [each for each in own if each.stopped]
    if len(stops) < expect.at_least:
        why = f"{whose} of {expect.nic} was seen stopped {many(len(stops), 'time')}, need {expect.at_least}"
        return CheckResult(check="queue_stopped", about=about, reached=False, held=None, why=why)
    stays = own[-1].stopped
    times = [b.t - a.t for a, b in pairwise(own) if a.stopped and not b.stopped]
    woken = "is never woken" if stays else f"is woken at {at(own[-1].t)}"
    return CheckResult(
        check="queue_stopped",
        about=about,
        reached=True,
        held=not (expect.woken and stays),
        why=f"it stops {many(len(stops), 'time')}, first at {at(stops[0].t)}, and after the last time {woken}",
        findings=tuple(cut([_said(each) for each in own], "changes")),
        numbers={"stops": len(stops)} | ({"longest_ms": round(max(times) * 1000, 3)} if times else {}),
    )


def at_last(seen: Seen) -> list[Queue]:
    """TX queues of the guest's kernel that were stopped when last looked at, by NIC."""
    own = [each for each in seen.records.queues if (each.by, each.side) == ("kernel", "guest")]
    last = {each.nic: each for each in own}
    return [each for _, each in sorted(last.items()) if each.stopped]


def _said(each: Queue) -> str:
    why = f" ({each.why})" if each.stopped and each.why else ""
    return f"{'stopped' if each.stopped else 'woken'} at {at(each.t)}{why}"
