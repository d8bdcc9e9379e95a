"""held_back: while nobody read what the NIC sent, messages went on; they came late, and none was lost.

In: when the reader stopped and went on, and the sender's messages. Out: the check, with how late they came. Rule: not reached unless more
were handed over meanwhile than were asked for (as many as the TX ring has descriptors, or the queue never stopped), and none came through.
"""

from __future__ import annotations

from statistics import median

from harness.judge.delivery import delivery
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.words import at, many
from harness.scenario.expectations import HeldBack


def check(expect: HeldBack, seen: Seen) -> CheckResult:
    """The check of one `held_back` expectation."""
    about = (
        f"messages from {expect.from_} that were sent while nobody read {expect.nic} arrive at {expect.to} afterwards"
    )
    stops = [each for each in seen.records.readers if each.nic == expect.nic]
    stopped = next((each.t for each in stops if not each.up), None)
    running = next((each.t for each in stops if each.up), None)
    if stopped is None or running is None:
        why = f"the evidence does not say that the reader of {expect.nic} stopped and went on"
        return CheckResult(check="held_back", about=about, reached=False, held=None, why=why)
    found = delivery(seen, expect.from_, expect.to)
    meanwhile = {
        key: message for key, message in found.sent.items() if stopped < message.first and message.last < running
    }
    came = {each.key: each.t for each in found.came}
    early = [key for key in meanwhile if key in came and came[key] < running]
    if len(meanwhile) < expect.at_least or early:
        why = f"{many(len(meanwhile), 'message')} were sent between {at(stopped)} and {at(running)}, need {expect.at_least}"
        why += f"; {len(early)} of them came through all the same" if early else ""
        return CheckResult(check="held_back", about=about, reached=False, held=None, why=why)
    lost = [key for key in meanwhile if key not in came]
    late = [came[key] - message.last for key, message in meanwhile.items() if key in came]
    how_late = f", {min(late):.3f} to {max(late):.3f} s late" if late else ""
    return CheckResult(
        check="held_back",
        about=about,
        reached=True,
        held=not lost,
        why=f"of {many(len(meanwhile), 'message')} sent meanwhile {len(late)} came afterwards{how_late}",
        findings=tuple(f"lost: {label} {number}" for label, number in lost[:10]),
        numbers={
            "held": len(meanwhile),
            "lost": len(lost),
            **({"median_late": round(median(late), 6)} if late else {}),
        },
    )
