"""Can this evidence be judged at all? What the testbed itself got wrong, so that it is never counted as the kernel's fault.

In: a `Seen`. Out: sentences, each of which makes the verdict ERROR. Rule: evidence that is incomplete, or that contradicts
itself, proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.judge.seen import Seen
from harness.judge.strange import without
from harness.judge.whereabouts import hung
from harness.judge.words import many


def errors(seen: Seen) -> list[str]:
    """All reasons why the testbed, not the kernel, is to blame; empty for sound evidence."""
    hangs = hung(seen.records)  # then what was never injected or counted is the kernel's fault, too
    said = [*seen.records.errors, *_framed(seen), *(silent.name for silent in seen.records.silent if not hangs)]
    if said or hangs:  # the rest would follow from it
        return said
    return [
        *_injected(seen),
        *_counted(seen),
        *_received(seen),
        *_captured(seen),
    ]


def _framed(seen: Seen) -> Iterator[str]:
    if seen.records.started is None:
        yield "the evidence has no beginning: no `run start`"
    if seen.records.ended is None:
        yield f"the evidence ends at {seen.records.last:.3f} s without `run end`: the harness was killed"


def _injected(seen: Seen) -> Iterator[str]:
    """What the testcase injects must have been injected, or whatever followed had another cause."""
    steps = [step.inject for step in seen.plan.scenario.steps if step.inject and not step.inject.after]
    wanted = [(inject.link, inject.state == "up") for inject in steps]
    wanted += [(step.remove.nic, False) for step in seen.plan.scenario.steps if step.remove]
    missing = Counter(wanted) - Counter((cut.nic, cut.up) for cut in seen.records.cuts)
    for nic, up in missing:
        yield f"the testcase takes the link of {nic} {'up' if up else 'down'}, but the evidence does not say that it was done"
    if seen.crash is None and any(step.crash for step in seen.plan.scenario.steps):
        yield "the testcase crashes the guest, but the evidence does not say that it was done"


def _counted(seen: Seen) -> Iterator[str]:
    """A send that reports N messages done must have named N messages."""
    for done in seen.records.done:
        ranges = [each for each in seen.records.sent + seen.records.kmsg if (each.endpoint, each.label) == done[1:3]]
        handed = len({seq for each in ranges for seq in range(each.first, each.last + 1)})
        if handed != done.total:
            yield (
                f"the send {done.label} of {done.endpoint} reports {many(done.total, 'message')} handed over, "
                f"but the evidence names {handed}: events are missing"
            )


def _received(seen: Seen) -> Iterator[str]:
    """Did the capture see more of a kernel's good datagrams than the host's endpoint was given, so that we lost some?

    Only for the kernel's netconsole over one tap: where our own stack is what is tested, losing a frame is its failure,
    and a bond may show one datagram on several taps. Only from the crash on, where nothing opens or closes any more.
    """
    since = seen.crash
    for end in seen.plan.endpoints:
        if end.at != "guest" or end.stack != "kernel" or since is None or len(seen.nics_of(end)) > 1:
            continue
        good = [frame for frame in seen.frames_of(end.id) if "bad" not in (frame.csum, frame.ip_csum)]
        frames = sum(frame.t >= since for frame in good)
        given = sum(arrival.t >= since for arrival in seen.records.arrivals if arrival.endpoint == end.peer)
        if given < frames:
            yield (
                f"the capture saw {many(frames, 'good datagram')} of {end.id} after the crash, but {end.peer} was given "
                f"{given}: the testbed lost some"
            )


def _captured(seen: Seen) -> Iterator[str]:
    """A datagram that arrived anywhere has passed a tap; if the captures saw fewer, what they did not see proves nothing."""
    for end in seen.plan.endpoints:
        source, _, target, port = seen.flow(end.peer)
        out = end.at == "host"
        frames = [frame for frame in seen.records.frames if frame.out == out and frame.flow]
        damaged = (each for each in seen.records.strange if each.endpoint == end.peer)  # by the testcase: none arrives
        flows = [frame.flow for frame in without(frames, seen.flow(end.peer), damaged) if frame.flow]
        passed = sum((flow[0], *flow[2:]) == (source, target, port) for flow in flows)
        strange = {
            each.label for each in seen.records.strange if each.endpoint == end.peer
        }  # for a check to find fault with
        given = sum(each.endpoint == end.id and each.label not in strange for each in seen.records.arrivals)
        if given > passed:
            yield f"{many(given, 'datagram')} arrived at {end.id}, but the captures saw {passed}: they missed some"
