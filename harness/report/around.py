"""The place where a case went wrong: a few lines on both sides of the first lost or wrong one.

In: plan, events and the check that failed. Out: a `Scene` to draw, or None where there are no lines to show. Rule: what is
shown is computed by the judge's own functions, so the picture and the verdict cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.judge.comparison import Comparison, compare
from harness.judge.delivery import Delivery, delivery
from harness.judge.links import state_at
from harness.judge.messages import Key, keys, printed
from harness.judge.seen import Seen
from harness.scenario.model import Expect

BESIDE = 2  # lines before and after the first wrong one


@dataclass(frozen=True)
class Row:
    """One line on both sides. `mark` is a word for what is wrong with it, or empty."""

    number: str
    left: str
    mark: str
    right: str


@dataclass(frozen=True)
class Scene:
    """Headings, rows, and what links and bonds were doing at the first wrong line."""

    left: str
    right: str
    rows: tuple[Row, ...]
    state: str


def scene(expect: Expect, seen: Seen) -> Scene | None:
    """The scene of a failed expectation."""
    if expect.parity is not None:
        found = compare(seen, expect.parity.to, expect.parity.until)
        return _of_lines(found, seen) if found else None
    pair = _ends(expect, seen)
    return _of_messages(*pair, seen) if pair else None


def _ends(expect: Expect, seen: Seen) -> tuple[str, str] | None:
    """Sender and receiver of an expectation that is about messages."""
    for each in (expect.delivered, expect.lost_only_while_down):
        if each is not None:
            return each.from_, each.to
    for one in (expect.dropped, expect.queued_delivered):
        if one is not None:
            return one.by, seen.plan.endpoint(one.by).peer
    return None


def _of_lines(found: Comparison, seen: Seen) -> Scene | None:
    marks: dict[int, str] = {place: "again" for _, place in found.alignment.duplicated}
    marks |= dict.fromkeys(found.alignment.reordered, "moved")
    marks |= dict.fromkeys(found.lost, "lost")
    marks |= {place: "damaged" for place, _ in found.garbled}
    if not found.complete:
        marks.setdefault(len(found.console) - 1, "last")
    if not marks:
        return None
    first = min(marks)
    places = range(max(0, first - BESIDE), min(len(found.console), first + BESIDE + 1))
    rows = [_line_row(found, place, marks.get(place, "")) for place in places]
    return Scene("serial console", "wire", tuple(rows), state_at(seen.records, found.console[first].t))


def _line_row(found: Comparison, place: int, mark: str) -> Row:
    damaged = dict(found.garbled)
    number = damaged.get(place, found.alignment.matched.get(place))
    return Row(str(place + 1), found.console[place].text, mark, "" if number is None else found.wire[number].text)


def _of_messages(sender: str, to: str, seen: Seen) -> Scene | None:
    found = delivery(seen, sender, to)
    lost = {message.key for message in found.lost}
    first = next((number for number, key in enumerate(found.sent) if key in lost), None)
    if first is None:
        return None
    near = list(found.sent)[max(0, first - BESIDE) : first + BESIDE + 1]
    rows = [_message_row(key, found, sender, seen) for key in near]
    when = list(found.sent.values())[first].last
    left = "serial console" if seen.plan.endpoint(sender).stack == "kernel" else "handed over"
    return Scene(left, f"at {to}", tuple(rows), state_at(seen.records, when))


def _message_row(key: Key, found: Delivery, sender: str, seen: Seen) -> Row:
    shown, message = printed(seen).get(key), found.sent[key]
    left = shown.text if shown else f"{message.first:.3f} to {message.last:.3f} s"
    came = [each.t for each in found.came if each.key == key]
    bad = [each.why for each in found.damaged if each.key == key]
    right = ", ".join([f"{t:.3f} s" for t in came] + bad)
    mark = "" if came else "damaged" if bad else "lost"
    return Row(f"{key[0]} {key[1]}", left, mark, right or _fate(key, sender, seen))


def _fate(key: Key, sender: str, seen: Seen) -> str:
    """What the sender's own stack said of a message that never arrived."""
    fates: Sequence[tuple[str, dict[Key, object]]] = (
        ("queued", dict(keys(seen.records.queued, sender))),
        ("dropped", dict(keys(seen.records.dropped, sender))),
    )
    return next((word for word, every in fates if key in every), "")
