"""The extended format: examples of the kernel's documentation, what its printk writes, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients.netconsole.message import (
    FormatError,
    Header,
    Message,
    console_lines,
    escape,
    parse_body,
    parse_packet,
    unescape,
)

# Packets of Documentation/networking/netconsole.rst and of a Debian 6.1 boot.
PACKETS: dict[str, tuple[bytes, Message]] = {
    "plain record": (
        b"6,416,1758426,-;the message text\n",
        Message(Header(6, 416, 1758426), "the message text"),
    ),
    "release": (
        b"6.4.0,6,444,501151268,-;netconsole: network logging started\n",
        Message(Header(6, 444, 501151268, release="6.4.0"), "netconsole: network logging started"),
    ),
    "userdata": (
        b"12,607,22085407756,-;This is a message\n foo=bar\n qux=baz\n",
        Message(Header(12, 607, 22085407756), "This is a message", (("foo", "bar"), ("qux", "baz"))),
    ),
    "dictionary of a device": (
        b"6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:1c.0\n",
        Message(
            Header(6, 339, 5140900),
            "NET: Registered protocol family 10",
            (("SUBSYSTEM", "pci"), ("DEVICE", "+pci:0000:00:1c.0")),
        ),
    ),
    "caller and sysdata": (
        b"6.14.0-rc1+,4,1234,99,-,caller=T1;x\n cpu=1\n taskname=bash\n release=6.14.0-rc1+\n msgid=7\n",
        Message(
            Header(4, 1234, 99, release="6.14.0-rc1+", fields=(("caller", "T1"),)),
            "x",
            (("cpu", "1"), ("taskname", "bash"), ("release", "6.14.0-rc1+"), ("msgid", "7")),
        ),
    ),
    "escaped text of two lines": (
        b"6,5,100,c;a\\x0ab \\x5c \\xc3\\xa9 \\xff\n",
        Message(Header(6, 5, 100, "c"), "a\nb \\ é \\xff"),
    ),
    "semicolon and comma in the text": (
        b"6,5,100,-;a;b,c=d;\n",
        Message(Header(6, 5, 100), "a;b,c=d;"),
    ),
    "empty text": (b"6,5,100,-;\n", Message(Header(6, 5, 100), "")),
    "value of two lines": (b"6,5,100,-;t\n k=a\nb\n", Message(Header(6, 5, 100), "t", (("k", "a\nb"),))),
    "facility of user space": (b"30,5,100,-;systemd[1]: up\n", Message(Header(30, 5, 100), "systemd[1]: up")),
    "emergency flag of ncrx": (
        b"6,5,100,-,ncemg=1;t\n",
        Message(Header(6, 5, 100, fields=(("ncemg", "1"),)), "t"),
    ),
}


@pytest.mark.parametrize(("packet", "message"), PACKETS.values(), ids=PACKETS.keys())
def test_parse(packet: bytes, message: Message) -> None:
    header, body = parse_packet(packet)
    assert parse_body(header, body) == message


@pytest.mark.parametrize(("packet", "message"), PACKETS.values(), ids=PACKETS.keys())
def test_header_emits_what_it_was_parsed_from(packet: bytes, message: Message) -> None:
    assert message.header.emit() == packet.split(b";")[0]


def test_level_is_facility_and_severity() -> None:
    header = Header(30, 0, 0)
    assert (header.facility, header.severity) == (3, 6)


def test_fragment_is_not_an_ordinary_field() -> None:
    header, body = parse_packet(b"6,416,1758426,-,caller=T1,ncfrag=16/31; the 2nd chunk.")
    assert header.fragment == (16, 31)
    assert header.fields == (("caller", "T1"),)
    assert body == b" the 2nd chunk."


REFUSED = {
    "empty": b"",
    "plain text": b"[    1.000000] hello; world\n",
    "no semicolon": b"6,416,1758426,-",
    "no flag": b"6,416,1758426;x",
    "unknown flag": b"6,416,1758426,x;x",
    "negative": b"6,-1,0,-;x",
    "sequence beyond u64": b"6,18446744073709551616,0,-;x",
    "level beyond u11": b"2048,1,0,-;x",
    "field without value": b"6,1,0,-,caller;x",
    "ncfrag without total": b"6,1,0,-,ncfrag=5;x",
    "ncfrag negative": b"6,1,0,-,ncfrag=-5/10;x",
    "ncfrag twice": b"6,1,0,-,ncfrag=0/10,ncfrag=5/10;x",
    "release without a dot": b"linux,6,1,0,-;x",
    "release of 200 bytes": b"6." + b"4" * 200 + b",6,1,0,-;x",
    "digits of another script": "٦,1,0,-;x".encode(),
}


@pytest.mark.parametrize("packet", REFUSED.values(), ids=REFUSED.keys())
def test_refused(packet: bytes) -> None:
    with pytest.raises(FormatError):
        parse_packet(packet)


@given(st.binary(max_size=99) | st.from_regex(rb"[0-9.,;=c\-]{0,60}", fullmatch=True))
def test_no_bytes_do_worse_than_a_format_error(data: bytes) -> None:
    try:
        header, body = parse_packet(data)
    except FormatError:
        return
    assert parse_body(header, body).header == header


@given(st.binary())
def test_escaping_round_trips_and_leaves_printable_ascii(raw: bytes) -> None:
    escaped = escape(raw)
    assert unescape(escaped) == raw
    assert all(32 <= byte < 127 for byte in escaped)


def test_escape_golden() -> None:
    assert escape(b"a\tb\\c\x7f\xe9~ ") == b"a\\x09b\\x5cc\\x7f\\xe9~ "


CONSOLE = {
    "time": (Message(Header(6, 1, 1758426), "x"), True, ["[    1.758426] x"]),
    "no time": (Message(Header(6, 1, 1758426), "x"), False, ["x"]),
    "long uptime": (Message(Header(6, 1, 123456 * 10**6 + 5), "x"), True, ["[123456.000005] x"]),
    "two lines": (Message(Header(6, 1, 0), "a\nb"), True, ["[    0.000000] a", "[    0.000000] b"]),
    "caller": (
        Message(Header(6, 1, 0, fields=(("caller", "T1"),)), "a"),
        True,
        ["[    0.000000][    T1] a"],
    ),
    "caller, no time": (Message(Header(6, 1, 0, fields=(("caller", "C12"),)), "a"), False, ["[   C12] a"]),
}


@pytest.mark.parametrize(("message", "time", "lines"), CONSOLE.values(), ids=CONSOLE.keys())
def test_as_the_serial_console_shows_it(message: Message, time: bool, lines: list[str]) -> None:
    assert console_lines(message, time=time) == lines
