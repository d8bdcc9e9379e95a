"""counters_agree: what guest, driver, tap, capture and our stack have counted of one NIC's frames, or of a bond's, is the same.

In: `ifstats` of the guest and of the host, `counters` of our stack, captured frames. Out: the check. Rule: a frame that one layer counted and the next did
not was lost between the two, and that is said with both numbers; frames on the wire while the counters were read, or within the clocks' slack of it, may
count or not. What QEMU says of a NIC that was restored or plugged in (RARP, net/announce.c) is none of the guest's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.judge.links import CLOCK_SLACK
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.told import IfStats
from harness.judge.words import at, many
from harness.scenario.oracles import CountersAgree

PENDING = (
    4  # frames a NIC whose driver counts them when it reclaims their descriptors, as virtio_net: free_old_xmit_skbs()
)


RARP = 0x8035
SENT_NAMES = (
    r"tx_packets|tx_ok",  # e1000, e1000e, igb; 8139cp
    r"tx_queue_\d+_packets|tx\d+_packets",  # virtio_net, as it was called before and after 6.9
    r"tx_(?:ucast|mcast|bcast)_packets",  # tg3
    r"\s*(?:TSO|ucast|mcast|bcast) pkts tx",  # vmxnet3, each for every queue
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
    few, most = _between(_sent(seen, *taps), guest.began, guest.t)
    wrong = (
        []
        if few - PENDING * len(taps) <= sent <= most
        else [f"the guest counted {sent} frames out of {expect.of}, the captures {most}"]
    )
    layers = _layers(expect, seen, guest)
    wrong += [
        f"{name} counted {count} frames out of {expect.of}, the captures {seen_}"
        for name, count, low, seen_ in layers
        if not low <= count <= seen_
    ]
    for nic, tap in taps.items():
        own = sum(frame.t <= tap.t for frame in seen.records.frames if frame.out and frame.nic == nic) if tap else 0
        if tap and tap.values.get("rx_packets") != own:
            wrong.append(
                f"the tap of {nic} counted {tap.values.get('rx_packets')} frames by {at(tap.t)}, its capture {own}"
            )
    numbers: dict[str, float | int] = {"guest": sent, "captured": most}
    numbers |= {name.replace(" ", "_"): count for name, count, _, _ in layers}
    numbers |= {f"tap_{nic}": tap.values.get("rx_packets", 0) for nic, tap in taps.items() if tap}
    others = ", ".join(name for name, _, _, _ in layers)
    why = (
        "; ".join(wrong)
        or f"{many(sent, 'frame')} out of {expect.of} at every layer{f', {others} among them' if others else ''}"
    )
    return CheckResult(
        check="counters_agree",
        about=about,
        reached=True,
        held=not wrong,
        why=why,
        findings=tuple(wrong),
        numbers=numbers,
    )


def _layers(expect: CountersAgree, seen: Seen, guest: IfStats) -> list[tuple[str, int, int, int]]:
    """Name, its count, and between which numbers it has to be: what each driver behind the device says, and each endpoint of our stack on it."""
    found: list[tuple[str, int, int, int]] = []
    for nic in sorted(seen.behind(expect.of)):
        told = _last(seen, nic, "guest")
        count = None if told is None else sent_by_driver(told.values)
        if told is not None and count is not None:
            few, most = _between(_sent(seen, nic), told.began, told.t)
            found.append((f"driver of {nic}", count, few - PENDING, most))
    for end in seen.plan.endpoints:
        if (end.at, end.stack) != ("guest", "netpoll") or end.devices != (expect.of,):
            continue
        own = [each for each in seen.records.counters if each.endpoint == end.id and each.t >= guest.t - CLOCK_SLACK]
        if own:  # the frames of a bond that sends copies are each captured as often
            copies = len(seen.behind(expect.of)) if _broadcasts(seen, expect.of) else 1
            frames = [frame.t for frame in seen.frames_of(end.id)]
            few, most = _between(frames, own[0].t, own[0].t)
            sent = own[0].values.get("sent", 0) + own[0].values.get("late", 0)
            found.append((f"our stack at {end.id}", sent, few // copies, most // copies))
    return found


def _sent(seen: Seen, *nics: str) -> list[float]:
    """When the guest's frames were on the wire of these."""
    return [each.t for each in seen.records.frames if each.out and each.nic in nics and each.ethertype != RARP]


def _between(times: Sequence[float], began: float, ended: float) -> tuple[int, int]:
    """How many must have been counted by who read from `began` to `ended`, and how many may have been."""
    return sum(t <= began - CLOCK_SLACK for t in times), sum(t <= ended + CLOCK_SLACK for t in times)


def sent_by_driver(values: Mapping[str, int]) -> int | None:
    """`ethtool -S`: frames sent, by the first of these names that the driver has; None if it has none of them."""
    for names in SENT_NAMES:
        own = [count for name, count in values.items() if re.fullmatch(f"ethtool_(?:{names})", name)]
        if own:
            return sum(own)
    return None


def _broadcasts(seen: Seen, device: str) -> bool:
    bond = seen.plan.scenario.guest.bonds.get(device)
    return bond is not None and bond.mode == "broadcast"


def _last(seen: Seen, device: str, side: str) -> IfStats | None:
    own = [stats for stats in seen.records.ifstats if (stats.side, stats.device) == (side, device)]
    return own[-1] if own else None
