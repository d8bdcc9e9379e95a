"""The place where a case went wrong: a few lines on both sides of the first lost or wrong one.

In: plan, events and the check that failed. Out: a `Scene` to draw, or None where there are no lines to show. Rule: what is
shown is computed by the judge's own functions, so the picture and the verdict cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.frozen import Frozen
from harness.judge.comparison import Comparison, compare
from harness.judge.delivery import Delivery, delivery
from harness.judge.links import CLOCK_SLACK, state_at
from harness.judge.messages import Key, keys, printed
from harness.judge.seen import Seen
from harness.judge.words import at
from harness.report.injections import Injection
from harness.scenario.model import Expect

SHOWN = 5  # lines around the first wrong one


@dataclass(frozen=True)
class Row:
    """One line on both sides. `mark` is a word for what is wrong with it, or empty."""

    number: str
    left: str
    mark: str
    right: str


@dataclass(frozen=True)
class Scene:
    """Headings, rows, what links and bonds were doing at the first wrong line, and what had been done to the machine."""

    left: str
    right: str
    rows: tuple[Row, ...]
    state: str
    done: tuple[str, ...]  # what had been injected until then


@dataclass(frozen=True, order=True)
class Loss:
    """A line that is wrong, at the time when it was printed; or a message of our stack's, when `sender` had handed it over."""

    t: float
    mark: str
    text: str
    sender: str = ""  # empty: the kernel's console


def given(expect: Expect) -> Frozen:
    """The one expectation that is given."""
    found: Frozen = next(value for name in type(expect).model_fields if (value := getattr(expect, name)) is not None)
    return found


def scene(expect: Expect, seen: Seen, done: Sequence[Injection] = ()) -> Scene | None:
    """The scene of a failed expectation."""
    if (found := _comparison(expect, seen)) is not None:
        return _of_lines(found, seen, done)
    pair = _ends(expect, seen)
    return _of_messages(*pair, seen, done) if pair else None


def everything(expect: Expect, seen: Seen, most: int) -> Scene | None:
    """All lines of a comparison, or none when they are more than `most`."""
    found = _comparison(expect, seen)
    if found is None or len(found.console) > most:
        return None
    marks = _marks(found)
    rows = tuple(_line_row(found, place, marks.get(place, "")) for place in range(len(found.console)))
    return Scene("serial console", "wire", rows, "", ())


def losses(expect: Expect, seen: Seen) -> Iterator[Loss]:
    """Everything that an expectation's comparison finds wrong, whether that was expected or not."""
    if (found := _comparison(expect, seen)) is not None:
        for place, mark in _marks(found).items():
            yield Loss(found.console[place].t, mark, found.console[place].text)
    elif pair := _ends(expect, seen):
        sender = "" if seen.plan.endpoint(pair[0]).stack == "kernel" else pair[0]
        for message in delivery(seen, *pair).lost:
            yield Loss(message.last, "lost", f"{message.label} {message.seq}", sender)


def _comparison(expect: Expect, seen: Seen) -> Comparison | None:
    """Console against wire, for an expectation that is about printed lines up to `until`."""
    value = given(expect)
    until, to = getattr(value, "until", None), getattr(value, "to", None)
    return compare(seen, to, until) if isinstance(until, str) and isinstance(to, str) else None


def _ends(expect: Expect, seen: Seen) -> tuple[str, str] | None:
    """Sender and receiver of an expectation that is about messages: it names both, or the sender alone."""
    value, names = given(expect), {endpoint.id for endpoint in seen.plan.endpoints}
    sender = getattr(value, "from_", None) or getattr(value, "by", None)
    if sender not in names:
        return None
    to = getattr(value, "to", None) or seen.plan.endpoint(sender).peer
    return (sender, to) if to in names else None


def _near(first: int, total: int) -> range:
    """SHOWN places around the first wrong one, as many as there are."""
    begin = max(0, min(first - SHOWN // 2, total - SHOWN))
    return range(begin, min(total, begin + SHOWN))


def _marks(found: Comparison) -> dict[int, str]:
    """Console lines with what is wrong with them."""
    marks: dict[int, str] = {place: "again" for _, place in found.alignment.duplicated}
    marks |= dict.fromkeys(found.alignment.reordered, "moved")
    marks |= dict.fromkeys(found.lost, "lost")
    marks |= {place: "damaged" for place, _ in found.garbled}
    if not found.complete:
        marks.setdefault(len(found.console) - 1, "last")
    return marks


def _of_lines(found: Comparison, seen: Seen, done: Sequence[Injection]) -> Scene | None:
    marks = _marks(found)
    if not marks:
        return None
    first = min(marks)
    rows = [_line_row(found, place, marks.get(place, "")) for place in _near(first, len(found.console))]
    return Scene("serial console", "wire", tuple(rows), *_then(seen, done, found.console[first].t))


def _then(seen: Seen, done: Sequence[Injection], t: float) -> tuple[str, tuple[str, ...]]:
    """What links and bonds were doing at `t`, and what had been done to the machine until then."""
    return state_at(seen.records, t), tuple(
        f"{each.text} at {at(each.t)}" for each in done if each.t <= t + CLOCK_SLACK
    )


def _line_row(found: Comparison, place: int, mark: str) -> Row:
    damaged = dict(found.garbled)
    number = damaged.get(place, found.alignment.matched.get(place))
    return Row(str(place + 1), found.console[place].text, mark, "" if number is None else found.wire[number].text)


def _of_messages(sender: str, to: str, seen: Seen, done: Sequence[Injection]) -> Scene | None:
    found = delivery(seen, sender, to)
    lost = {message.key for message in found.lost}
    first = next((number for number, key in enumerate(found.sent) if key in lost), None)
    if first is None:
        return None
    sent = list(found.sent)
    rows = [_message_row(sent[place], found, sender, seen) for place in _near(first, len(sent))]
    when = list(found.sent.values())[first].last
    left = "serial console" if seen.plan.endpoint(sender).stack == "kernel" else "handed over"
    return Scene(left, f"at {to}", tuple(rows), *_then(seen, done, when))


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
