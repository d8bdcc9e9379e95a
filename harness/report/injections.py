"""What was done to the machine, in words: one sentence for any event, whatever its kind.

In: events. Out: text. Rule: nothing here knows the kinds, so a new injection is told without a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.judge.records import Event

OWN = {"t", "src", "kind", "guest_t", "wall_ns"}
MOST = 200  # characters of one sentence


@dataclass(frozen=True, order=True)
class Injection:
    """`t`: seconds of the case, when QEMU or the device had obeyed, or just before the crash was asked for."""

    t: float
    text: str


def injections(events: Iterable[Event]) -> tuple[Injection, ...]:
    """All of a case, by time."""
    return tuple(sorted(Injection(float(event["t"]), label(event)) for event in events if event["src"] == "inject"))


def label(event: Event) -> str:
    """An event as its kind and the values of its own keys: `link n0 down`, `fault n0 begin=drop chance=0.5`."""
    words = [word for key, value in event.items() if key not in OWN for word in _words(value)]
    text = " ".join([str(event["kind"]), *words])
    return text if len(text) <= MOST else text[: MOST - 1] + "…"


def _words(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}={inner}" for key, inner in value.items() if inner is not None]
    return [] if value is None else [str(value)]
