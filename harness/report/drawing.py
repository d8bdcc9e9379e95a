"""A timeline as inline SVG with its labels in HTML: one picture that is as wide as its page, down to a phone's.

In: a `Timeline` and bounds. Out: a `Picture`: SVG without any text (it is stretched), and labels with their places in percent for the
template to put over it. Rule: compact, since a report may hold hundreds: what is dense becomes one path per lane.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10

from markupsafe import Markup

from harness.judge.words import runs
from harness.report.timeline import Lane, Mark, Timeline

WIDE = 1000  # units of the picture's width, whatever it is on the screen
BINS = 250  # places in which moments are counted
_LEVEL = re.compile(rf"(?:h{WIDE // BINS}){{2,}}")  # columns of one height
FINE = 2  # units: marks closer than that are one
TALL = 24  # units and pixels of a lane's height
NEAR = 45  # units: injections closer than that share a badge
NAMED = {"event", "bad", "crash"}  # of these marks the first has its words beside it
TICKS = 6  # about so many on the axis


@dataclass(frozen=True)
class Label:
    """Text over the picture: place and width in percent. `right`: it ends there instead of beginning."""

    left: float
    width: float
    text: str
    right: bool = False


@dataclass(frozen=True)
class Row:
    """A lane's name, what it counts, and the labels over it."""

    name: str
    count: str
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Picture:
    """`svg` has `height` pixels and any width; `rows` are its lanes from the top; `axis` are times in seconds."""

    title: str
    svg: Markup
    height: int
    rows: tuple[Row, ...]
    axis: tuple[Label, ...]


def draw(found: Timeline, begin: float, end: float, title: str) -> Picture:
    """The lanes that have something to show between two times, in seconds of the case."""
    scale = _Scale(begin, end)
    parts: list[str] = []
    lanes = [lane for lane in found.lanes if _shows(lane, scale)]
    height = len(lanes) * TALL
    if found.crash is not None and begin <= found.crash <= end:
        x = scale.x(found.crash)
        parts.append(f'<path class=after d="M{x} 0H{WIDE}V{height}H{x}z"/>')
    for number, lane in enumerate(lanes):
        parts.extend(_lane(lane, number * TALL, scale))
    body = "".join(parts)
    svg = f'<svg viewBox="0 0 {WIDE} {height}" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'
    rows = tuple(Row(lane.name, _count(lane, scale), tuple(_labels(lane, scale))) for lane in lanes)
    return Picture(title, Markup(svg), height, rows, tuple(_axis(scale)))


@dataclass(frozen=True)
class _Scale:
    begin: float
    end: float

    def x(self, t: float) -> int:
        return round(min(max((t - self.begin) / (self.end - self.begin), 0.0), 1.0) * WIDE)

    def holds(self, t: float) -> bool:
        return self.begin <= t <= self.end


def _shows(lane: Lane, scale: _Scale) -> bool:
    """A wire without frames says something, too."""
    moments = [*lane.above, *lane.below, *(mark.t for mark in lane.marks)]
    lasting = any(span.begin <= scale.end and span.end >= scale.begin for span in lane.spans)
    return lasting or lane.name.startswith("wire ") or any(map(scale.holds, moments))


def _lane(lane: Lane, top: int, scale: _Scale) -> Iterator[str]:
    yield from _bands(lane, top, scale)
    most = max([*_binned(lane.above, scale).values(), *_binned(lane.below, scale).values()], default=0)
    both = bool(lane.below)
    for moments, base, room in (
        (lane.above, top + (12 if both else TALL - 2), 10 if both else 20),
        (lane.below, top + 13, -9),
    ):
        if shape := _steps(_binned(moments, scale), most, base, room):
            yield f'<path class={"n" if room > 0 else "m"} d="{shape}"/>'
    for style in dict.fromkeys(mark.style for mark in lane.marks):
        if shape := _ticks(
            (scale.x(mark.t) for mark in lane.marks if mark.style == style and scale.holds(mark.t)), top
        ):
            yield f'<path class="k {style}" d="{shape}"/>'


