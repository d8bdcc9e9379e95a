"""What our netconsole puts into packets, against the kernel's rules; and back through the receiver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients.netconsole.lines import lines_of
from guest.netpoll.clients.netconsole.message import MAX_CHUNK, Message, parse_packet
from guest.netpoll.clients.netconsole.receiver import Receiver
from guest.netpoll.clients.netconsole.sender import Record, Sender, Sysdata, Target, fragments

ALL = Sysdata(cpu=True, taskname=True, release=True, msgid=True)
EXTENDED = Target(extended=True)

GOLDEN: dict[str, tuple[Target, Record, list[bytes]]] = {
    "plain": (Target(), Record("hello", 1_500_000), [b"[    1.500000] hello\n"]),
    "plain without time": (Target(printk_time=False), Record("hello", 1_500_000), [b"hello\n"]),
    "plain, two lines, caller": (
        Target(),
        Record("a\nb", 7, caller="T12"),
        [b"[    0.000007][   T12] a\n[    0.000007][   T12] b\n"],
    ),
    "plain, cut at 1000": (
        Target(printk_time=False),
        Record("x" * 1500, 0),
        [b"x" * 1000, b"x" * 500 + b"\n"],
    ),
    "plain, newline alone in the second": (Target(printk_time=False), Record("y" * 1000, 0), [b"y" * 1000, b"\n"]),
    "extended": (EXTENDED, Record("hello", 42, severity=4), [b"4,9,42,-;hello\n"]),
    "facility and flag": (EXTENDED, Record("a", 1, severity=6, facility=3, flag="c"), [b"30,9,1,c;a\n"]),
    "escapes": (EXTENDED, Record("a\nb\\é", 1), [b"6,9,1,-;a\\x0ab\\x5c\\xc3\\xa9\n"]),
    "caller and dictionary": (
        EXTENDED,
        Record("link up", 1, caller="C0", pairs=(("SUBSYSTEM", "net"), ("DEVICE", "n3"))),
        [b"6,9,1,-,caller=C0;link up\n SUBSYSTEM=net\n DEVICE=n3\n"],
    ),
    "release, userdata, sysdata, in the kernel's order": (
        Target(True, True, "6.1.0-13-amd64", (("foo", "bar"),), ALL),
        Record("t", 1, cpu=3, taskname="sh"),
        [b"6.1.0-13-amd64,6,9,1,-;t\n foo=bar\n cpu=3\n taskname=sh\n release=6.1.0-13-amd64\n msgid=1\n"],
    ),
}


@pytest.mark.parametrize(("target", "record", "packets"), GOLDEN.values(), ids=GOLDEN.keys())
def test_golden(target: Target, record: Record, packets: list[bytes]) -> None:
    assert Sender(target, first_seq=9).packets(record) == packets


@pytest.mark.parametrize("length", [MAX_CHUNK - 9, MAX_CHUNK - 8], ids=["just fits", "one byte more"])
def test_1000_bytes_are_the_border_of_fragmentation(length: int) -> None:
    packets = Sender(EXTENDED).packets(Record("x" * length, 5))  # 8 bytes of header and ';', 1 of newline
    assert len(packets) == (1 if length == MAX_CHUNK - 9 else 2)
    assert len(packets[0]) == MAX_CHUNK


def test_fragments_are_full_and_count_the_body_only() -> None:
    body = bytes(range(256)) * 9
    packets = list(fragments(b"6,416,1758426,-", body))
    assert packets[0].startswith(b"6,416,1758426,-,ncfrag=0/2304;\x00")
    assert packets[1].startswith(b"6,416,1758426,-,ncfrag=970/2304;\xca")
    assert [len(packet) for packet in packets] == [1000, 1000, 399]
    assert b"".join(parse_packet(packet)[1] for packet in packets) == body


def test_a_header_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        list(fragments(b"x" * 990, b"y"))


def test_level_filter_uses_numbers_up() -> None:
    sender = Sender(Target(extended=True, console_loglevel=5))
    packets = [sender.packets(Record("x", 0, severity=severity)) for severity in (7, 4, 5, 0)]
    assert packets == [[], [b"4,1,0,-;x\n"], [], [b"0,3,0,-;x\n"]]


def test_msgid_counts_messages_and_wraps() -> None:
    sender = Sender(Target(extended=True, sysdata=Sysdata(msgid=True)))
    sender._msgid = 0xFFFFFFFE
    ends = [sender.packets(Record("x" * size, 0))[-1].split(b" ")[-1] for size in (1, 3000, 1)]
    assert ends == [b"msgid=4294967295\n", b"msgid=0\n", b"msgid=1\n"]


REFUSED = {
    "userdata on a plain target": {"userdata": (("a", "b"),)},
    "sysdata on a plain target": {"sysdata": ALL},
    "release on a plain target": {"prefix_release": True, "release": "6.1"},
    "release unknown": {"extended": True, "prefix_release": True},
    "release with a comma": {"extended": True, "release": "6,1"},
    "key too long": {"extended": True, "userdata": (("k" * 54, "v"),)},
    "key with =": {"extended": True, "userdata": (("a=b", "v"),)},
    "empty key": {"extended": True, "userdata": (("", "v"),)},
    "value too long": {"extended": True, "userdata": (("k", "v" * 200),)},
    "value with newline": {"extended": True, "userdata": (("k", "a\nb"),)},
    "too many items": {"extended": True, "userdata": tuple((f"k{i}", "v") for i in range(257))},
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED.keys())
def test_targets_that_the_kernel_would_refuse(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"userdata|release"):
        Target(**arguments)  # type: ignore[arg-type]  # the table holds arguments of several types


@pytest.mark.parametrize(
    "arguments", [{"severity": 8}, {"severity": -1}, {"facility": 256}, {"flag": "x"}, {"usec": -1}], ids=str
)
def test_impossible_records(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"severity|flag"):
        Record(**({"text": "x", "usec": 0} | arguments))  # type: ignore[arg-type]  # as above


TEXT = st.text(st.characters(codec="utf-8"), max_size=3000)


@given(TEXT, st.integers(0, 7), st.integers(0, 2**64 - 1), st.sampled_from("-c+"), st.booleans())
def test_extended_round_trip(text: str, severity: int, usec: int, flag: str, long: bool) -> None:
    userdata = tuple((f"key{i}", "v" * 150) for i in range(20)) if long else (("k", "v"),)
    target = Target(True, True, "6.12.0", userdata, ALL)
    packets = Sender(target, 77).packets(Record(text, usec, severity, flag=flag, taskname="a b"))
    assert all(len(packet) <= MAX_CHUNK for packet in packets)
    receiver = Receiver()
    [message] = [event for packet in packets for event in receiver.receive(packet, 0.0)]
    assert isinstance(message, Message)
    assert (message.text, message.seq, message.header.usec) == (text, 77, usec)
    assert (message.header.severity, message.header.flag, message.header.release) == (severity, flag, "6.12.0")
    assert message.pairs[: len(userdata)] == userdata
    assert message.pairs[-1] == ("msgid", "1")
    assert receiver.report().clean


@given(st.lists(st.text(st.characters(min_codepoint=32, codec="utf-8"), max_size=2100), max_size=5))
def test_plain_round_trip(texts: list[str]) -> None:
    sender = Sender(Target())
    packets = [packet for at, text in enumerate(texts) for packet in sender.packets(Record(text, at))]
    wanted = [f"[    0.{at:06d}] {text}" for at, text in enumerate(texts)]
    lines = lines_of(packets)
    assert [line.text for line in lines] == wanted
    assert all(line.whole for line in lines)
