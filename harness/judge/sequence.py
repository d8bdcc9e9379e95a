"""sequence: the extended netconsole's records against the kernel's own log, number by number.

In: the records that the agent read from /dev/kmsg, the datagrams with their extended headers. Out: the check. Rule: every record from the first
numbered message of the sender to the last that was read has to be on the wire, once, in order, whole and with the same text; which
numbers are missing is known, not guessed, because printk counts its records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from guest.netpoll.clients.netconsole.message import FormatError, parse_packet
from guest.numbered import parse_numbered
from harness.judge.messages import sendings
from harness.judge.model import CheckResult
from harness.judge.seen import Seen
from harness.judge.told import KernelRecord
from harness.judge.words import cut, many, ranges, short
from harness.scenario.oracles import Sequence


@dataclass
class Body:
    """The parts of one record that came: offset -> bytes, and how long all of it is (None: in one piece)."""

    total: int | None = None
    parts: dict[int, bytes] = field(default_factory=dict)
    again: int = 0

    @property
    def whole(self) -> bytes | None:
        """Header and gaps taken out; None while a part is missing."""
        data = b"".join(self.parts[offset] for offset in sorted(self.parts))
        return data if self.total is None or len(data) == self.total else None


def check(expect: Sequence, seen: Seen) -> CheckResult:
    """The check of one `sequence` expectation."""
    about = f"every record of the kernel's log since the first message of {expect.from_} is on the wire at {expect.to}, by its number"
    wanted = list(_wanted(expect, seen))
    if len(wanted) < expect.at_least:
        why = f"/dev/kmsg had {many(len(wanted), 'record')} since then, need {expect.at_least}"
        return CheckResult(check="sequence", about=about, reached=False, held=None, why=why)
    came = _bodies(arrival.text for arrival in seen.records.arrivals if arrival.endpoint == expect.to)
    split = [number for number, body in came.items() if body.total is not None]
    if len(split) < expect.fragments:
        why = f"{many(len(split), 'record')} came in fragments, need {expect.fragments}"
        return CheckResult(check="sequence", about=about, reached=False, held=None, why=why)
    wrong = _wrong(wanted, came)
    right = f"{many(len(wanted), 'record')}, none missing"
    return CheckResult(
        check="sequence",
        about=about,
        reached=True,
        held=not wrong,
        why=wrong[0] if wrong else right,
        findings=tuple(cut(wrong, "findings")),
        numbers={"records": len(wanted), "came": len(came), "fragmented": len(split)},
    )


def _wanted(expect: Sequence, seen: Seen) -> Iterator[KernelRecord]:
    """From the sender's first numbered message on, each number once."""
    labels, begun = sendings(seen, expect.from_), False
    for record in {each.seq: each for each in seen.records.kernel_log}.values():
        numbered = parse_numbered(record.text)
        begun = begun or (numbered is not None and numbered.label in labels)
        if begun:  # whatever its level: the guest prints them all (harness.plan.compile, loglevel)
            yield record


def _bodies(texts: Iterable[str | None]) -> dict[int, Body]:
    """By number, in order of the first part's arrival."""
    found: dict[int, Body] = {}
    for text in texts:
        try:
            header, body = parse_packet((text or "").encode("latin-1"))
        except FormatError:
            continue
        offset, total = header.fragment or (0, None)
        mine = found.setdefault(header.seq, Body(total))
        mine.again += offset in mine.parts
        mine.parts[offset] = body
    return found


def _wrong(wanted: list[KernelRecord], came: dict[int, Body]) -> list[str]:
    gaps = [record.seq for record in wanted if record.seq not in came]
    torn = [record.seq for record in wanted if record.seq in came and came[record.seq].whole is None]
    twice = [record.seq for record in wanted if record.seq in came and came[record.seq].again]
    numbers_wanted = {record.seq for record in wanted}
    order = [number for number in came if number in numbers_wanted]
    late = [b for a, b in pairwise(order) if b < a]
    lists = (("missing", gaps), ("a fragment is missing of", torn), ("came twice", twice), ("out of order", late))
    said = [f"{what}: record{'' if len(numbers) == 1 else 's'} {ranges(numbers)}" for what, numbers in lists if numbers]
    return said + [
        f"record {record.seq} is {short(got)} on the wire, {short(record.text)} in the log"
        for record in wanted
        if record.seq in came and (got := _text(came[record.seq])) is not None and got != record.text
    ]


def _text(body: Body) -> str | None:
    whole = body.whole
    return None if whole is None else whole.partition(b"\n")[0].decode("latin-1")
