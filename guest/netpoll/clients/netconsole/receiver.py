"""The receiving side of netconsole: packets of one sender into messages, and an account of what is missing.

In: UDP payloads in order of arrival, each with the time (seconds, of any monotonic clock). Out: events. The rule it
keeps: nothing that arrives, in whatever order or form, raises, loops or makes memory grow; every packet is accounted for.

A packet that is no extended message is taken for plain text, as netconsd does. One `Receiver` serves one sender.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass

from guest.netpoll.clients.netconsole.accounting import Accounts, Duplicate, Gap, Late, Restarted
from guest.netpoll.clients.netconsole.message import (
    MAX_CHUNK,
    FormatError,
    Header,
    Message,
    parse_body,
    parse_packet,
)
from guest.netpoll.clients.netconsole.reassembly import Incomplete, Limits, Reassembler


class Mode(enum.Enum):
    """What the sender is expected to speak."""

    AUTO = "auto"  # extended where it parses, plain otherwise
    PLAIN = "plain"
    EXTENDED = "extended"  # anything else is Malformed


@dataclass(frozen=True, slots=True)
class Text:
    """A plain packet: raw console text, perhaps part of a line (see `lines`)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Malformed:
    """A packet that could not be used."""

    why: str
    data: bytes


Event = Message | Text | Gap | Late | Duplicate | Restarted | Incomplete | Malformed


@dataclass(frozen=True, slots=True)
class Report:
    """The account of one sender. `missing` are runs (first, last); `lost` numbers are missing of earlier boots."""

    packets: int
    messages: int
    plain: int
    highest: int  # -1: no extended message came
    missing: list[tuple[int, int]]
    missing_count: int
    lost: int
    late: int
    duplicates: int
    restarts: int
    incomplete: int
    malformed: int

    @property
    def clean(self) -> bool:
        """Nothing missing, twice, out of order or broken."""
        faults = self.missing_count + self.lost + self.late + self.duplicates + self.incomplete + self.malformed
        return faults == 0


class Receiver:
    """Parses, reassembles, counts, filters.

    `max_severity` drops messages less urgent than it from the events (they still count as received).
    """

    def __init__(self, mode: Mode = Mode.AUTO, *, max_severity: int = 7, limits: Limits | None = None) -> None:
        self._mode = mode
        self._max_severity = max_severity
        self._reassembler = Reassembler(limits)
        self._accounts = Accounts()
        self._counts: Counter[type] = Counter()
        self._packets = 0

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take one packet; what followed from it, notes about a message before the message itself."""
        self._packets += 1
        self._reassembler.expire(now)
        try:
            events = self._parse(data, now)
        except FormatError as error:
            events = [Malformed(str(error), data)]
        return self._publish([*self._reassembler.take_given_up(), *events])

    def tick(self, now: float) -> list[Event]:
        """Let time pass without a packet: gives up on fragments that waited too long."""
        self._reassembler.expire(now)
        return self._publish(list(self._reassembler.take_given_up()))

    def close(self) -> list[Event]:
        """No more packets will come: gives up on what is in pieces."""
        self._reassembler.close()
        return self._publish(list(self._reassembler.take_given_up()))

    def _parse(self, data: bytes, now: float) -> list[Event]:
        if self._mode is Mode.PLAIN:
            return [Text(data)]
        try:
            header, body = parse_packet(data)
        except FormatError:
            if self._mode is Mode.EXTENDED:
                raise
            return [Text(data)]
        if header.fragment is None:
            return self._whole(header, body, 1)
        if self._accounts.seen(header.seq, header.usec):
            return [Duplicate(header.seq)]
        whole = self._reassembler.add(header, body, now)
        return self._whole(*whole) if whole else []

    def _whole(self, header: Header, body: bytes, fragments: int) -> list[Event]:
        if not body:
            raise FormatError(f"message {header.seq} has no text")
        note = self._accounts.note(header.seq, header.usec)
        if isinstance(note, Duplicate):
            return [note]
        return [*([note] if note else []), parse_body(header, body, fragments)]

    def _publish(self, events: list[Event]) -> list[Event]:
        self._counts.update(map(type, events))
        return [
            event for event in events if not isinstance(event, Message) or event.header.severity <= self._max_severity
        ]

    def retransmit_request(self) -> bytes:
        """ncrx's answer to the sender: `ncrx<last in order>` and the numbers missing after it; b"" before any message.

        A kernel ignores it; senders built on ncrx repeat what is asked for. At most MAX_CHUNK bytes.
        """
        if self._accounts.highest < 0:
            return b""
        request = f"ncrx{self._accounts.contiguous}".encode()
        for first, last in self._accounts.missing:
            for seq in range(first, last + 1):
                item = b" %d" % seq
                if len(request) + len(item) > MAX_CHUNK:
                    return request
                request += item
        return request

    def report(self) -> Report:
        """The account so far."""
        return Report(
            packets=self._packets,
            messages=self._counts[Message],
            plain=self._counts[Text],
            highest=self._accounts.highest,
            missing=self._accounts.missing,
            missing_count=self._accounts.missing_count,
            lost=self._accounts.lost,
            late=self._counts[Late],
            duplicates=self._counts[Duplicate],
            restarts=self._counts[Restarted],
            incomplete=self._counts[Incomplete],
            malformed=self._counts[Malformed],
        )
