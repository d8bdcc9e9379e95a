"""`send`: lines, given or from standard input, as datagrams of one of several forms.

In: lines. Out: datagrams, and True when every one of them left. The rule it keeps: what netpoll_queue holds at the end is
waited for, and what it lost is told.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from guest.netpoll.clients.netconsole.sender import Record, Sender, Target
from guest.netpoll.clients.sequence import generate
from guest.netpoll.clients.syslog import LIMIT_3164, LIMIT_5424, SyslogMessage, emit_3164, emit_5424
from guest.netpoll.clients.sysrq import encode_keys
from guest.netpoll.send import netpoll_send_udp
from guest.netpoll.tool.session import Session, say, session

DRAIN = 5.0  # seconds for what was queued, when --timeout does not say
Encode = Callable[[str], list[bytes]]


def send(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, SetupError, MessageTooLong, ValueError."""
    encoder = _encoder(arguments)
    with session(arguments, "send") as current:
        encode = encoder(current.np.max_payload)
        messages = _send_all(current, _datagrams(arguments, encode), arguments.interval)
        return _drain(current, messages, arguments)


def _datagrams(arguments: argparse.Namespace, encode: Encode) -> Iterator[list[bytes]]:
    """Each message as its datagrams."""
    if arguments.stream is not None:
        return ([payload] for payload in generate(arguments.stream))
    lines: Iterable[str] = arguments.lines or _stdin()
    if arguments.lines and arguments.count:
        lines = itertools.cycle(arguments.lines)
    return (encode(line) for line in itertools.islice(lines, arguments.count))


def _stdin() -> Iterator[str]:
    for raw in sys.stdin.buffer:
        yield raw.decode("utf-8", "surrogateescape").removesuffix("\n")


def _send_all(current: Session, messages: Iterator[list[bytes]], interval: float) -> int:
    count = 0
    for datagrams in messages:
        if current.stop.requested:
            break
        for datagram in datagrams:
            netpoll_send_udp(current.np, datagram)
        count += 1
        current.wait(lambda: False, interval) if interval else current.loop.run_once(0)
    return count


def _drain(current: Session, messages: int, arguments: argparse.Namespace) -> bool:
    stats = current.np.stats
    current.wait(
        lambda: stats.late + stats.lost >= stats.queued, DRAIN if arguments.timeout is None else arguments.timeout
    )
    left = stats.sent + stats.late
    failed = stats.lost + max(0, stats.queued - stats.late - stats.lost)
    say(arguments.quiet, f"{messages} messages, {left} datagrams sent, {stats.late} of them late, {failed} lost")
    return failed == 0


def _encoder(arguments: argparse.Namespace) -> Callable[[int], Encode]:
    """The form asked for, as a function of the largest payload; options that contradict each other raise here."""
    if arguments.netconsole:
        sender = Sender(_target(arguments))
        return lambda _: lambda line: sender.packets(_record(line, arguments))
    if arguments.release or arguments.userdata or any(getattr(arguments.sysdata, f) for f in _SYSDATA):
        raise ValueError("--release, --userdata and --sysdata need --netconsole ext")
    if arguments.syslog:
        emit, limit = (emit_5424, LIMIT_5424) if arguments.syslog == "5424" else (emit_3164, LIMIT_3164)
        return lambda room: lambda line: [emit(_syslog(line, arguments), min(limit, room))]
    if arguments.sysrq:
        return lambda _: lambda line: [encode_keys(line)]
    return lambda _: lambda line: [line.encode("utf-8", "surrogateescape") + b"\n"]


_SYSDATA = ("cpu", "taskname", "release", "msgid")


def _target(arguments: argparse.Namespace) -> Target:
    return Target(
        extended=arguments.netconsole == "ext",
        prefix_release=arguments.release,
        release=os.uname().release,
        userdata=tuple(arguments.userdata),
        sysdata=arguments.sysdata,
    )


def _record(line: str, arguments: argparse.Namespace) -> Record:
    return Record(
        text=line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        usec=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000,
        severity=arguments.severity,
        facility=arguments.facility,
        taskname="netpoll",
    )


def _syslog(line: str, arguments: argparse.Namespace) -> SyslogMessage:
    return SyslogMessage(
        text=line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        severity=arguments.severity,
        facility=arguments.facility,
        timestamp=datetime.now().astimezone(),
        hostname=os.uname().nodename or "localhost",
        app_name="netpoll",
        procid=str(os.getpid()),
    )
