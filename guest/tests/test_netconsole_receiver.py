"""The receiver's account: gaps, late, duplicates, restarts, fragments in any order, and senders who mean harm."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest.netpoll.clients.netconsole.accounting import MAX_RUNS, Duplicate, Gap, Late, Restarted
from guest.netpoll.clients.netconsole.message import Message
from guest.netpoll.clients.netconsole.reassembly import Incomplete, Limits
from guest.netpoll.clients.netconsole.receiver import Event, Malformed, Mode, Receiver, Text
from guest.netpoll.clients.netconsole.sender import Record, Sender, Target


def packet(seq: int, usec: int | None = None) -> bytes:
    return f"6,{seq},{seq * 1000 if usec is None else usec},-;m{seq}\n".encode()


def notes(events: list[Event]) -> list[Event | int]:
    """Messages by number, everything else as it is."""
    return [event.seq if isinstance(event, Message) else event for event in events]


SEQUENCES: dict[str, tuple[list[bytes], list[Event | int]]] = {
    "in order": ([packet(5), packet(6)], [5, 6]),
    "gap": ([packet(5), packet(9)], [5, Gap(6, 8), 9]),
    "gap, filled in the middle": (
        [packet(5), packet(9), packet(7)],
        [5, Gap(6, 8), 9, Late(7), 7],
    ),
    "swapped": ([packet(5), packet(7), packet(6)], [5, Gap(6, 6), 7, Late(6), 6]),
    "duplicate": ([packet(5), packet(5)], [5, Duplicate(5)]),
    "duplicate of a late one": (
        [packet(5), packet(7), packet(6), packet(6)],
        [5, Gap(6, 6), 7, Late(6), 6, Duplicate(6)],
    ),
    "the first two swapped": ([packet(6), packet(5)], [6, Late(5), 5]),
    "before the first, with a hole": ([packet(9), packet(6), packet(8)], [9, Late(6), 6, Late(8), 8]),
    "restart from zero": (
        [packet(500), packet(502), packet(0), packet(1)],
        [500, Gap(501, 501), 502, Restarted(0, 1), 0, 1],
    ),
    "restart with a number that was there, at another time": (
        [packet(5), packet(6), packet(5, 7_000)],
        [5, 6, Restarted(5, 0), 5],
    ),
    "restart beyond the highest": (
        [packet(5, 60_000_000), packet(9, 1_000_000)],
        [5, Restarted(9, 0), 9],
    ),
    "clocks of two CPUs disagree": ([packet(5, 1_000_500), packet(6, 1_000_000)], [5, 6]),
    "plain text in between": ([packet(5), b"hello\n", packet(6)], [5, Text(b"hello\n"), 6]),
}


@pytest.mark.parametrize(("packets", "events"), SEQUENCES.values(), ids=SEQUENCES.keys())
def test_sequences(packets: list[bytes], events: list[Event | int]) -> None:
    receiver = Receiver()
    assert notes([event for data in packets for event in receiver.receive(data, 0.0)]) == events
    assert receiver.report().packets == len(packets)


def test_report_adds_up() -> None:
    receiver = Receiver()
    for seq in (10, 11, 15, 12, 12, 20, 3, 4):
        receiver.receive(packet(seq, 100 if seq < 10 else seq * 10**8), 0.0)
    report = receiver.report()
    assert (report.messages, report.late, report.duplicates) == (7, 3, 1)
    assert (report.missing, report.missing_count) == ([(5, 9), (13, 14), (16, 19)], 11)
    assert not report.clean


@given(st.permutations(range(20)), st.sets(st.integers(1, 18)))
def test_missing_is_exactly_what_was_lost(order: list[int], lost: set[int]) -> None:
    """However reordered, what is left open in the end is what never came (first and last always come)."""
    receiver = Receiver()
    for seq in order:
        if seq not in lost:
            receiver.receive(packet(seq), 0.0)
    report = receiver.report()
    assert [seq for a, b in report.missing for seq in range(a, b + 1)] == sorted(lost)
    assert (report.restarts, report.lost, report.messages) == (0, 0, 20 - len(lost))


def test_severity_filter_hides_but_counts() -> None:
    receiver = Receiver(max_severity=4)
    events = [e for data in (b"6,1,0,-;a\n", b"4,2,0,-;b\n", b"7,4,0,-;c\n") for e in receiver.receive(data, 0.0)]
    assert notes(events) == [2, Gap(3, 3)]
    assert receiver.report().messages == 3


MODES = {
    "plain": (Mode.PLAIN, packet(1), [Text(packet(1))]),
    "auto": (Mode.AUTO, b"\xff", [Text(b"\xff")]),
    "extended": (Mode.EXTENDED, b"hello", [Malformed("no extended header in b'hello'", b"hello")]),
}


@pytest.mark.parametrize(("mode", "data", "events"), MODES.values(), ids=MODES.keys())
def test_modes(mode: Mode, data: bytes, events: list[Event]) -> None:
    assert Receiver(mode).receive(data, 0.0) == events


# Documentation/networking/netconsole.rst
FIRST = b"6,416,1758426,-,ncfrag=0/31;the first chunk,"
SECOND = b"6,416,1758426,-,ncfrag=16/31; the 2nd chunk."

FRAGMENTS: dict[str, tuple[list[bytes], list[str]]] = {
    "in order": ([FIRST, SECOND], ["Message"]),
    "swapped": ([SECOND, FIRST], ["Message"]),
    "one twice": ([FIRST, FIRST, SECOND], ["Message"]),
    "one again after the end": ([FIRST, SECOND, SECOND], ["Message", "Duplicate"]),
    "another message between": ([FIRST, packet(417, 1758500), SECOND], ["Message", "Late", "Message"]),
    "one lost": ([FIRST], ["Incomplete"]),
    "slice beyond the total": ([b"6,1,0,-,ncfrag=30/31;ab"], ["Malformed"]),
    "offset beyond the total": ([b"6,1,0,-,ncfrag=31/31;a"], ["Malformed"]),
    "total zero": ([b"6,1,0,-,ncfrag=0/0;a"], ["Malformed"]),
    "empty slice": ([b"6,1,0,-,ncfrag=0/31;"], ["Malformed"]),
    "huge total": ([b"6,1,0,-,ncfrag=0/999999999;a"], ["Malformed"]),
    "overlap": ([FIRST, b"6,416,1758426,-,ncfrag=15/31;XY", SECOND], ["Malformed", "Message"]),
    "same offset, other bytes": ([FIRST, FIRST[:-1] + b"!", SECOND], ["Malformed", "Message"]),
    "other total": ([FIRST, b"6,416,1758426,-,ncfrag=16/32; the 2nd chunk."], ["Incomplete", "Incomplete"]),
    "other header": ([FIRST, b"5,416,1758426,-,ncfrag=16/31; the 2nd chunk."], ["Incomplete", "Incomplete"]),
}


@pytest.mark.parametrize(("packets", "kinds"), FRAGMENTS.values(), ids=FRAGMENTS.keys())
def test_fragments(packets: list[bytes], kinds: list[str]) -> None:
    receiver = Receiver()
    events = [event for data in packets for event in receiver.receive(data, 0.0)] + receiver.close()
    assert [type(event).__name__ for event in events] == kinds
    for message in events:
        if isinstance(message, Message) and message.seq == 416:
            assert (message.text, message.fragments) == ("the first chunk, the 2nd chunk.", 2)


def test_fragments_time_out() -> None:
    receiver = Receiver(limits=Limits(timeout=2.0))
    assert receiver.receive(FIRST, 10.0) == []
    assert receiver.tick(11.9) == []
    assert receiver.tick(12.0) == [Incomplete(416, 16, 31, "incomplete after 2 s")]
    assert receiver.receive(SECOND, 12.1) == []
    assert receiver.receive(b"plain", 14.2) == [Incomplete(416, 15, 31, "incomplete after 2 s"), Text(b"plain")]


def test_the_oldest_pieces_make_room() -> None:
    receiver = Receiver(limits=Limits(slots=2))
    events = [e for seq in (1, 2, 3) for e in receiver.receive(b"6,%d,0,-,ncfrag=0/9;ab" % seq, 0.0)]
    assert events == [Incomplete(1, 2, 9, "too many messages in pieces")]


def test_hostile_fragments_are_bounded_in_memory() -> None:
    """One byte each, new numbers and totals without end: some megabytes at most, and all of it is given up."""
    receiver = Receiver()
    rng = random.Random(11)
    tracemalloc.start()
    for at in range(40_000):
        offset = rng.randrange(80_000)
        receiver.receive(b"6,%d,0,-,ncfrag=%d/81000;x" % (at // 600, offset), 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20  # 32 slots of 256 pieces
    assert receiver.report().messages == 0
    assert receiver.report().incomplete > 0


def test_hostile_gaps_are_bounded() -> None:
    receiver = Receiver()
    for at in range(MAX_RUNS + 10):
        receiver.receive(packet(at * 3, at), 0.0)
    report = receiver.report()
    assert len(report.missing) == MAX_RUNS
    assert report.lost == 18
    assert report.missing_count + report.lost == (MAX_RUNS + 9) * 2


def test_a_gap_of_2_to_the_64() -> None:
    receiver = Receiver()
    receiver.receive(packet(0, 0), 0.0)
    receiver.receive(packet(2**64 - 1, 1), 0.0)
    assert receiver.report().missing_count == 2**64 - 2
    assert len(receiver.retransmit_request()) <= 1000


def test_retransmit_request() -> None:
    receiver = Receiver()
    assert receiver.retransmit_request() == b""
    receiver.receive(packet(10), 0.0)
    assert receiver.retransmit_request() == b"ncrx10"
    for seq in (11, 14, 16):
        receiver.receive(packet(seq), 0.0)
    assert receiver.retransmit_request() == b"ncrx11 12 13 15"


HOSTILE = st.one_of(
    st.binary(max_size=60),
    st.from_regex(rb"6,[0-9]{1,2},[0-9]{1,2},-,ncfrag=[0-9]{1,2}/[0-9]{1,2};[a-c]{0,20}", fullmatch=True),
    st.from_regex(rb"(6\.1,)?[0-9]{1,2},[0-9]{1,20},[0-9]{1,20},[-c+];.{0,5}", fullmatch=True),
)


@settings(deadline=None)
@given(st.lists(HOSTILE, max_size=60), st.sampled_from(Mode))
def test_nothing_raises_and_every_packet_is_accounted_for(packets: list[bytes], mode: Mode) -> None:
    receiver = Receiver(mode, limits=Limits(slots=3, pieces=4, timeout=5))
    for at, data in enumerate(packets):
        receiver.receive(data, float(at))
    receiver.close()
    report = receiver.report()
    assert report.packets == len(packets)
    assert report.messages + report.plain + report.malformed + report.duplicates <= len(packets)


@given(st.lists(st.text(max_size=4000), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_shuffled_and_doubled_fragments_still_make_every_message(texts: list[str], rng: random.Random) -> None:
    sender = Sender(Target(extended=True, userdata=(("k", "v" * 199),) * 8))
    packets = [p for at, text in enumerate(texts) for p in sender.packets(Record(text, at))]
    packets += rng.sample(packets, len(packets) // 2)
    rng.shuffle(packets)
    receiver = Receiver()
    events = [event for data in packets for event in receiver.receive(data, 0.0)]
    found = {event.seq: event.text for event in events if isinstance(event, Message)}
    assert found == dict(enumerate(texts))
