"""Console against wire: which lines were lost, damaged, repeated, out of order, or never printed.

In: a `Seen`, the endpoint, the text that ends the comparison. Out: a `Comparison`, which the parity check words and the report
draws. Rule: the serial console is the ground truth; a line on the wire is explained by it or is extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from harness.judge.align import Alignment, align
from harness.judge.arrived import arrivals
from harness.judge.lines import KernelLine, WireLine, stamp_of, wire_lines
from harness.judge.links import CLOCK_SLACK
from harness.judge.seen import CRASH_BEGUN, Seen

ALIKE = 0.6  # a line at least this similar to a lost one is taken for it, damaged
MOST_TRIED = 200  # lost lines that a strange line is compared with


@dataclass(frozen=True)
class Comparison:
    """Console and wire side by side. Indices of `alignment` and `garbled` are into `console` and `wire`."""

    console: tuple[KernelLine, ...]  # from the crash through `until`, or to the console's end
    wire: tuple[WireLine, ...]
    alignment: Alignment  # its `unknown` are garbled, extra, or lines of the time outside
    garbled: tuple[tuple[int, int], ...]  # (console, wire)
    extra: tuple[int, ...]  # wire
    complete: bool  # the console shows `until`
    skipped: int  # records that the serial console says it skipped itself: holes in the ground truth

    @property
    def lost(self) -> tuple[int, ...]:
        """Console lines of which nothing came."""
        damaged = {place for place, _ in self.garbled}
        return tuple(place for place in self.alignment.lost if place not in damaged)

    @property
    def whole(self) -> bool:
        """Each line came once, in order, as it was printed, and nothing else came."""
        found = self.alignment
        return not (found.lost or found.duplicated or found.reordered or self.garbled or self.extra)


def compare(seen: Seen, to: str, until: str) -> Comparison | None:
    """Console against wire; None where the console shows no crash."""
    every = seen.kernel
    bounds = _window(every, seen.crash, until)
    if bounds is None:
        return None
    first, last, complete = bounds
    console = tuple(line for line in every[first : last + 1] if not line.skipped)
    skipped = sum(line.skipped for line in every[first : last + 1])
    wire = _wire(seen, to, every, console)
    alignment = align(_keys(console, wire, complete), [line.text for line in wire])
    strange = [number for number in alignment.unknown if _counts(wire[number], console[0])]
    garbled = _pair(strange, alignment.lost, console, wire)
    mates = {mate for _, mate in garbled}
    extra = [number for number in strange if number not in mates][skipped:]  # what the console skipped is news to it
    return Comparison(console, tuple(wire), alignment, tuple(garbled), tuple(extra), complete, skipped)


def _window(lines: Sequence[KernelLine], crash: float | None, until: str) -> tuple[int, int, bool] | None:
    """Indices of the first and last line to compare, and whether the last is the one with `until`."""
    begun = next((number for number, line in enumerate(lines) if CRASH_BEGUN.search(line.text)), None)
    if begun is None:
        return None
    after = (number for number, line in enumerate(lines) if crash is not None and line.t >= crash)
    first = min(begun, next(after, begun))
    last = next((number for number in range(first, len(lines)) if until in lines[number].text), None)
    return (first, len(lines) - 1, False) if last is None else (first, last, True)


def _wire(seen: Seen, to: str, every: Sequence[KernelLine], console: Sequence[KernelLine]) -> list[WireLine]:
    """Lines at the endpoint, without those that the console shows at another time.

    Without printk stamps equal texts recur, so then only those of the crash's time are looked at.
    """
    extended = seen.plan.endpoint(seen.plan.endpoint(to).peer).extended
    lines = wire_lines(arrivals(seen, to), extended, seen.stamped)
    if not seen.stamped:
        return [line for line in lines if line.t >= console[0].t - CLOCK_SLACK]
    elsewhere = {line.text for line in every} - {line.text for line in console}
    return [line for line in lines if line.text not in elsewhere]


def _keys(console: Sequence[KernelLine], wire: Sequence[WireLine], complete: bool) -> list[str]:
    """What to look for. A console that ends inside a line (a hang) asks for no more than it shows."""
    keys = [line.text for line in console]
    if not complete and keys[-1] not in {line.text for line in wire}:
        keys[-1] = next((line.text for line in wire if line.text.startswith(keys[-1])), keys[-1])
    return keys


def _counts(line: WireLine, first: KernelLine) -> bool:
    """Is a line that the console does not show of the time that is compared? netconsole's own notices are not lines."""
    if line.skipped:
        return False
    stamp = stamp_of(line.text)
    late = stamp is not None and first.stamp is not None and stamp >= first.stamp
    return late or line.t >= first.t - CLOCK_SLACK


def _pair(
    strange: Sequence[int], lost: Sequence[int], console: Sequence[KernelLine], wire: Sequence[WireLine]
) -> list[tuple[int, int]]:
    """Take each strange line for the lost one that it is most like, if it is like any."""
    pairs: list[tuple[int, int]] = []
    left = list(lost)
    for number in strange:
        likeness = [(_alike(wire[number].text, console[place].text), -place) for place in left[:MOST_TRIED]]
        if likeness and max(likeness)[0] >= ALIKE:
            place = -max(likeness)[1]
            pairs.append((place, number))
            left.remove(place)
    return sorted(pairs)


def _alike(got: str, wanted: str) -> float:
    """1 for a line that is the beginning of the other, else the share of text in common."""
    if stamp_of(got) is not None and got == wanted[: len(got)]:
        return 1.0
    matcher = SequenceMatcher(None, got, wanted, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= ALIKE else 0.0
