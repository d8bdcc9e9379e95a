"""The numbered stream: what it is made of, and that each kind of damage is seen and named."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients import sequence
from guest.netpoll.clients.sequence import Generator, Receiver, Stream, Summary, Why, generate

STREAM = Stream(seed=42, count=50, min_length=20, max_length=120)
PAYLOADS = list(generate(STREAM))


def received(*datagrams: bytes, stream: Stream = STREAM) -> Summary:
    receiver = Receiver(stream)
    for datagram in datagrams:
        receiver.receive(datagram)
    return receiver.summary()


def test_golden_bytes() -> None:
    """The format is fixed: a guest and a host of different versions of this file understand each other."""
    payload = Generator(Stream(seed=1, count=10, min_length=24, max_length=24)).payload(3)
    assert payload.hex(" ", 4) == "4e505351 ef4f9c78 00000000 00000003 001809a2 46c92ee5"


def test_a_stream_regenerates_and_its_lengths_spread_over_the_bounds() -> None:
    stream = Stream(seed=9, count=2000, min_length=100, max_length=103)
    first, second = list(generate(stream)), list(generate(stream))
    assert first == second
    assert {len(p) for p in first} == {100, 101, 102, 103}
    assert len(set(first)) == 2000


@pytest.mark.parametrize("other", [Stream(43, 50, 20, 120), Stream(42, 50, 20, 121), Stream(42, 50, 21, 120)])
def test_streams_differ_by_seed_and_bounds(other: Stream) -> None:
    arrival = Receiver(STREAM).receive(Generator(other).payload(0))
    assert (arrival.ok, arrival.why) == (False, Why.FOREIGN)


def test_all_in_order_is_perfect() -> None:
    summary = received(*PAYLOADS)
    assert summary.perfect
    assert summary.counts == {"ok": 50}
    assert summary.missing == []


def test_reordered_duplicated_and_missing_are_named() -> None:
    order = [0, 1, 3, 2, 2, 5, 9, 8]
    summary = received(*(PAYLOADS[i] for i in order))
    assert summary.missing == [[4, 4], [6, 7], [10, 49]]
    assert summary.missing_count == 43
    assert summary.late == [2, 8]
    assert summary.duplicates == {2: 1}
    assert not summary.complete


def test_complete_but_shuffled_is_not_perfect() -> None:
    shuffled = PAYLOADS[:]
    random.Random(5).shuffle(shuffled)
    summary = received(*shuffled)
    assert summary.complete
    assert not summary.perfect


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


P = PAYLOADS[7]
DAMAGE = {
    "empty": (b"", Why.FOREIGN, None),
    "only magic": (b"NPSQ", Why.TRUNCATED, None),
    "header alone": (P[:18], Why.TRUNCATED, 7),
    "last byte cut": (P[:-1], Why.TRUNCATED, 7),
    "tail": (P + b"\0", Why.OVERLONG, 7),
    "magic": (flip(P, 0), Why.FOREIGN, None),
    "stream id": (flip(P, 5), Why.FOREIGN, 7),
    "sequence high": (flip(P, 8), Why.OUT_OF_RANGE, 7 | 0x10 << 56),
    "sequence low": (flip(P, 15), Why.CORRUPT, 7 ^ 0x10),
    "length": (flip(P, 17), Why.CORRUPT, 7),
    "first of fill": (flip(P, 18), Why.CORRUPT, 7),
    "last of fill": (flip(P, len(P) - 1), Why.CORRUPT, 7),
    "text": (b"hello from somebody else entirely", Why.FOREIGN, None),
}


@pytest.mark.parametrize(("data", "why", "seq"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_and_never_counts_as_received(data: bytes, why: Why, seq: int | None) -> None:
    receiver = Receiver(STREAM)
    arrival = receiver.receive(data)
    assert (arrival.why, arrival.ok, arrival.seq) == (why, False, seq)
    assert arrival.detail
    assert receiver.received == 0
    assert receiver.summary().bad_count == 1


def test_corrupt_says_where() -> None:
    assert f"byte 20 of {len(P)}" in Receiver(STREAM).receive(flip(P, 20)).detail


@given(st.integers(0, len(P) * 8 - 1))
def test_every_single_bit_is_covered(bit: int) -> None:
    wrong = bytearray(P)
    wrong[bit // 8] ^= 1 << bit % 8
    assert not Receiver(STREAM).receive(bytes(wrong)).ok


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: P[:16] + tail))
def test_no_bytes_crash_the_receiver(data: bytes) -> None:
    assert Receiver(STREAM).receive(data).ok == (data in PAYLOADS)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_missing_is_exactly_what_was_left_out(order: list[int], lost: set[int]) -> None:
    stream = Stream(seed=3, count=12, min_length=18, max_length=30)
    generator, receiver = Generator(stream), Receiver(stream)
    for seq in order:
        if seq not in lost:
            assert receiver.receive(generator.payload(seq)).ok
    named = [seq for first, last in receiver.missing() for seq in range(first, last + 1)]
    assert named == sorted(lost)
    assert receiver.finished == (not lost)


def test_summary_is_json_and_bounded_when_everything_is_bad() -> None:
    receiver = Receiver(STREAM)
    for _ in range(sequence.MAX_DETAILS + 5):
        receiver.receive(b"junk")
    plain = json.loads(json.dumps(receiver.summary().to_dict()))
    assert plain["bad_count"] == sequence.MAX_DETAILS + 5
    assert len(plain["bad"]) == sequence.MAX_DETAILS
    assert plain["complete"] is False


@pytest.mark.parametrize(
    "arguments",
    [(1, 0), (1, -1), (1, 10, 17, 20), (1, 10, 30, 20), (1, 10, 20, 70_000), (1 << 63, 1)],
    ids=["no datagrams", "negative", "no room for the header", "bounds swapped", "over UDP", "seed too large"],
)
def test_impossible_streams_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need|fit"):
        Stream(*arguments)


def test_numbers_outside_the_stream_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.49"):
        Generator(STREAM).payload(50)


def test_fast_enough_for_thousands_a_second() -> None:
    """A guest under emulation is some 20 times slower than this machine and has to make thousands a second."""
    stream = Stream(seed=1, count=5000)
    start = time.process_time()
    assert received(*generate(stream), stream=stream).perfect
    assert time.process_time() - start < 0.5  # measured: 0.04
