"""Strange frames on the wire: which captured frames are those that a testcase sent to be left alone.

In: frames and the flow that they imitate. Out: yes or no for each kind. Rule: told by what the capture saw - addresses, checksums - and
by nothing that the sender says of itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from harness.judge.records import Flow, Frame
from harness.judge.told import Strange

ETH_P_ARP = 0x0806


def _differs(place: int) -> Callable[[Frame, Flow], bool]:
    """Right in all but one of source address, source port, destination address, destination port."""

    def matches(frame: Frame, flow: Flow) -> bool:
        return frame.flow is not None and [number for number in range(4) if frame.flow[number] != flow[number]] == [
            place
        ]

    return matches


def _sums(csum: str | None, ip_csum: str) -> Callable[[Frame, Flow], bool]:
    return lambda frame, flow: frame.flow == flow and (frame.csum, frame.ip_csum) == (csum, ip_csum)


LOOKS: dict[str, Callable[[Frame, Flow], bool]] = {
    "wrong-peer": _differs(0),
    "wrong-address": _differs(2),
    "wrong-port": _differs(3),
    "bad-udp-checksum": _sums("bad", "ok"),
    "bad-ip-checksum": _sums("ok", "bad"),
    "fragment": _sums(None, "ok"),  # not whole, so that there is nothing to compute one from
    "arp-request": lambda frame, _flow: frame.ethertype == ETH_P_ARP,
}
"""For each kind of the step `frames`: is this frame, on its way to the client of `flow`, one of them?"""


def seen_of(frames: Iterable[Frame], flow: Flow, strange: Iterable[Strange]) -> Counter[str]:
    """How many frames of each kind the capture saw; `frames` go to the client's NICs, `flow` is what it does receive."""
    kinds = {each.what for each in strange}
    return Counter(what for frame in frames for what in kinds if LOOKS[what](frame, flow))


def without(frames: Sequence[Frame], flow: Flow, strange: Iterable[Strange]) -> list[Frame]:
    """Frames of a flow but for those that the testcase itself damaged: as many of each kind as it sent, the first ones."""
    left = Counter[str]()
    for each in strange:
        left[each.what] += each.total
    return [frame for frame in frames if not _struck(frame, flow, left)]


def _struck(frame: Frame, flow: Flow, left: Counter[str]) -> bool:
    what = next((what for what, count in left.items() if count > 0 and LOOKS[what](frame, flow)), None)
    if what is not None:
        left[what] -= 1
    return what is not None
