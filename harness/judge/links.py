"""What the links were doing: when each NIC's link was down, and the state of links, carriers and bonds at any time.

In: `inject link`, `guest carrier` and `guest bond` records. Out: `Down` periods of a NIC and sentences. Rule: a carrier that
has never been up is a NIC still coming up, not a link that was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from harness.judge.records import Link, Records
from harness.judge.words import at

CLOCK_SLACK = 0.05
"""Seconds by which a guest's and the host's stamp of the same moment may differ: guest times are translated with one
offset measured at the start, and `inject link` is written after QEMU answered, when the guest may already have noticed."""


@dataclass(frozen=True)
class Down:
    """One period without link. Times are None where that side was never seen."""

    cut: float | None = None  # set_link down was confirmed
    seen: float | None = None  # the guest saw its carrier go
    restored: float | None = None  # set_link up was confirmed
    back: float | None = None  # the guest saw its carrier come back
    silent: bool = False  # cut in a way that the guest cannot see
    recut: float | None = None  # restored, and cut again before the guest saw its carrier come back

    @property
    def begin(self) -> float:
        """The earliest moment at which the link may have been down."""
        return min(t for t in (self.cut, self.seen) if t is not None) - CLOCK_SLACK

    @property
    def end(self) -> float:
        """The latest moment at which it may have been down; inf when it never came back."""
        last = self.restored if self.seen is None else None
        return (self.back if self.back is not None else inf if last is None else last) + CLOCK_SLACK

    @property
    def surely(self) -> tuple[float, float] | None:
        """Between these the guest knew that its carrier was down, or nothing could pass without its knowing; None if neither."""
        if self.seen is None:
            return (self.cut, inf if self.restored is None else self.restored) if self.silent and self.cut else None
        return self.seen, min((t for t in (self.restored, self.back) if t is not None), default=inf)

    def __str__(self) -> str:
        words = [
            f"cut at {at(self.cut)}" if self.cut is not None else "",
            f"carrier gone at {at(self.seen)}" if self.seen is not None else "carrier loss never seen",
            f"restored at {at(self.restored)}" if self.restored is not None else "",
            f"carrier back at {at(self.back)}" if self.back is not None else "",
        ]
        return ", ".join(word for word in words if word)


SILENT = ("tap", "tap-gone", "filter", "rip")  # how a link is cut without the guest's seeing it


def downs(records: Records, nic: str, way: str = "both") -> list[Down]:
    """The periods in which `nic` had no link, by time; with `way` also those in which it had none in that direction."""
    own = [link for link in records.cuts if link.nic == nic and link.way in ("both", way)]
    silent = {link.t for link in own if link.by in SILENT}
    changes = [(link.t, "cut" if not link.up else "restored") for link in own]
    found = _periods(records, nic, changes)
    return [replace(period, silent=period.cut in silent) for period in found]


def _periods(records: Records, nic: str, changes: list[tuple[float, str]]) -> list[Down]:
    changes += [(link.t, "seen" if not link.up else "back") for link in records.carriers if link.nic == nic]
    found: list[Down] = []
    was_up = False
    for t, change in sorted(changes):
        was_up = was_up or change in ("back", "cut")
        if was_up:
            _CHANGES[change](found, t)
    return found


def _open(found: list[Down]) -> bool:
    return bool(found) and found[-1].back is None


def _cut(found: list[Down], t: float) -> None:
    last = found[-1] if _open(found) else None
    if last and last.seen is not None:  # the guest is still without carrier, or noticed just before QEMU answered
        recut = None if last.restored is None else t
        found[-1] = replace(last, cut=t if last.cut is None else last.cut, restored=None, recut=recut)
    elif not last or last.restored is not None:
        found.append(Down(cut=t))


def _seen(found: list[Down], t: float) -> None:
    if not _open(found):
        found.append(Down(seen=t))
    elif found[-1].seen is None:
        found[-1] = replace(found[-1], seen=t)


def _restored(found: list[Down], t: float) -> None:
    """The guest's word that its carrier is back may come just before QEMU's answer does."""
    if found and (found[-1].back is None or t - found[-1].back < CLOCK_SLACK):
        found[-1] = replace(found[-1], restored=t, recut=None)


def _back(found: list[Down], t: float) -> None:
    """What comes back after the link was cut again is the carrier of before: the guest has yet to see the second cut."""
    if _open(found) and (found[-1].seen is not None or found[-1].restored is not None):
        recut = found[-1].recut
        found[-1] = replace(found[-1], back=t, recut=None)
        found.extend([Down(cut=recut)] if recut is not None else [])


_CHANGES = {"cut": _cut, "seen": _seen, "restored": _restored, "back": _back}


def down_at(periods: Sequence[Down], first: float, last: float) -> bool:
    """May the link have been down at some time in [first, last]?"""
    return any(period.begin <= last and first <= period.end for period in periods)


def surely_down(periods: Sequence[Down], first: float, last: float) -> bool:
    """Was the whole of [first, last] in a time when the guest knew that its carrier was down?"""
    return any(sure[0] <= first and last <= sure[1] for period in periods if (sure := period.surely))


def state_at(records: Records, t: float) -> str:
    """Links, carriers and bonds as last seen at `t`: `nic0 link down since 3.210 s, carrier up; bond0 active nic1`."""
    links = _last(records.cuts, t)
    carriers = _last(records.carriers, t)
    words = [_state(nic, links.get(nic), carriers.get(nic)) for nic in sorted(links.keys() | carriers.keys())]
    actives = {active.bond: active.slave for active in records.actives if active.t <= t}
    words += [f"{bond} active {slave or 'none'}" for bond, slave in sorted(actives.items())]
    return "; ".join(words) or "no link was touched and no carrier change was seen"


def _last(links: Sequence[Link], t: float) -> dict[str, Link]:
    return {link.nic: link for link in sorted(links) if link.t <= t}


def _state(nic: str, link: Link | None, carrier: Link | None) -> str:
    parts = [f"link {'up' if link.up else 'down'} since {at(link.t)}"] if link else []
    parts += [f"carrier {'up' if carrier.up else 'down'}"] if carrier else []
    return f"{nic} {', '.join(parts)}"
