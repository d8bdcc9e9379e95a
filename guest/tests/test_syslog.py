"""Syslog, both formats: the RFCs' own examples, round trips, and what a network may send instead."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients.syslog import (
    SyslogError,
    SyslogMessage,
    cut,
    emit_3164,
    emit_5424,
    emit_netlog,
    parse,
    parse_3164,
    parse_5424,
)

NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
PACIFIC = timezone(timedelta(hours=-7))

# RFC 5424 section 6.5, examples 1 to 4
EXAMPLES: dict[str, tuple[bytes, SyslogMessage]] = {
    "1: no structured data, a BOM": (
        b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - "
        b"\xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8",
        SyslogMessage(
            "'su root' failed for lonvick on /dev/pts/8",
            2,
            4,
            datetime(2003, 10, 11, 22, 14, 15, 3000, tzinfo=UTC),
            "mymachine.example.com",
            "su",
            msgid="ID47",
        ),
    ),
    "2: zone and process": (
        b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
        SyslogMessage(
            "%% It's time to make the do-nuts.",
            5,
            20,
            datetime(2003, 8, 24, 5, 14, 15, 3, tzinfo=PACIFIC),
            "192.0.2.1",
            "myproc",
            "8710",
        ),
    ),
    "4: structured data only": (
        b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
        b'[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"]',
        SyslogMessage(
            "",
            5,
            20,
            datetime(2003, 10, 11, 22, 14, 15, 3000, tzinfo=UTC),
            "mymachine.example.com",
            "evntslog",
            msgid="ID47",
            structured=(
                ("exampleSDID@32473", (("iut", "3"), ("eventSource", "Application"), ("eventID", "1011"))),
                ("examplePriority@32473", (("class", "high"),)),
            ),
        ),
    ),
    "all nil": (b"<0>1 - - - - - -", SyslogMessage("", 0, 0)),
    "escapes in a value": (
        rb'<13>1 - - - - - [x a="q\"b\\s\]r\n"] t',
        SyslogMessage("t", structured=(("x", (("a", 'q"b\\s]r\\n'),)),)),
    ),
}


@pytest.mark.parametrize(("data", "message"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_parse_5424(data: bytes, message: SyslogMessage) -> None:
    assert parse_5424(data) == message
    assert parse(data, NOW) == message


GOLDEN_5424 = {
    "minimal": (SyslogMessage("hi"), b"<13>1 - - - - - - hi"),
    "full": (
        SyslogMessage(
            "up",
            6,
            3,
            datetime(2024, 1, 2, 3, 4, 5, 60, tzinfo=UTC),
            "guest",
            "netpoll",
            "7",
            "ID1",
            (("a@1", (("k", 'x"]\\'),)),),
        ),
        b'<30>1 2024-01-02T03:04:05.000060Z guest netpoll 7 ID1 [a@1 k="x\\"\\]\\\\"] up',
    ),
    "zone": (
        SyslogMessage("x", timestamp=datetime(2024, 1, 2, 3, 4, 5, tzinfo=PACIFIC)),
        b"<13>1 2024-01-02T03:04:05-07:00 - - - - - x",
    ),
    "UTF-8 has a BOM": (SyslogMessage("é"), b"<13>1 - - - - - - \xef\xbb\xbf\xc3\xa9"),
    "no text, no space": (SyslogMessage(""), b"<13>1 - - - - - -"),
}


@pytest.mark.parametrize(("message", "data"), GOLDEN_5424.values(), ids=GOLDEN_5424.keys())
def test_emit_5424(message: SyslogMessage, data: bytes) -> None:
    assert emit_5424(message) == data


BROKEN = {
    "empty": b"",
    "no version": b"<13> hello",
    "version 2": b"<13>2 - - - - - - x",
    "PRI of four digits": b"<1300>1 - - - - - - x",
    "PRI 192": b"<192>1 - - - - - - x",
    "PRI with leading zero": b"<013>1 - - - - - - x",
    "field missing": b"<13>1 - - - - -",
    "host of 256": b"<13>1 - " + b"h" * 256 + b" - - - - x",
    "seven digits of fraction": b"<13>1 2003-10-11T22:14:15.0000001Z - - - - - x",
    "small t": b"<13>1 2003-10-11t22:14:15Z - - - - - x",
    "no zone": b"<13>1 2003-10-11T22:14:15 - - - - - x",
    "leap second": b"<13>1 2003-10-11T22:14:60Z - - - - - x",
    "month 13": b"<13>1 2003-13-11T22:14:15Z - - - - - x",
    "structured data left open": b'<13>1 - - - - - [a b="c" x',
    "value not quoted": b"<13>1 - - - - - [a b=c] x",
    "value with a bare bracket": b'<13>1 - - - - - [a b="]"] x',
    "no space after it": b"<13>1 - - - - - [a]x",
    "cut inside": b"<13>1 - - - - - ",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_5424_is_an_error(data: bytes) -> None:
    with pytest.raises(SyslogError):
        parse_5424(data)


@pytest.mark.parametrize(
    "field",
    [
        {"severity": 8},
        {"facility": 24},
        {"facility": -1},
        {"hostname": "a b"},
        {"hostname": "h" * 256},
        {"app_name": "é"},
        {"procid": "p" * 129},
        {"msgid": "m" * 33},
        {"timestamp": datetime(2024, 1, 1)},
        {"structured": (("a b", ()),)},
        {"structured": (("a", (("n=", "v"),)),)},
    ],
    ids=str,
)
def test_fields_that_the_grammar_forbids(field: dict[str, object]) -> None:
    with pytest.raises(SyslogError):
        emit_5424(dataclasses.replace(SyslogMessage("x"), **field))  # type: ignore[arg-type]  # several types


NAME = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
SD_NAME = st.text(st.sampled_from("abcXYZ019@._-"), min_size=1, max_size=32)
FIELD = st.just("") | NAME.filter(lambda s: s != "-")
# The last minutes before year 1 or after year 9999 have no equal in other zones.
WHEN = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.sampled_from([UTC, PACIFIC]))
MESSAGES = st.builds(
    SyslogMessage,
    st.text(st.characters(codec="utf-8"), max_size=60).filter(lambda s: not s.startswith("\ufeff")),
    st.integers(0, 7),
    st.integers(0, 23),
    st.none() | WHEN,
    FIELD,
    FIELD,
    FIELD,
    FIELD,
    st.lists(
        st.tuples(SD_NAME, st.lists(st.tuples(SD_NAME, st.text(max_size=20)), max_size=3).map(tuple)), max_size=3
    ).map(tuple),
)


@given(MESSAGES)
def test_5424_round_trip(message: SyslogMessage) -> None:
    assert parse_5424(emit_5424(message, limit=60_000)) == message


@given(MESSAGES, st.integers(0, 400))
def test_truncated_5424_parses_or_is_an_error(message: SyslogMessage, length: int) -> None:
    whole = emit_5424(message, limit=60_000)
    try:
        parsed = parse_5424(whole[:length])
    except SyslogError:
        return
    assert parsed.pri == message.pri


# RFC 3164 section 5.4 and what senders do in practice
OLD: dict[str, tuple[bytes, SyslogMessage]] = {
    "example 1": (
        b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
        SyslogMessage(
            "'su root' failed for lonvick on /dev/pts/8",
            2,
            4,
            datetime(2023, 10, 11, 22, 14, 15, tzinfo=UTC),
            "mymachine",
            "su",
        ),
    ),
    "example 2: no PRI": (b"Use the BFG!", SyslogMessage("Use the BFG!")),
    "day padded, tag with pid": (
        b"<30>Jan  1 00:00:00 h cron[42]: x",
        SyslogMessage("x", 6, 3, datetime(2024, 1, 1, tzinfo=UTC), "h", "cron", "42"),
    ),
    "netlog": (b"<5> [    1.000000] up", SyslogMessage(" [    1.000000] up", 5, 0)),
    "a line of netconsole": (b"[    1.000000] eth0: up\n", SyslogMessage("[    1.000000] eth0: up\n")),
    "PRI out of range is text": (b"<192>x", SyslogMessage("<192>x")),
    "day that does not exist": (b"<13>Feb 31 00:00:00 h t: x", SyslogMessage("Feb 31 00:00:00 h t: x")),
    "29 February of the leap year near": (
        b"<13>Feb 29 00:00:00 h x",
        SyslogMessage("x", timestamp=datetime(2024, 2, 29, tzinfo=UTC), hostname="h"),
    ),
    "not UTF-8": (b"\xff", SyslogMessage("\\xff")),
    "empty": (b"", SyslogMessage("")),
}


@pytest.mark.parametrize(("data", "message"), OLD.values(), ids=OLD.keys())
def test_parse_3164(data: bytes, message: SyslogMessage) -> None:
    assert parse_3164(data, NOW) == message
    assert parse(data, NOW) == message


GOLDEN_3164 = {
    "header, tag, pid": (
        SyslogMessage("up", 6, 0, datetime(2024, 3, 5, 7, 8, 9, tzinfo=UTC), "guest", "kernel", "1"),
        b"<6>Mar  5 07:08:09 guest kernel[1]: up",
    ),
    "two-digit day": (
        SyslogMessage("up", 6, 0, datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC), "g"),
        b"<6>Dec 31 23:59:59 g up",
    ),
    "no time": (SyslogMessage("up", app_name="t"), b"<13>t: up"),
}


@pytest.mark.parametrize(("message", "data"), GOLDEN_3164.values(), ids=GOLDEN_3164.keys())
def test_emit_3164(message: SyslogMessage, data: bytes) -> None:
    assert emit_3164(message) == data
    assert parse_3164(data, datetime(2024, 7, 1, tzinfo=UTC)).text == "up"


@pytest.mark.parametrize(
    "message",
    [SyslogMessage("x", timestamp=NOW), SyslogMessage("x", app_name="a:b"), SyslogMessage("x", app_name="a" * 33)],
    ids=["time without host", "colon in the tag", "tag of 33"],
)
def test_3164_refusals(message: SyslogMessage) -> None:
    with pytest.raises(SyslogError):
        emit_3164(message)


def test_the_year_and_zone_come_from_now() -> None:
    when = parse_3164(b"<13>Dec 31 23:59:59 h x", datetime(2024, 1, 1, tzinfo=PACIFIC)).timestamp
    assert when == datetime(2023, 12, 31, 23, 59, 59, tzinfo=PACIFIC)
    with pytest.raises(ValueError, match="zone"):
        parse_3164(b"x", datetime(2024, 1, 1))


@given(st.binary(max_size=200) | st.from_regex(rb"<[0-9]{1,3}>1 .{0,60}", fullmatch=True))
def test_no_bytes_do_worse_than_a_syslog_error(data: bytes) -> None:
    try:
        message = parse(data, NOW)
    except SyslogError:
        return
    assert 0 <= message.pri <= 191


@given(st.text(max_size=60), st.integers(1, 100))
def test_cutting_never_leaves_half_a_character(text: str, limit: int) -> None:
    raw = text.encode("utf-8", "replace")
    short = cut(raw, limit)
    assert len(short) <= limit
    assert len(short) > limit - 4 or short == raw
    assert raw.decode().startswith(short.decode())


def test_limits_apply() -> None:
    assert len(emit_3164(SyslogMessage("x" * 3000))) == 1024
    assert len(emit_5424(SyslogMessage("é" * 3000))) == 2047  # 22 bytes, and whole characters
    with pytest.raises(SyslogError, match="before the text"):
        emit_5424(SyslogMessage("", structured=(("a", (("k", "v" * 3000),)),)))


def test_netlog() -> None:
    assert emit_netlog("[    1.000000] up") == b"<5> [    1.000000] up"
