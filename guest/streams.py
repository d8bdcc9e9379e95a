"""Numbered streams by name: which message a payload is, and whether it came byte for byte.

In: the streams that a plan announces, payloads. Out: label, number and judgement. Rule: whoever shares only the plan with the
sender can name each of its messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from guest.netpoll.clients.sequence import HEADER, HEADER_LENGTH, MAGIC, Generator, Receiver, Stream, Why


def stream_of(plan: Mapping[str, Any]) -> Stream:
    """The stream that a plan describes. Raises ValueError."""
    return Stream(int(plan["seed"]), int(plan["count"]), int(plan["size_low"]), int(plan["size_high"]))


class Streams:
    """Receivers of streams, each with the label of the step that sends it."""

    def __init__(self, plans: Iterable[Mapping[str, Any]]) -> None:
        self._known = {Generator(stream_of(plan)).stream_id: _receiver(plan) for plan in plans}

    def __bool__(self) -> bool:
        return bool(self._known)

    def __contains__(self, payload: bytes) -> bool:
        """Does the payload say that it is of one of these streams?"""
        return stream_id(payload) in self._known

    def judge(self, payload: bytes) -> dict[str, Any]:
        """`label`, `seq`, `ok` and `why` of a payload, as evidence has them. A foreign one has neither label nor number."""
        for label, receiver in self._candidates(payload):
            arrival = receiver.receive(payload)
            if arrival.why is not Why.FOREIGN:
                return {"label": label, "seq": arrival.seq, "ok": arrival.ok, "why": arrival.why.value}
        return {"label": None, "seq": None, "ok": False, "why": Why.FOREIGN.value}

    def _candidates(self, payload: bytes) -> list[tuple[str, Receiver]]:
        """The stream that it names; where its header is cut short, any may say so."""
        known = self._known.get(stream_id(payload))
        return [known] if known else list(self._known.values())[:1]


def _receiver(plan: Mapping[str, Any]) -> tuple[str, Receiver]:
    return str(plan["label"]), Receiver(stream_of(plan))


def stream_id(payload: bytes) -> int:
    """The stream that a payload says it is of; -1 for what is no numbered message."""
    if len(payload) < HEADER_LENGTH or not payload.startswith(MAGIC):
        return -1
    return int(HEADER.unpack_from(payload)[1])


def sequence(payload: bytes) -> int:
    """The number that a payload claims; it must have a stream_id()."""
    return int(HEADER.unpack_from(payload)[2])
