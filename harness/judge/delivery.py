"""What became of a sender's messages at its peer: each arrival with the number it is the arrival of.

In: a `Seen`, sender and receiver. Out: a `Delivery`. Rule: an arrival counts only if it is byte for byte what was sent;
for our stack the receiver has compared it, for the kernel's netconsole it is compared here, with the line that
`guest.numbered` makes of label, number, seed and size, and with the serial console's line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guest.numbered import numbered_line, parse_numbered, size_of
from harness.judge.align import align
from harness.judge.lines import KernelLine, WireLine, body_of, difference, wire_lines
from harness.judge.messages import Key, Message, messages, printed, sendings
from harness.judge.records import Arrival, Sending
from harness.judge.seen import Seen
from harness.judge.words import short


@dataclass(frozen=True, slots=True)
class Came:
    """A message arrived byte-exact."""

    t: float
    key: Key


@dataclass(frozen=True, slots=True)
class Damaged:
    """Something arrived that is not byte for byte a message. `key` is what its header claims, where it claims anything."""

    t: float
    key: Key | None
    why: str


@dataclass(frozen=True)
class Delivery:
    """`came` and `damaged` in order of arrival; `sent` by label as the sends began, then by number."""

    sent: dict[Key, Message]
    came: tuple[Came, ...]
    damaged: tuple[Damaged, ...]

    @property
    def arrived(self) -> set[Key]:
        return {each.key for each in self.came}

    @property
    def lost(self) -> list[Message]:
        """Sent, and never arrived byte-exact."""
        arrived = self.arrived
        return [message for key, message in self.sent.items() if key not in arrived]


def delivery(seen: Seen, sender: str, to: str) -> Delivery:
    """Match everything that arrived at `to` with what `sender` sent."""
    arrivals = [arrival for arrival in seen.records.arrivals if arrival.endpoint == to]
    sent = messages(seen, sender)
    if seen.plan.endpoint(sender).stack == "kernel":
        return _of_lines(seen, sender, sent, arrivals)
    return _of_datagrams(seen, sender, sent, arrivals)


def _of_datagrams(seen: Seen, sender: str, sent: dict[Key, Message], arrivals: Sequence[Arrival]) -> Delivery:
    good = [(arrival, arrival.seq) for arrival in arrivals if arrival.ok and arrival.seq is not None]
    bad = [arrival for arrival in arrivals if not arrival.ok or arrival.seq is None]
    begun = sendings(seen, sender)
    came = [Came(arrival.t, key) for arrival, key in zip(*_keyed(good, sent, begun), strict=True)]
    unsent = {
        each.key: Message(*each.key, 0.0, each.t) for each in came if each.key not in sent
    }  # cut short by a crash
    strange = [Damaged(each.t, _claim(each, sent), each.why or _text(each)) for each in bad]
    return Delivery(_by_label(sent | unsent), tuple(came), tuple(strange))


def _keyed(
    good: Sequence[tuple[Arrival, int]], sent: dict[Key, Message], begun: dict[str, Sending]
) -> tuple[list[Arrival], list[Key]]:
    """Give each arrival its label: its own, or the one whose numbers it fits in order of sending."""
    wanted = list(sent)
    found = align([seq for _, seq in wanted], [seq for _, seq in good])
    fits = {observed: wanted[place] for place, observed in found.matched.items()}
    fits |= {observed: wanted[place] for observed, place in found.duplicated}
    labels = list(begun) or [""]
    keys = [
        (arrival.label, seq) if arrival.label is not None else fits.get(number, (labels[-1], seq))
        for number, (arrival, seq) in enumerate(good)
    ]
    return [arrival for arrival, _ in good], keys


def _by_label(sent: dict[Key, Message]) -> dict[Key, Message]:
    order = {label: number for number, label in enumerate(dict.fromkeys(label for label, _ in sent))}
    return dict(sorted(sent.items(), key=lambda item: (order[item[0][0]], item[0][1])))


def _claim(arrival: Arrival, sent: dict[Key, Message]) -> Key | None:
    if arrival.seq is None:
        return None
    fit = next((key for key in sent if key[1] == arrival.seq), ("", arrival.seq))
    return fit if arrival.label is None else (arrival.label, arrival.seq)


def _text(arrival: Arrival) -> str:
    return "no message" if arrival.text is None else f"text {short(arrival.text)}"


def _of_lines(seen: Seen, sender: str, sent: dict[Key, Message], arrivals: Sequence[Arrival]) -> Delivery:
    begun, shown = sendings(seen, sender), printed(seen)
    came: list[Came] = []
    damaged: list[Damaged] = []
    for line in wire_lines(arrivals, seen.plan.endpoint(sender).extended, seen.stamped):
        numbered = parse_numbered(line.text)
        if numbered is None or numbered.label not in begun:
            continue  # the kernel's own messages share the console
        key = (numbered.label, numbered.seq)
        if wrong := _wrong(line, key, begun[numbered.label], shown.get(key)):
            damaged.append(Damaged(line.t, key, wrong))
        else:
            came.append(Came(line.t, key))
    unsent = {each.key: Message(*each.key, 0.0, each.t) for each in came if each.key not in sent}
    return Delivery(_by_label(sent | unsent), tuple(came), tuple(damaged))


def _wrong(line: WireLine, key: Key, sending: Sending, shown: KernelLine | None) -> str | None:
    """How a line differs from the message's, and from the console's; None when it is both."""
    label, seq = key
    if seq >= sending.total:
        return f"the numbers end at {sending.total - 1}"
    wanted = numbered_line(label, seq, sending.seed, size_of(sending.seed, seq, *sending.size))
    if body_of(line.text) != wanted:
        return difference(body_of(line.text), wanted)
    if shown is not None and line.text != shown.text:
        return f"unlike the console's line: {difference(line.text, shown.text)}"
    return None
