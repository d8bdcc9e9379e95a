"""Plain netconsole packets as lines, to be compared with another console.

In: UDP payloads in order of capture. Out: `Line`s that know which packets they came from. The rule it keeps: text is
never invented or thrown away; where a piece is known to be lost, the line says so (`whole`), and is not glued to the next.

A packet is one record with its newline, usually. A record of over 1000 bytes is cut anywhere (`send_msg_udp`), older
kernels send a continued line piece by piece, and a record may hold several lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from guest.netpoll.clients.netconsole.message import decode

MAX_LINE = 64 * 1024  # a "line" that never ends is given out in pieces of this size

RECORD_START = re.compile(rb"(?:<\d{1,4}>)?\[ *\d+\.\d{6}\]|\*\* \d+ printk messages dropped \*\*")
"""What a new record starts with when printk.time is on: after it, an unfinished line cannot be continued."""

_DROPPED = re.compile(r"\*\* (\d+) printk messages dropped \*\*")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of console text, without its newline; `first` and `last` are indices of packets."""

    text: str
    first: int
    last: int
    whole: bool = True  # False: no newline came, so its end was lost or never sent


class LineAssembler:
    """Turns packets into lines as they come. `starts_line` None joins whatever follows an unfinished line."""

    def __init__(self, starts_line: re.Pattern[bytes] | None = RECORD_START) -> None:
        self._starts_line = starts_line
        self._packets = 0
        self._pending = b""
        self._since = 0

    def feed(self, packet: bytes) -> list[Line]:
        """The lines that this packet ends, and the one that it proves to have been cut off."""
        index = self._packets
        cut = self.finish() if self._starts_line and self._starts_line.match(packet) else []
        self._packets += 1
        if not self._pending:
            self._since = index
        *ended, self._pending = (self._pending + packet).split(b"\n")
        found = [Line(line_text(raw), index if at else self._since, index) for at, raw in enumerate(ended)]
        if ended:
            self._since = index
        if len(self._pending) > MAX_LINE:
            found += self.finish()
        return cut + found

    def finish(self) -> list[Line]:
        """Nothing more continues what is pending: give it out as a line that is not whole."""
        if not self._pending:
            return []
        line = Line(line_text(self._pending), self._since, self._packets - 1, whole=False)
        self._pending = b""
        return [line]


def lines_of(packets: Iterable[bytes], starts_line: re.Pattern[bytes] | None = RECORD_START) -> list[Line]:
    """All lines of a capture; the last may not be whole."""
    assembler = LineAssembler(starts_line)
    found = [line for packet in packets for line in assembler.feed(packet)]
    return found + assembler.finish()


def line_text(raw: bytes) -> str:
    r"""A raw line as text; of a serial console too, whose lines end in \r\n. Not UTF-8 becomes `\xHH`."""
    return decode(raw.rstrip(b"\r"))


def dropped_messages(text: str) -> int:
    """How many records this line says the sender's console had to skip (its own notice, not on other consoles)."""
    match = _DROPPED.match(text)
    return int(match[1]) if match else 0
