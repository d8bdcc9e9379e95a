"""parity: from the crash on, what the serial console shows is what the wire shows, line by line.

In: the comparison of console and wire. Out: the check, each finding with what links and bonds were doing at that moment. Rule:
reached means that the kernel was seen going down; a kernel that then falls silent before the line `until` has not got
its last words out, and that is a failure, not a crash that was not provoked.
"""

from __future__ import annotations

from harness.judge import except_cut
from harness.judge.behind import missed
from harness.judge.comparison import Comparison, compare
from harness.judge.latency import LATE, distribution, line_delays
from harness.judge.lines import difference
from harness.judge.links import state_at
from harness.judge.model import CheckResult
from harness.judge.queue_stopped import at_last
from harness.judge.seen import Seen
from harness.judge.whereabouts import whereabouts
from harness.judge.words import at, cut, many, runs, short
from harness.scenario.expectations import Parity


def check(expect: Parity, seen: Seen) -> CheckResult:
    """The check of one `parity` expectation."""
    about = f"from the crash through the line with `{expect.until}`, the console's lines are on the wire at {expect.to}"
    comparison = compare(seen, expect.to, expect.until)
    if comparison is None:
        return CheckResult(check="parity", about=about, reached=False, held=None, why=_not_reached(seen))
    if comparison.complete and len(comparison.console) < expect.at_least:
        why = f"the console shows {many(len(comparison.console), 'line')}, need {expect.at_least}"
        return CheckResult(check="parity", about=about, reached=False, held=None, why=why)
    if expect.behind is not None and (early := missed(expect.behind, expect.to, comparison, seen)):
        return CheckResult(check="parity", about=about, reached=False, held=None, why=early)
    if expect.except_cut is not None:
        return except_cut.check(expect.except_cut, about, comparison, seen)
    shown = {line.text: place for place, line in enumerate(comparison.console)}
    slow = [(shown[text], delay) for text, delay in line_delays(seen, expect.to) if text in shown]
    late = [(place, delay) for place, delay in slow if delay > LATE]
    return CheckResult(
        check="parity",
        about=about,
        reached=True,
        held=comparison.complete and comparison.whole,
        why=_why(comparison, expect),
        findings=(*_findings(comparison, seen), *_late(late)),
        numbers={**_numbers(comparison), "late": len(late), **distribution([delay for _, delay in slow])},
    )


def _not_reached(seen: Seen) -> str:
    last = seen.records.console[-1].text if seen.records.console else None
    tail = f"its last line is {short(last)}" if last else "it is empty"
    if seen.crash is None:
        return f"no crash was asked for, and the console shows none; {tail}"
    return f"a crash was asked for at {at(seen.crash)}, but the console shows no panic; {tail}{_waited(seen)}{_places(seen)}"


def _places(seen: Seen) -> str:
    return "".join(f"; {place}" for place in whereabouts(seen.records))


def _waited(seen: Seen) -> str:
    """How long the testcase's patience was, where it ran out."""
    timeout = next((timeout for timeout in seen.records.timeouts if timeout.what == "panic"), None)
    return f" ({timeout.within:g} s were waited for `{timeout.of}`)" if timeout else ""


def _numbers(found: Comparison) -> dict[str, float | int]:
    return {
        "lines": len(found.console),
        "received": len(found.alignment.matched),
        "lost": len(found.lost),
        "duplicated": len(found.alignment.duplicated),
        "reordered": len(found.alignment.reordered),
        "garbled": len(found.garbled),
        "extra": len(found.extra),
    }


def _why(found: Comparison, expect: Parity) -> str:
    total = len(found.console)
    if not found.complete:
        lines = many(len(found.console), "line")
        return f"the guest stopped printing after {lines} and never came to `{expect.until}`; {_account(found)}"
    if found.whole:
        return f"all {many(total, 'line')} came once, in order, as printed"
    return _account(found)


