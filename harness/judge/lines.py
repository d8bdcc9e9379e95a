"""Lines of the serial console and lines on the wire, in one form, so that they can be compared as text.

In: console records, and the datagrams at an endpoint. Out: `KernelLine`s and `WireLine`s, each with its time. Rule: text is
taken as it is; what the kernel printed is told from what user space wrote to the same port by the printk time stamp alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from guest.netpoll.clients.netconsole.lines import LineAssembler, dropped_messages, line_text
from guest.netpoll.clients.netconsole.message import (
    FormatError,
    Header,
    Message,
    console_lines,
    parse_body,
    parse_packet,
)
from harness.judge.records import Arrival, Line

STAMP = re.compile(r"\[ *(\d+\.\d{6})\]")


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One line that the kernel printed on the serial console. `stamp` is its printk time, None with printk.time=0."""

    t: float
    text: str
    stamp: float | None = None

    @property
    def skipped(self) -> int:
        """How many records this line says that the serial console itself had to skip."""
        return dropped_messages(self.text)


@dataclass(frozen=True, slots=True)
class WireLine:
    """One line that netconsole sent; `t` is the arrival of the datagram that ended it."""

    t: float
    text: str
    whole: bool = True  # False: its newline, or a fragment, never came

    @property
    def skipped(self) -> int:
        """How many records this line says that netconsole had to skip."""
        return dropped_messages(self.text)


def kernel_lines(console: Sequence[Line]) -> list[KernelLine]:
    """The kernel's part of the console.

    Where any line has a printk stamp, lines without one are user space's; text before a stamp is a line that user space
    had not ended when the kernel wrote (a record is written in one go, so nothing stands inside it). Without any stamp,
    every line counts.
    """
    stamped = any(STAMP.search(line.text) for line in console)
    return [found for line in console if (found := _kernel_line(line, stamped))]


def _kernel_line(line: Line, stamped: bool) -> KernelLine | None:
    if not stamped or dropped_messages(line.text):
        return KernelLine(line.t, line.text)
    match = STAMP.search(line.text)
    return KernelLine(line.t, line.text[match.start() :], float(match[1])) if match else None


def wire_lines(arrivals: Iterable[Arrival], extended: bool, stamped: bool) -> list[WireLine]:
    """The lines in an endpoint's datagrams, in order of arrival. `stamped`: the guest's console shows printk time."""
    texts = [(arrival.t, arrival.text.encode("latin-1", "replace")) for arrival in arrivals if arrival.text is not None]
    return list(_extended(texts, stamped) if extended else _plain(texts))


def _plain(datagrams: Sequence[tuple[float, bytes]]) -> Iterator[WireLine]:
    assembler = LineAssembler()
    for _, data in datagrams:
        for line in assembler.feed(data):
            yield WireLine(datagrams[line.last][0], line.text, line.whole)
    for line in assembler.finish():
        yield WireLine(datagrams[line.last][0], line.text, line.whole)


def _extended(datagrams: Sequence[tuple[float, bytes]], stamped: bool) -> Iterator[WireLine]:
    """Fragments are joined in place of the last one to come; a record of which one never came is not whole."""
    pieces: dict[int, _Pieces] = {}
    for t, data in datagrams:
        try:
            header, body = parse_packet(data)
        except FormatError:
            yield WireLine(t, line_text(data.removesuffix(b"\n")))
            continue
        if header.fragment is None:
            yield from _record(t, parse_body(header, body), stamped)
            continue
        piece = pieces.setdefault(header.seq, _Pieces(header, {}))
        piece.bodies[header.fragment[0]] = body
        if piece.complete:
            yield from _record(t, parse_body(header, piece.body), stamped)
            del pieces[header.seq]
    for piece in pieces.values():
        yield from _record(datagrams[-1][0], parse_body(piece.header, piece.body), stamped, whole=False)


@dataclass
class _Pieces:
    """The fragments of one record that have come: offset -> bytes."""

    header: Header
    bodies: dict[int, bytes]

    @property
    def complete(self) -> bool:
        return self.header.fragment is not None and len(self.body) == self.header.fragment[1]

    @property
    def body(self) -> bytes:
        """From the start up to the first gap."""
        body = b""
        for offset in sorted(self.bodies):
            if offset == len(body):
                body += self.bodies[offset]
        return body


def _record(t: float, message: Message, stamped: bool, whole: bool = True) -> list[WireLine]:
    return [WireLine(t, text, whole) for text in console_lines(message, time=stamped)]


def stamp_of(text: str) -> float | None:
    """The printk time that a line starts with, in seconds since the guest booted."""
    match = STAMP.match(text)
    return float(match[1]) if match else None


def body_of(text: str) -> str:
    """A line without its printk stamp and caller."""
    return re.sub(r"^\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ", "", text)


def difference(got: str, wanted: str) -> str:
    """How a line that came differs from the one that was printed, in a few words."""
    if wanted.startswith(got):
        return f"cut off after {len(got)} of {len(wanted)} characters"
    if got.startswith(wanted):
        return f"{len(got) - len(wanted)} characters after the {len(wanted)} printed"
    offset = next(at for at, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b)
    return f"character {offset} is {got[offset]!r}, not {wanted[offset]!r}"
