"""Messages of a sender: which were handed over and when, and which went through the drop routine.

In: `sending`, `sent`, `kmsg`, `done`, `dropped`, `queued` and `late` records. Out: one `Message` per number and label. Rule: a
message's time is an interval that surely holds it, because numbers are recorded in ranges; whoever needs a moment
must be content with the interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guest.numbered import parse_numbered
from harness.judge.lines import KernelLine
from harness.judge.records import Handled, Range, Sending
from harness.judge.seen import Seen

Key = tuple[str, int]  # label, number


@dataclass(frozen=True, slots=True)
class Message:
    """One numbered message; it was handed over between `first` and `last` (case time)."""

    label: str
    seq: int
    first: float
    last: float

    @property
    def key(self) -> Key:
        return self.label, self.seq


def sendings(seen: Seen, endpoint: str) -> dict[str, Sending]:
    """The sends of an endpoint by label, in the order in which they began."""
    own = [sending for sending in seen.records.sending if sending.endpoint == endpoint]
    return {sending.label: sending for sending in sorted(own, key=lambda sending: sending.t)}


def unfinished(seen: Seen, endpoint: str) -> list[Sending]:
    """Sends that began and neither finished nor were interrupted by the crash."""
    done = {(done.endpoint, done.label) for done in seen.records.done}
    if seen.crash is not None or seen.panic is not None:
        return []
    return [sending for sending in sendings(seen, endpoint).values() if (endpoint, sending.label) not in done]


def messages(seen: Seen, endpoint: str) -> dict[Key, Message]:
    """What `endpoint` handed over: to netpoll_send_udp, or to /dev/kmsg for a kernel endpoint.

    The kernel's messages have the moment at which the console printed them, where it did: serial port and netconsole
    are fed by one loop. Order: by label as the sends began, then by number.
    """
    kernel = seen.plan.endpoint(endpoint).stack == "kernel"
    ranges = [each for each in (seen.records.kmsg if kernel else seen.records.sent) if each.endpoint == endpoint]
    begun = sendings(seen, endpoint)
    labels = dict.fromkeys([*begun, *(each.label for each in ranges)])
    found: dict[Key, Message] = {}
    for label in labels:
        since = begun[label].t if label in begun else 0.0
        found |= _of_label([each for each in ranges if each.label == label], since)
    return found | _printed(seen, found) if kernel else found


def _of_label(ranges: Sequence[Range], since: float) -> dict[Key, Message]:
    found: list[Message] = []
    for each in sorted(ranges, key=lambda each: each.last):
        found += [Message(each.label, seq, min(since, each.t), each.t) for seq in range(each.first, each.last + 1)]
        since = each.t
    return {message.key: message for message in found}


def _printed(seen: Seen, handed: dict[Key, Message]) -> dict[Key, Message]:
    """Handed-over kernel messages with the time at which the console showed them."""
    shown = printed(seen)
    return {key: Message(*key, shown[key].t, shown[key].t) for key in handed if key in shown}


def printed(seen: Seen) -> dict[Key, KernelLine]:
    """Numbered lines on the serial console; the first where one is there twice."""
    found: dict[Key, KernelLine] = {}
    for line in seen.kernel:
        if numbered := parse_numbered(line.text):
            found.setdefault((numbered.label, numbered.seq), line)
    return found


def keys(handled: Iterable[Handled], endpoint: str) -> dict[Key, Handled]:
    """By label and number, in order of the events; the first where a message has several."""
    found: dict[Key, Handled] = {}
    for each in handled:
        if each.endpoint == endpoint:
            found.setdefault((each.label, each.seq), each)
    return found
