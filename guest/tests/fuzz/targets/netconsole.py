"""Packets into the netconsole receiver, with time passing between them; its memory is looked at after each.

In: what the sender is expected to speak (an octet), then packets, each after the seconds that passed (an octet) and its
length. Held: nothing raises; every packet is accounted for; what is held back stays within the limits, which are small
here so that they are reached; a header that was understood, written out again, means the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from guest.netpoll.clients.netconsole import accounting
from guest.netpoll.clients.netconsole.message import MAX_CHUNK, FormatError, Message, parse_packet
from guest.netpoll.clients.netconsole.reassembly import Limits
from guest.netpoll.clients.netconsole.receiver import Event, Malformed, Mode, Receiver, Text
from guest.netpoll.clients.netconsole.sender import Record, Sender, Sysdata
from guest.netpoll.clients.netconsole.sender import Target as SenderTarget
from guest.tests.fuzz.frames import captured_payloads
from guest.tests.fuzz.octets import Octets, block
from guest.tests.fuzz.table import Target

LIMITS = Limits(slots=3, total=2000, pieces=6, timeout=30.0)


def run(data: bytes) -> None:
    octets = Octets(data)
    mode = tuple(Mode)[octets.u8() % 3]
    receiver = Receiver(mode, limits=LIMITS)
    now, packets, events = 0.0, 0, list[Event]()
    while octets:
        now += octets.u8()
        packet = octets.block()
        _check_header(packet)
        found = receiver.receive(packet, now)
        events += found
        packets += 1
        _check_events(mode, packet, found)
        _check_memory(receiver)
    events += receiver.tick(now + LIMITS.timeout)
    assert receiver.close() == []
    _check_report(receiver, packets, events)


def _check_header(packet: bytes) -> None:
    """Written out and read again, a header means the same (its text as UTF-8: what is not was escaped)."""
    if not packet.isascii():
        return
    try:
        header, body = parse_packet(packet)
    except FormatError:
        return
    assert parse_packet(header.emit() + b";" + body) == (header, body)


def _check_events(mode: Mode, packet: bytes, found: list[Event]) -> None:
    if mode is Mode.PLAIN:
        assert found == [Text(packet)]
    if mode is Mode.EXTENDED:
        assert not any(isinstance(event, Text) for event in found)
    assert all(event.data == packet for event in found if isinstance(event, Text | Malformed))


def _check_memory(receiver: Receiver) -> None:
    reassembler: Any = receiver._reassembler
    slots = reassembler._slots.values()
    assert len(slots) <= LIMITS.slots
    for slot in slots:
        assert len(slot.pieces) <= LIMITS.pieces
        assert slot.have == sum(map(len, slot.pieces.values())) < slot.total <= LIMITS.total
        assert all(slot.pieces.values()), "an empty piece was kept"
        ends = [at + len(slot.pieces[at]) for at in sorted(slot.pieces)]
        assert all(end <= at for end, at in zip(ends, sorted(slot.pieces)[1:], strict=False)), "pieces overlap"
    assert not reassembler.given_up
    accounts: Any = receiver._accounts
    assert len(accounts._runs) <= accounting.MAX_RUNS
    assert len(accounts._recent) <= accounting.RECENT
    assert all(first <= last for first, last in accounts._runs)
    assert all(left[1] < right[0] for left, right in zip(accounts._runs, accounts._runs[1:], strict=False))


def _check_report(receiver: Receiver, packets: int, events: list[Event]) -> None:
    report = receiver.report()
    assert report.packets == packets
    assert report.messages == sum(isinstance(event, Message) for event in events)
    assert report.plain == sum(isinstance(event, Text) for event in events)
    assert report.malformed == sum(isinstance(event, Malformed) for event in events)
    assert report.missing_count == sum(last - first + 1 for first, last in report.missing)
    assert report.lost >= 0
    assert len(receiver.retransmit_request()) <= MAX_CHUNK
    pieces = sum(event.fragments for event in events if isinstance(event, Message))
    assert pieces + report.plain + report.malformed <= packets, "more came out than went in"


LONG = Record("x" * 1500, usec=5_000_000, pairs=(("SUBSYSTEM", "net"), ("DEVICE", "+pci:0000:00:03.0")))
USERDATA = SenderTarget(
    extended=True,
    prefix_release=True,
    release="6.12.0-1-amd64",
    userdata=(("role", "web"), ("id", "7")),
    sysdata=Sysdata(cpu=True, taskname=True, release=True, msgid=True),
)


def _packets() -> Iterator[list[bytes]]:
    """Streams of packets as senders make them, and with what happens to packets on the way."""
    for target in (SenderTarget(), SenderTarget(extended=True), USERDATA):
        sender = Sender(target)
        texts = ("[drm] ready", "two\nlines", "tab\there \\ é", "")
        stream = [packet for at, text in enumerate(texts) for packet in sender.packets(Record(text, at * 1000))]
        yield stream
        yield [stream[2], stream[0], stream[0], *stream[1:]]  # late, twice
        pieces = sender.packets(LONG)
        yield pieces
        yield [pieces[-1], pieces[0], pieces[0]]
        yield [*pieces[:1], *sender.packets(LONG)[:1], *sender.packets(LONG)[:1], *sender.packets(LONG)[:1]]
    yield [b"6,10,5000000,-;first boot\n", b"6,0,100,-;second boot\n", b"6,18446744073709551615,200,-;the last\n"]
    yield [b"6,1,1,-,ncfrag=%d/9;x" % at for at in range(9)]
    yield [
        b"6,1,1,-,ncfrag=0/9;abcdef",
        b"6,1,1,-,ncfrag=3/9;defghi",
        b"6,1,1,-,ncfrag=2/9;xy",
        b"6,1,1,-,ncfrag=0/9;a",
    ]
    yield [b"6,1,1,-,ncfrag=0/4;ab", b"6,1,1,-,ncfrag=1/4;bc", b"6,1,2,-,ncfrag=2/4;cd"]
    yield from captured_payloads()


def encoded() -> Iterator[bytes]:
    for stream in _packets():
        yield b"\0" + b"".join(b"\x01" + block(packet) for packet in stream[:9])
        yield b"\x02" + b"".join(b"\x1e" + block(packet) for packet in stream[:2])


TOKENS = (b",-;", b",c;", b",+;", b",ncfrag=0/", b"6,1,1,", b"6.1.0,", b";", b"\n key=value\n", b"\\x0a", b",caller=T1")
TARGET = Target(run, encoded, TOKENS, max_len=900)