def _account(found: Comparison) -> str:
    words = [
        f"{count} {word}" for word, count in _numbers(found).items() if word not in ("lines", "received") and count
    ]
    return f"of {many(len(found.console), 'console line')}: {', '.join(words) or 'all on the wire'}"


def _findings(found: Comparison, seen: Seen) -> list[str]:
    return [
        *_silence(found, seen),
        *_notices(found),
        *cut(_lost(found, seen), "lost lines"),
        *cut(_garbled(found), "damaged lines"),
        *cut(_reordered(found), "lines out of order"),
        *cut(_duplicated(found), "repeated lines"),
        *cut(
            [f"not on the console: {short(found.wire[n].text)} at {at(found.wire[n].t)}" for n in found.extra], "lines"
        ),
        *(
            whereabouts(seen.records) if found.complete and found.lost else []
        ),  # where the processor was, after what is missing
        *(_stopped(seen) if found.lost else []),
    ]


def _stopped(seen: Seen) -> list[str]:
    """TX queues that may hold what is missing. Byte queue limits are the stack's bit."""
    return [
        f"the TX queue of {each.nic} was stopped ({each.why}) when last looked at, at {at(each.t)}: netpoll keeps back what comes then"
        for each in at_last(seen)
    ]


def _late(late: list[tuple[int, float]]) -> list[str]:
    """Not lost: they came, long after they had been printed."""
    longest = dict(late)
    return [
        f"late, not lost: {'line' if first == last else 'lines'} {first + 1}{'' if first == last else f'-{last + 1}'} came "
        f"up to {max(longest[place] for place in range(first, last + 1)):.3f} s after being printed"
        for first, last in runs(longest)
    ]


def _silence(found: Comparison, seen: Seen) -> list[str]:
    if found.complete:
        return []
    last = found.console[-1]
    quiet = seen.records.last - last.t
    return [
        f"the guest stopped printing after line {len(found.console)} at {at(last.t)}: {short(last.text)}; the console "
        f"stayed silent for {quiet:.1f} s after it{_waited(seen)}; {state_at(seen.records, last.t)}",
        *whereabouts(seen.records),
    ]


def _notices(found: Comparison) -> list[str]:
    netconsole = sum(line.skipped for line in found.wire)
    said = [f"the kernel itself says that netconsole skipped {many(netconsole, 'record')}"] if netconsole else []
    return said + ([f"the serial console itself skipped {many(found.skipped, 'record')}"] if found.skipped else [])


def _lost(found: Comparison, seen: Seen) -> list[str]:
    return [_lost_run(found, first, last, seen) for first, last in runs(found.lost)]


def _lost_run(found: Comparison, first: int, last: int, seen: Seen) -> str:
    top, end = found.console[first], found.console[last]
    which = f"line {first + 1}" if first == last else f"lines {first + 1}-{last + 1}"
    text = short(top.text) if first == last else f"{short(top.text)} to {short(end.text)}"
    return f"lost: {which} of {len(found.console)} at {at(top.t)}: {text}; {state_at(seen.records, top.t)}"


def _garbled(found: Comparison) -> list[str]:
    return [
        f"damaged: line {place + 1}: {difference(found.wire[number].text, found.console[place].text)}: "
        f"{short(found.wire[number].text)} for {short(found.console[place].text)}"
        for place, number in found.garbled
    ]


def _reordered(found: Comparison) -> list[str]:
    arrival = {number: place for place, number in found.alignment.matched.items()}
    said = []
    for place in found.alignment.reordered:
        before = [arrival[number] for number in sorted(arrival) if number < found.alignment.matched[place]]
        after = f"after line {before[-1] + 1}" if before else "first of all"
        said.append(f"out of order: line {place + 1} came {after}: {short(found.console[place].text)}")
    return said


def _duplicated(found: Comparison) -> list[str]:
    return [
        f"repeated: line {place + 1} came again at {at(found.wire[number].t)}: {short(found.console[place].text)}"
        for number, place in found.alignment.duplicated
    ]
