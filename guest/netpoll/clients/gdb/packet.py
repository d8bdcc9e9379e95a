"""RSP framing: `$data#cc`, acknowledgements, escapes and run lengths ("Overview" of the GDB manual's appendix).

In: bytes as they come, in any pieces. Out: events, and frames. The rule it keeps: whatever comes, memory is bounded by
MAX_PACKET and nothing raises; a packet whose checksum is wrong is an event, not data.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from itertools import groupby

MAX_PACKET = 4096  # bytes of a packet's data as they are on the wire
_ESCAPED = frozenset(b"#$}*")
_RUN_MAX = 126 - 29  # the count is a printable character, 29 above the number of repeats
_FORBIDDEN = frozenset(ord(c) - 29 for c in "#$+-")  # counts that would look like framing; the manual bars # and $


class Sign(enum.Enum):
    """What is no packet."""

    ACK = "ack"
    NAK = "nak"
    INTERRUPT = "interrupt"
    BAD = "bad checksum"
    LONG = "too long"


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet's data, unescaped."""

    data: bytes


Event = Sign | Packet
_SIGNS = {ord("+"): Sign.ACK, ord("-"): Sign.NAK, 0x03: Sign.INTERRUPT}
_START = re.compile(rb"[$+\-\x03]")


class Decoder:
    """Bytes to events. What stands between packets and is no sign is skipped, as gdb does."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; the events that they complete."""
        buffer = self._held + data
        events: list[Event] = []
        at = 0
        while (found := _START.search(buffer, at)) is not None:
            event, at = self._take(buffer, found.start())
            if event is None:
                break
            events.append(event)
        else:
            at = len(buffer)
        self._held = buffer[at:]
        return events

    def _take(self, buffer: bytes, at: int) -> tuple[Event | None, int]:
        """One event from `at`, and where it ends; None if its end has not come yet."""
        if buffer[at] in _SIGNS:
            return _SIGNS[buffer[at]], at + 1
        end = buffer.find(b"#", at)
        again = buffer.find(b"$", at + 1, end if end >= 0 else len(buffer))
        if again >= 0:  # the end of the one before was lost: '$' is never inside
            return Sign.BAD, again
        if end < 0 or len(buffer) < end + 3:
            return (Sign.LONG, len(buffer)) if len(buffer) - at > MAX_PACKET + 4 else (None, at)
        if end - at > MAX_PACKET + 1:
            return Sign.LONG, end + 3
        body = buffer[at + 1 : end]
        plain = decode(body) if _matches(body, buffer[end + 1 : end + 3]) else None
        return (Sign.BAD if plain is None else Packet(plain)), end + 3


def _matches(body: bytes, digits: bytes) -> bool:
    try:
        return len(digits.strip()) == 2 and int(digits, 16) == sum(body) % 256
    except ValueError:
        return False


def decode(body: bytes) -> bytes | None:
    """Undo escapes and run lengths; None if that cannot be, or comes to more than MAX_PACKET bytes."""
    out = bytearray()
    octets = iter(body)
    for octet in octets:
        if octet == ord("}"):
            following = next(octets, None)
            if following is None:
                return None
            out.append(following ^ 0x20)
        elif octet == ord("*"):
            repeats = next(octets, 0) - 29
            if repeats < 3 or not out:
                return None
            out += out[-1:] * repeats
        else:
            out.append(octet)
        if len(out) > MAX_PACKET:
            return None
    return bytes(out)


def encode(data: bytes) -> bytes:
    """Escape, and shorten runs (long rows of zeros are what memory is full of)."""
    return b"".join(_run(octet, len(list(group))) for octet, group in groupby(data))


def _run(octet: int, count: int) -> bytes:
    one = bytes((ord("}"), octet ^ 0x20)) if octet in _ESCAPED else bytes((octet,))
    if len(one) > 1:  # how a run of an escaped byte would be read is not said anywhere
        return one * count
    parts = []
    while count:
        repeats = min(count - 1, _RUN_MAX)
        while repeats in _FORBIDDEN:
            repeats -= 1
        parts.append(one + bytes((ord("*"), repeats + 29)) if repeats >= 3 else one)
        count -= 1 + (repeats if repeats >= 3 else 0)
    return b"".join(parts)


def frame(data: bytes) -> bytes:
    """The packet on the wire."""
    body = encode(data)
    return b"$%s#%02x" % (body, sum(body) % 256)
