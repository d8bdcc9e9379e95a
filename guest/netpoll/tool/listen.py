"""`listen`: print what arrives, by sender, and at the end what is missing.

In: datagrams. Out: lines on standard output, gaps and summaries on standard error, True when all that was asked for came. The
rule it keeps: however many senders there are and whatever they send, memory is bounded.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any

from guest.netpoll.clients.netconsole.accounting import Duplicate, Gap, Late, Restarted
from guest.netpoll.clients.netconsole.client import source_of
from guest.netpoll.clients.netconsole.lines import LineAssembler
from guest.netpoll.clients.netconsole.message import Message, console_lines, decode
from guest.netpoll.clients.netconsole.reassembly import Incomplete
from guest.netpoll.clients.netconsole.receiver import Event, Malformed, Mode, Receiver, Text
from guest.netpoll.clients.sequence import Receiver as StreamReceiver
from guest.netpoll.clients.syslog import SyslogError, SyslogMessage, parse
from guest.netpoll.core import Netpoll
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.tool.session import say, session

MAX_SENDERS = 64  # a further one is counted, and its datagrams are not looked at
MODES = {"auto": Mode.AUTO, "netconsole": Mode.EXTENDED, "text": Mode.PLAIN, "syslog": Mode.PLAIN}


class Sender:
    """What is kept of one sender."""

    def __init__(self, form: str, max_severity: int) -> None:
        self.receiver = Receiver(MODES[form], max_severity=max_severity)
        self.lines = LineAssembler()


class Listener:
    """Takes datagrams, prints events; `messages` counts what --count counts."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.senders: dict[str, Sender] = {}
        self.messages = 0
        self.ignored = 0
        self._arrived: deque[tuple[str, float, bytes]] = deque()
        self.stream = StreamReceiver(arguments.stream) if arguments.stream is not None else None

    def rx_hook(self, np: Netpoll, port: int, data: bytes) -> None:
        """One datagram: put it aside, since writing to standard output may wait and a hook must not."""
        self._arrived.append((str(source_of(np, port).ip), time.monotonic(), data))

    def work(self) -> None:
        """Read and print what arrived. Raises BrokenPipeError when nobody reads our output."""
        while self._arrived and not self.enough():
            self._take(*self._arrived.popleft())

    def enough(self) -> bool:
        """All that was asked for is here."""
        if self.stream is not None:
            return self.stream.finished
        return self._arguments.count is not None and self.messages >= self._arguments.count

    def _take(self, source: str, now: float, data: bytes) -> None:
        if self.stream is not None:
            self._stream_event(source, data)
            return
        if source not in self.senders and len(self.senders) >= MAX_SENDERS:
            self.ignored += 1
            return
        sender = self.senders.setdefault(source, Sender(self._arguments.form, self._arguments.max_severity))
        for event in sender.receiver.receive(data, now):
            self._event(source, sender, event)

    def _stream_event(self, source: str, data: bytes) -> None:
        assert self.stream is not None  # the caller looked
        arrival = self.stream.receive(data)
        self.messages += 1
        if self._arguments.json:
            self._json(source, "datagram", asdict(arrival) | {"why": arrival.why.value})
        elif not arrival.ok:
            say(False, f"{source}: datagram {arrival.seq}: {arrival.why.value}: {arrival.detail}")

    def _event(self, source: str, sender: Sender, event: Event) -> None:
        if isinstance(event, Message):
            self._print(source, console_lines(event), event)
        elif isinstance(event, Text):
            self._text(source, sender, event.data)
        elif self._arguments.json:
            self._json(source, type(event).__name__.lower(), event)
        else:
            say(False, f"{source}: {describe(event)}")

    def _text(self, source: str, sender: Sender, data: bytes) -> None:
        form = self._arguments.form
        if form == "syslog" or (form == "auto" and data.startswith(b"<")):
            try:
                message = parse(data, datetime.now().astimezone())
            except SyslogError as error:
                say(False, f"{source}: {error}")
                return
            if message.severity <= self._arguments.max_severity:
                self._print(source, [syslog_line(message)], message)
            return
        for line in sender.lines.feed(data):
            self._print(source, [line.text + ("" if line.whole else " [cut]")], line)

    def _print(self, source: str, lines: list[str], event: object) -> None:
        self.messages += 1
        if self._arguments.json:
            self._json(source, type(event).__name__.removeprefix("Syslog").lower(), event)
            return
        for line in lines:
            print(f"{source} {line}")
        sys.stdout.flush()

    def _json(self, source: str, kind: str, event: object) -> None:
        plain: Any = asdict(event) if is_dataclass(event) and not isinstance(event, type) else event
        print(json.dumps({"from": source, "event": kind} | plain, default=_plain), flush=True)

    def close(self) -> None:
        """No more comes: print unfinished lines, give up on fragments."""
        for source, sender in self.senders.items():
            for event in sender.receiver.close():
                self._event(source, sender, event)
            for line in sender.lines.finish():
                self._print(source, [line.text + " [cut]"], line)

    def clean(self) -> bool:
        """Nothing missing, twice, out of order or broken."""
        if self.stream is not None:
            return self.stream.summary().perfect
        return all(sender.receiver.report().clean for sender in self.senders.values()) and not self.ignored


