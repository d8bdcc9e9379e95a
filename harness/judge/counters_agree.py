"""counters_agree: what guest, tap and capture have counted of one NIC's frames, or of a bond's, is the same.

In: `ifstats` of the guest and of the host, captured frames. Out: the check. Rule: a frame that one layer counted and the next did not was lost
between the two, and that is said with both numbers; frames on the wire within the clocks' slack of the reading may count or not.
"""

from __future__ import annotations

from harness.judge.links import CLOCK_SLACK
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.told import IfStats
from harness.judge.words import at, many
from harness.scenario.oracles import CountersAgree

PENDING = (
    4  # frames a NIC whose driver counts them when it reclaims their descriptors, as virtio_net: free_old_xmit_skbs()
)


def check(expect: CountersAgree, seen: Seen) -> CheckResult:
    """The check of one `counters_agree` expectation."""
    about = f"guest, taps and captures have counted the same frames out of {expect.of}"
    guest = _last(seen, expect.of, "guest")
    taps = {nic: _last(seen, nic, "host") for nic in sorted(seen.behind(expect.of))}
    if guest is None or any(tap is None for tap in taps.values()):
        return CheckResult(check="counters_agree", about=about, reached=False, held=None, why="no counters were read")
    sent = guest.values.get("tx_packets", 0)
    if sent < expect.at_least:
        why = f"the guest counted {many(sent, 'frame')} out of {expect.of}, need {expect.at_least}"
        return CheckResult(check="counters_agree", about=about, reached=False, held=None, why=why)
    frames = [frame.t for frame in seen.records.frames if frame.out and frame.nic in taps]
    few, most = (sum(t <= guest.t + slack for t in frames) for slack in (-CLOCK_SLACK, CLOCK_SLACK))
    wrong = (
        []
        if few - PENDING * len(taps) <= sent <= most
        else [f"the guest counted {sent} frames out of {expect.of}, the captures {most}"]
    )
    for nic, tap in taps.items():
        own = sum(frame.t <= tap.t for frame in seen.records.frames if frame.out and frame.nic == nic) if tap else 0
        if tap and tap.values.get("rx_packets") != own:
            wrong.append(
                f"the tap of {nic} counted {tap.values.get('rx_packets')} frames by {at(tap.t)}, its capture {own}"
            )
    numbers: dict[str, float | int] = {"guest": sent, "captured": most}
    numbers |= {f"tap_{nic}": tap.values.get("rx_packets", 0) for nic, tap in taps.items() if tap}
    why = "; ".join(wrong) or f"{many(sent, 'frame')} out of {expect.of} at every layer"
    return CheckResult(
        check="counters_agree",
        about=about,
        reached=True,
        held=not wrong,
        why=why,
        findings=tuple(wrong),
        numbers=numbers,
    )


def _last(seen: Seen, device: str, side: str) -> IfStats | None:
    own = [stats for stats in seen.records.ifstats if (stats.side, stats.device) == (side, device)]
    return own[-1] if own else None
