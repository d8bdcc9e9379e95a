"""RSP framing: bytes to events and back, as tables and for anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients.gdb.packet import MAX_PACKET, Decoder, Event, Packet, Sign, decode, encode, frame

OK = Packet(b"OK")


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"+-\x03", [Sign.ACK, Sign.NAK, Sign.INTERRUPT], id="signs"),
        pytest.param(b"$OK#9a", [OK], id="a packet"),
        pytest.param(b"$OK#9A", [OK], id="digits in capitals"),
        pytest.param(b"+$OK#9a+$#00", [Sign.ACK, OK, Sign.ACK, Packet(b"")], id="several, one empty"),
        pytest.param(b"junk$OK#9ajunk", [OK], id="junk around"),
        pytest.param(b"$OK#9b", [Sign.BAD], id="wrong checksum"),
        pytest.param(b"$OK# 9", [Sign.BAD], id="a checksum that is a number to Python alone"),
        pytest.param(b"$OK#zz+", [Sign.BAD, Sign.ACK], id="no checksum"),
        pytest.param(b"$O$OK#9a", [Sign.BAD, OK], id="the end of the first is lost"),
        pytest.param(b"$O+-\x03K#f8", [Packet(b"O+-\x03K")] if sum(b"O+-\x03K") % 256 == 0xF8 else [Sign.BAD], id="signs inside"),
        pytest.param(b"$a}#0", [], id="not all of it"),
        pytest.param(b"$" + b"a" * (MAX_PACKET + 9), [Sign.LONG], id="no end"),
        pytest.param(b"$" + b"a" * (MAX_PACKET + 1) + b"#00+", [Sign.LONG, Sign.ACK], id="too long"),
        pytest.param(b"$0* #7a", [Packet(b"0000")], id="a run: the manual's example"),
        pytest.param(b"$}]#da", [Packet(b"}")], id="an escape"),
        pytest.param(b"$*\x22#4c", [Sign.BAD], id="a run of nothing"),
        pytest.param(b"$a*#8b", [Sign.BAD], id="a run without a count"),
        pytest.param(b"$a}#de", [Sign.BAD], id="an escape of nothing"),
    ],
)  # fmt: skip
def test_bytes_to_events(wire: bytes, events: list[Event]) -> None:
    assert Decoder().feed(wire) == events


def test_a_packet_in_pieces() -> None:
    """kgdboe sends thirty bytes a datagram."""
    decoder = Decoder()
    assert [decoder.feed(bytes((octet,))) for octet in b"+$OK#9a"] == [[Sign.ACK], [], [], [], [], [], [OK]]


def test_a_small_packet_that_means_a_large_one_is_refused() -> None:
    assert decode(b"a" + b"*~" * (MAX_PACKET // 97)) is not None
    assert decode(b"a" + b"*~" * (MAX_PACKET // 97 + 1)) is None


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        pytest.param(b"", b"$#00", id="empty"),
        pytest.param(b"m", b"$m#6d", id="one"),
        pytest.param(b"000", b"$000#90", id="three are no run"),
        pytest.param(b"0000", b"$0* #7a", id="four are"),
        pytest.param(b"0" * 7, b'$0*"0#ac', id="seven would be '#'"),
        pytest.param(b"0" * 98, b"$0*~#d8", id="the longest run"),
        pytest.param(b"a}#$*z", b"$a}]}\x03}\x04}\nz#3d", id="what must be escaped"),
    ],
)
def test_data_to_bytes(data: bytes, wire: bytes) -> None:
    assert frame(data)[:-2] == wire[:-2]
    assert Decoder().feed(frame(data)) == [Packet(data)]


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=4), st.integers(1, 300)), max_size=8))
def test_round_trip(parts: list[tuple[bytes, int]]) -> None:
    data = b"".join(part * count for part, count in parts)[: MAX_PACKET // 2]
    assert decode(encode(data)) == data
    assert not set(encode(data)) & set(b"#$")
    assert Decoder().feed(b"x" + frame(data) + b"+") == [Packet(data), Sign.ACK]


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"$", b"#", b"#00", b"}", b"*", frame(b"OK")]))))
def test_anything_in_any_pieces(pieces: list[bytes]) -> None:
    """Nothing raises, what is held is bounded, and pieces mean what the whole means."""
    decoder, events = Decoder(), list[Event]()
    for piece in pieces:
        events += decoder.feed(piece)
        assert len(decoder._held) <= MAX_PACKET + 4
    assert events == Decoder().feed(b"".join(pieces))
