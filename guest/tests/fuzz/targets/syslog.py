"""Syslog datagrams: RFC 5424 refused with SyslogError or understood, RFC 3164 always something.

In: the datagram. Held: no other exception; an RFC 5424 message that was understood and is written again means the same;
the text of an RFC 3164 datagram without header is the datagram.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from guest.netpoll.clients.syslog import (
    SyslogError,
    SyslogMessage,
    emit_3164,
    emit_5424,
    emit_netlog,
    parse,
    parse_3164,
    parse_5424,
)
from guest.tests.fuzz.table import Target

LEAP_DAY = datetime(2024, 2, 29, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=5, minutes=30))
MESSAGES = (
    SyslogMessage("BOM and é", timestamp=LEAP_DAY, hostname="host", app_name="kernel", procid="1", msgid="ID47"),
    SyslogMessage("", severity=0, facility=0),
    SyslogMessage("text", structured=(("exampleSDID@32473", (("iut", "3"), ("quote", '"]\\'))), ("empty", ()))),
    SyslogMessage("[    1.000000] oops", 2, 0, LEAP_DAY.astimezone(EAST), "10.0.0.2", "tag"),
)


def run(data: bytes) -> None:
    old = parse_3164(data, LEAP_DAY)
    assert 0 <= old.pri <= 191
    _check_old(data, old)
    with contextlib.suppress(SyslogError):
        parse(data, LEAP_DAY)
    try:
        message = parse_5424(data)
    except SyslogError:
        return
    assert parse_5424(emit_5424(message, limit=1 << 20)) == message
    for limit in range(len(data), 0, -1 - len(data) // 8):
        with contextlib.suppress(SyslogError):  # the header alone is longer
            assert len(emit_5424(message, limit)) <= limit


def _check_old(data: bytes, message: SyslogMessage) -> None:
    """Its text is what the datagram ends with."""
    text = data.decode("utf-8", "backslashreplace")
    assert text.endswith(message.text)
    named = message.hostname or message.app_name
    assert named or message.timestamp or text in (message.text, f"<{message.pri}>{message.text}")
    with contextlib.suppress(SyslogError):  # what others put into tags, we do not
        assert parse_3164(emit_3164(message, limit=1 << 20), LEAP_DAY).text.endswith(message.text)


def encoded() -> Iterator[bytes]:
    for message in MESSAGES:
        yield emit_5424(message)
        yield emit_3164(replace(message, hostname=message.hostname or "host"))
        yield emit_5424(message, limit=200)[:-1]
    yield emit_netlog("[    1.000000] line")
    yield b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed"
    yield b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time"
    yield b"<34>Oct 11 22:14:15 mymachine su[231]: 'su root' failed"
    yield b"<999>Feb 30 25:61:61 no such time"


TOKENS = (
    b"<34>1 ",
    b"<0>",
    b" - ",
    b"[id ",
    b'="',
    b"\\]",
    b"\xef\xbb\xbf",
    b"2003-10-11T22:14:15.003Z",
    b"Feb 29 ",
    b"]: ",
)
TARGET = Target(run, encoded, TOKENS, max_len=300)
