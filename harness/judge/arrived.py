"""When datagrams were on the wire, by the capture's clock instead of by the receiver's.

In: arrivals at an endpoint, captured frames of its peer. Out: the arrivals with the frames' times. Rule: the n-th arrival is the n-th
frame where there are as many of one as of the other; else, as behind a bond that sends copies, the receiver's own time stays.
"""

from __future__ import annotations

from harness.judge.records import Arrival
from harness.judge.seen import Seen


def arrivals(seen: Seen, endpoint: str) -> list[Arrival]:
    """What arrived at `endpoint`, in order, with the time at which the host's kernel saw its frame."""
    given = [arrival for arrival in seen.records.arrivals if arrival.endpoint == endpoint]
    sent = seen.frames_of(seen.plan.endpoint(endpoint).peer)
    frames = [frame for frame in sent if "bad" not in (frame.csum, frame.ip_csum)]
    if len(given) != len(frames):
        return given
    return [arrival._replace(t=frame.t) for arrival, frame in zip(given, frames, strict=True)]