def _bands(lane: Lane, top: int, scale: _Scale) -> Iterator[str]:
    for style in dict.fromkeys(span.style for span in lane.spans):
        shape = ""
        for span in lane.spans:
            x, until = scale.x(span.begin), scale.x(span.end)
            if span.style == style and span.begin <= scale.end and span.end >= scale.begin and until > x:
                shape += f"M{x} {top + 4}h{until - x}v{TALL - 8}h{x - until}z"
        if shape:
            yield f'<path class="b {style}" d="{shape}"/>'


def _binned(moments: Iterable[float], scale: _Scale) -> Counter[int]:
    return Counter(scale.x(t) * BINS // (WIDE + 1) for t in moments if scale.holds(t))


def _steps(counts: Counter[int], most: int, base: int, room: int) -> str:
    """Columns over `base`, `room` units high where `most` were counted; each doubling is a step of its own."""
    width, shape, at, last, high = WIDE // BINS, "", 0, -2, 0
    for place in sorted(counts):
        if place != last + 1:
            shape += (f"v{high}" if shape else f"M0 {base}") + f"m{place * width - at} 0"
            at, high = place * width, 0
        tall = max(round(log2(1 + counts[place]) / log2(1 + most) * abs(room)), 2) * (1 if room > 0 else -1)
        shape += (f"v{high - tall}" if tall != high else "") + f"h{width}"
        at, last, high = at + width, place, tall
    return _LEVEL.sub(lambda level: f"h{len(level[0]) // 2 * width}", shape + f"v{high}") if shape else ""


def _ticks(places: Iterable[int], top: int) -> str:
    """Bars over a whole lane; those that touch are one."""
    shape = ""
    for first, last in runs(place // FINE for place in places):
        wide = (last - first + 1) * FINE
        shape += f"M{first * FINE} {top + 1}h{wide}v{TALL - 2}h-{wide}z"
    return shape


def _count(lane: Lane, scale: _Scale) -> str:
    """What the lane counts: `137`, or `131 out, 6 in` for a wire; nothing for states."""
    above, below = (sum(map(scale.holds, moments)) for moments in (lane.above, lane.below))
    if lane.name.startswith("wire "):
        return f"{above} out, {below} in"
    return str(above) if lane.above else ""


def _labels(lane: Lane, scale: _Scale) -> Iterator[Label]:
    """Names of states and steps, and the numbers of injections."""
    for number, span in enumerate(lane.spans):
        x, until = scale.x(span.begin), scale.x(span.end)
        if until > x and span.begin <= scale.end and span.end >= scale.begin:
            text = span.label if span.style != "step" else str(span.label).partition(":")[0]
            yield Label(x * 100 / WIDE, (until - x) * 100 / WIDE, text or str(number))
    named = [mark for mark in lane.marks if mark.style in NAMED and scale.holds(mark.t)] if not lane.above else []
    if named:
        yield _beside(scale.x(min(named).t) * 100 / WIDE, min(named).label)
    yield from _badges([mark for mark in lane.marks if mark.style == "inject"], scale)


def _beside(place: float, text: str) -> Label:
    """On the side of a mark that has more room."""
    return Label(place, 100 - place, text) if place < 60 else Label(0, place, text, right=True)


def _badges(marks: Sequence[Mark], scale: _Scale) -> Iterator[Label]:
    """Injections by number; those that would cover each other share a badge."""
    groups: list[list[int]] = []
    ordered = sorted(marks)
    for number, mark in enumerate(ordered, 1):
        if not scale.holds(mark.t):
            continue
        if groups and scale.x(mark.t) - scale.x(ordered[groups[-1][0] - 1].t) < NEAR:
            groups[-1].append(number)
        else:
            groups.append([number])
    for group in groups:
        text = str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}"
        yield Label(scale.x(ordered[group[0] - 1].t) * 100 / WIDE, 0, text)


def _axis(scale: _Scale) -> Iterator[Label]:
    """Round times."""
    step = _round_step((scale.end - scale.begin) / TICKS)
    digits = max(0, -floor(log10(step)))
    for number in range(ceil(scale.begin / step), floor(scale.end / step) + 1):
        yield Label(scale.x(number * step) * 100 / WIDE, 0, f"{number * step:.{digits}f}")


def _round_step(least: float) -> float:
    power = 10 ** floor(log10(least))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999))