def _plain(value: object) -> str:
    return decode(value) if isinstance(value, bytes) else str(value)


def syslog_line(message: SyslogMessage) -> str:
    """Facility.severity, time, host, tag and text in one line."""
    when = message.timestamp.isoformat() if message.timestamp else "-"
    tag = message.app_name + (f"[{message.procid}]" if message.procid else "")
    return f"{message.facility}.{message.severity} {when} {message.hostname or '-'} {tag or '-'}: {message.text}"


def describe(event: Gap | Late | Duplicate | Restarted | Incomplete | Malformed | Event) -> str:
    """An event that is no message, in words."""
    match event:
        case Gap(first, last):
            return f"missing {first}" + (f" to {last}" if last > first else "")
        case Late(seq):
            return f"late {seq}"
        case Duplicate(seq):
            return f"twice {seq}"
        case Restarted(seq, lost):
            return f"the sender started anew at {seq}; {lost} of before never came"
        case Incomplete(seq, have, total, why):
            return f"message {seq}: {have} of {total} bytes, {why}"
        case Malformed(why, _):
            return f"unreadable: {why}"
    return repr(event)


def listen(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, SetupError."""
    listener = Listener(arguments)
    with session(arguments, "listen", listener.rx_hook) as current:
        if arguments.trap:
            netpoll_set_trap(current.np.net, 1)
        say(arguments.quiet, f"listening: {current.np!r}")
        in_time = current.wait(lambda: _served(listener), arguments.timeout)
    listener.close()
    _summary(listener, arguments)
    if listener.stream is not None:
        return listener.stream.finished and (listener.clean() or not arguments.strict)
    return (in_time or not arguments.count) and (listener.clean() or not arguments.strict)


def _served(listener: Listener) -> bool:
    listener.work()
    return listener.enough()


def _summary(listener: Listener, arguments: argparse.Namespace) -> None:
    if listener.stream is not None:
        summary = listener.stream.summary()
        say(
            arguments.quiet,
            f"{summary.received} of {summary.expected} datagrams; missing {summary.missing}; {summary.counts}",
        )
    for source, sender in listener.senders.items():
        report = sender.receiver.report()
        missing = report.missing_count + report.lost
        say(
            arguments.quiet,
            f"{source}: {report.packets} datagrams, {report.messages} messages, {missing} missing, {report.late} late, "
            f"{report.duplicates} twice, {report.incomplete + report.malformed} broken",
        )
    if listener.ignored:
        say(arguments.quiet, f"{listener.ignored} datagrams of more than {MAX_SENDERS} senders ignored")
