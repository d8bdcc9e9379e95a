"""LACPDU and Marker: octets against the standard's layout and Linux's own frames; truncations, lengths, hostile input."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.bonding import lacpdu
from guest.netpoll.bonding.lacpdu import Information, Lacpdu, Marker
from guest.netpoll.wire.errors import Malformed, Truncated, WireError

ACTOR = Information(0xFFFF, bytes.fromhex("525400123456"), 9, 0xFF, 1, 0x3D)
PARTNER = Information(0x8000, bytes.fromhex("001122334455"), 0x1234, 0x80, 0x102, 0x3F)

# IEEE 802.1AX-2014 figure 6-7, field by field
GOLDEN = bytes.fromhex(
    "01 01"  # subtype LACP, version
    "01 14 ffff 525400123456 0009 00ff 0001 3d 000000"  # actor
    "02 14 8000 001122334455 1234 0080 0102 3f 000000"  # partner
    "03 10 0000 000000000000000000000000"  # collector
    "00 00" + "00" * 50  # terminator
)


# Whole frames as Linux 6.1's bonding driver sent them: before any answer, attached, collecting and distributing.
_TAIL = "000000" + "03100000" + "00" * 12 + "00" * 52
_LINUX = "0180c20000025254006e7002880901010114ffff5254006e7001000900ff0002"
LINUX = {
    "alone": (0x45, f"{_LINUX}45000000" + "0214ffff000000000000000100ff000100" + _TAIL),
    "attached": (0x0D, f"{_LINUX}0d000000" + "0214ffff525400686f03000900ff00020d" + _TAIL),
    "flowing": (0x3D, f"{_LINUX}3d000000" + "0214ffff525400686f03000900ff00023d" + _TAIL),
}


@pytest.mark.parametrize(("state", "octets"), LINUX.values(), ids=LINUX)
def test_linux_frames_are_read_and_written_alike(state: int, octets: str) -> None:
    frame = bytes.fromhex(octets)
    pdu = lacpdu.parse(frame[14:])
    assert isinstance(pdu, Lacpdu)
    assert pdu.actor == Information(0xFFFF, bytes.fromhex("5254006e7001"), 9, 0xFF, 2, state)
    assert lacpdu.frame(pdu, frame[6:12]) == frame


def test_golden_bytes() -> None:
    assert lacpdu.emit(Lacpdu(ACTOR, PARTNER)) == GOLDEN
    assert len(GOLDEN) == lacpdu.PDU_LEN


def test_parsed_is_what_was_emitted() -> None:
    assert lacpdu.parse(GOLDEN) == Lacpdu(ACTOR, PARTNER)
    assert lacpdu.parse(memoryview(GOLDEN + b"padding")) == Lacpdu(ACTOR, PARTNER)


def test_frame_goes_to_the_slow_protocols_address() -> None:
    frame = lacpdu.frame(Lacpdu(ACTOR, PARTNER), bytes.fromhex("020000000001"))
    assert frame[:14] == bytes.fromhex("0180c2000002 020000000001 8809")
    assert frame[14:] == GOLDEN
    assert len(frame) == 124


@pytest.mark.parametrize("size", [0, 1, 2, 41, 109])
def test_truncated(size: int) -> None:
    with pytest.raises(Truncated):
        lacpdu.parse(GOLDEN[:size])


def patched(at: int, value: int) -> bytes:
    return GOLDEN[:at] + bytes((value,)) + GOLDEN[at + 1 :]


@pytest.mark.parametrize(
    ("at", "what"), [(0, "subtype"), (3, "actor"), (23, "partner"), (43, "collector")], ids=lambda v: str(v)
)
def test_wrong_subtype_or_length(at: int, what: str) -> None:
    with pytest.raises(Malformed, match=what):
        lacpdu.parse(patched(at, 0x77))


@pytest.mark.parametrize("at", [1, 2, 19, 22, 42, 50, 58, 100], ids=lambda at: f"octet {at}")
def test_version_types_and_reserved_are_not_validated(at: int) -> None:
    pdu = lacpdu.parse(patched(at, 0x77))
    assert isinstance(pdu, Lacpdu)
    assert (pdu.actor, pdu.partner) == (ACTOR, PARTNER)


def test_marker_is_answered_with_its_own_body() -> None:
    octets = bytes.fromhex("02 01 01 10 0001 525400123456 deadbeef 0000 00 00") + bytes(90)
    marker = lacpdu.parse(octets)
    assert marker == Marker(False, octets[4:18])
    response = lacpdu.emit(replace(marker, response=True))
    assert response == octets[:2] + b"\x02" + octets[3:]


@pytest.mark.parametrize(("at", "value"), [(2, 3), (3, 15)], ids=["type", "length"])
def test_malformed_marker(at: int, value: int) -> None:
    octets = bytearray(lacpdu.emit(Marker(False, bytes(14))))
    octets[at] = value
    with pytest.raises(Malformed, match="Marker"):
        lacpdu.parse(octets)


def test_state_in_words() -> None:
    assert lacpdu.state_text(0x3D) == "activity+aggregation+synchronization+collecting+distributing"
    assert lacpdu.state_text(0) == "-"


information = st.builds(
    Information,
    st.integers(0, 0xFFFF),
    st.binary(min_size=6, max_size=6),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFF),
)


@given(st.builds(Lacpdu, information, information, st.integers(0, 0xFFFF), st.integers(0, 0xFF)))
def test_round_trip(pdu: Lacpdu) -> None:
    assert lacpdu.parse(lacpdu.emit(pdu)) == pdu


@given(st.binary(max_size=130))
def test_any_octets_parse_or_raise(octets: bytes) -> None:
    try:
        pdu = lacpdu.parse(octets)
    except WireError:
        return
    assert len(lacpdu.emit(pdu)) == lacpdu.PDU_LEN
