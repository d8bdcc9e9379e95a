"""delivered: every message arrived once, byte-exact, in order, with right checksums on the wire.

In: a `Delivery` and the frames of the flow. Out: the check. Rule: a sender that stopped half-way has not sent everything, so
it fails too; what the drop routine was given is excused only where the testcase says so, and then must not arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.judge.align import Alignment, align
from harness.judge.delivery import Delivery, delivery
from harness.judge.latency import delays, distribution
from harness.judge.links import down_at, downs, state_at, surely_down
from harness.judge.messages import Key, keys, printed, sendings, unfinished
from harness.judge.model import CheckResult
from harness.judge.records import Frame, Handled, Sending
from harness.judge.seen import Seen
from harness.judge.words import at, cut, many, ranges, runs
from harness.scenario.expectations import Delivered


def check(expect: Delivered, seen: Seen) -> CheckResult:
    """The check of one `delivered` expectation."""
    found = delivery(seen, expect.from_, expect.to)
    if len(found.sent) < expect.at_least_sent:
        return CheckResult(
            check="delivered",
            about=_about(expect),
            reached=False,
            held=None,
            why=_not_reached(expect, seen, len(found.sent)),
        )
    dropped = _dropped(seen, expect)
    unnoticed = _unnoticed(expect, seen, found)
    wanted = _wanted(expect, found, dropped, unnoticed)
    alignment = _align(wanted, found)
    problems = _problems(expect, seen, found, alignment, dropped, wanted)
    return CheckResult(
        check="delivered",
        about=_about(expect),
        reached=True,
        held=not problems,
        why=_why(problems, found, dropped, unnoticed, expect),
        findings=(*problems, *_listed("lost in a cut that the guest had not noticed", unnoticed), *_remarks(dropped)),
        numbers=_numbers(expect, seen, found, alignment, dropped),
    )


def _about(expect: Delivered) -> str:
    order = ", in order" if expect.in_order else ""
    excuse = " unless dropped" if expect.except_dropped else ""
    cut_off = f", but for those sent before the guest noticed a cut of {expect.except_cut}" if expect.except_cut else ""
    return f"every message from {expect.from_} reaches {expect.to} once, byte-exact{order}{excuse}{cut_off}"


def _not_reached(expect: Delivered, seen: Seen, sent: int) -> str:
    began = "" if sendings(seen, expect.from_) else "; no send began"
    return f"{expect.from_} handed over {many(sent, 'message')}, need {expect.at_least_sent}{began}"


def _dropped(seen: Seen, expect: Delivered) -> dict[Key, Handled]:
    """What the drop routine was given and did not queue."""
    queued = keys(seen.records.queued, expect.from_)
    return {key: each for key, each in keys(seen.records.dropped, expect.from_).items() if key not in queued}


def _unnoticed(expect: Delivered, seen: Seen, found: Delivery) -> list[Key]:
    """Lost, where the testcase excuses it: sent over a link that may have been cut, while the guest may have thought it up."""
    if expect.except_cut is None:
        return []
    periods = downs(seen.records, expect.except_cut, seen.way_from(expect.from_))
    return [
        message.key
        for message in found.lost
        if down_at(periods, message.first, message.last) and not surely_down(periods, message.first, message.last)
    ]


def _wanted(expect: Delivered, found: Delivery, dropped: dict[Key, Handled], unnoticed: Sequence[Key]) -> list[Key]:
    """What must arrive: all that was sent, but for what the testcase excuses."""
    excused = {*unnoticed, *(dropped if expect.except_dropped else ())}
    wanted = [key for key in found.sent if key not in excused]
    for _ in range(expect.but_last):
        if wanted and wanted[-1] not in found.arrived:
            wanted.pop()
    return wanted


def _align(wanted: Sequence[Key], found: Delivery) -> Alignment:
    """Label by label: two sends at once may interleave, each must be in order in itself."""
    order = {label: number for number, label in enumerate(dict.fromkeys(label for label, _ in found.sent))}
    came = sorted((each.key for each in found.came), key=lambda key: order[key[0]])
    return align(wanted, came)


def _problems(
    expect: Delivered,
    seen: Seen,
    found: Delivery,
    alignment: Alignment,
    dropped: dict[Key, Handled],
    wanted: Sequence[Key],
) -> list[str]:
    claimed = {each.key for each in found.damaged}
    lost = [wanted[place] for place in alignment.lost if wanted[place] not in claimed]
    twice = [wanted[place] for _, place in alignment.duplicated]
    late = [wanted[place] for place in alignment.reordered] if expect.in_order else []
    undead = sorted(found.arrived & dropped.keys())
    return [
        *_stopped(unfinished(seen, expect.from_), found),
        *_lost(lost, found, seen),
        *_listed("never printed, the serial console has not got them either", _unprinted(expect, seen, lost)),
        *cut([f"damaged: {_name(each.key)} at {at(each.t)}: {each.why}" for each in found.damaged], "damaged"),
        *_listed("arrived more than once", twice),
        *_listed("arrived out of order", late),
        *_listed("were dropped and arrived all the same", undead),
        *_checksums(seen.frames_of(expect.from_)),
    ]


def _stopped(open_: Iterable[Sending], found: Delivery) -> list[str]:
    said = []
    for sending in open_:
        handed = sum(key[0] == sending.label for key in found.sent)
        said.append(f"the sender stopped: {handed} of {sending.total} messages of {sending.label} were handed over")
    return said


def _name(key: Key | None) -> str:
    return f"message {key[1]} of {key[0]}" if key else "a datagram"


def _by_label(found: Iterable[Key]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for label, seq in found:
        numbers.setdefault(label, []).append(seq)
    return numbers


def _listed(what: str, found: Iterable[Key]) -> list[str]:
    return [f"{what}: {ranges(numbers)} of {label}" for label, numbers in _by_label(found).items()]


def _lost(lost: Sequence[Key], found: Delivery, seen: Seen) -> list[str]:
    said = []
    for label, numbers in _by_label(lost).items():
        said.append(f"lost: {ranges(numbers)} of {label} ({many(len(set(numbers)), 'message')})")
        states = []
        for first, last in runs(numbers):
            begin, end = found.sent[label, first].first, found.sent[label, last].last
            when = f"handed over between {at(begin)} and {at(end)}" if begin != end else f"printed at {at(begin)}"
            states.append(f"{label} {ranges(range(first, last + 1))} {when}; {state_at(seen.records, end)}")
        said += cut(states, "runs of lost messages")
    return said


def _unprinted(expect: Delivered, seen: Seen, lost: Sequence[Key]) -> list[Key]:
    """Lost kernel messages that never came as far as the consoles: no fault of the wire."""
    if seen.plan.endpoint(expect.from_).stack != "kernel":
        return []
    shown = printed(seen)
    return [key for key in lost if key not in shown]


def _checksums(frames: Sequence[Frame]) -> list[str]:
    bad = [frame for frame in frames if "bad" in (frame.csum, frame.ip_csum)]
    return cut([f"bad checksum in a frame over {frame.nic} at {at(frame.t)}" for frame in bad], "bad checksums")


def _remarks(dropped: dict[Key, Handled]) -> list[str]:
    """What is no failure but belongs to the picture."""
    reasons: dict[str, list[Key]] = {}
    for key, each in dropped.items():
        reasons.setdefault(each.why or "no reason given", []).append(key)
    return [said for why, every in reasons.items() for said in _listed(f"given to the drop routine ({why})", every)]


def _why(
    problems: Sequence[str], found: Delivery, dropped: dict[Key, Handled], unnoticed: Sequence[Key], expect: Delivered
) -> str:
    if problems:
        return problems[0] + (f" (and {many(len(problems) - 1, 'further finding')})" if len(problems) > 1 else "")
    named = len(dropped.keys() & found.sent.keys()) if expect.except_dropped else 0
    excused = f", {many(named, 'message')} dropped and named" if named else ""
    excused += f", {len(unnoticed)} lost before the guest noticed the cut" if unnoticed else ""
    return f"{len(found.arrived)} of {many(len(found.sent), 'message')} arrived{excused}"


def _numbers(
    expect: Delivered, seen: Seen, found: Delivery, alignment: Alignment, dropped: dict[Key, Handled]
) -> dict[str, float | int]:
    frames = seen.frames_of(expect.from_)
    return {
        "sent": len(found.sent),
        "received": len(found.arrived),
        "lost": len(alignment.lost),
        "dropped": len(dropped),
        "duplicated": len(alignment.duplicated),
        "reordered": len(alignment.reordered),
        "damaged": len(found.damaged),
        "frames": len(frames),
        "bad_checksums": sum("bad" in (frame.csum, frame.ip_csum) for frame in frames),
        **distribution(delays(seen, expect.from_, expect.to)),
    }
