"""sysrq over netconsole: which bytes are keys, and who may send them."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients.sysrq import (
    KEYS,
    MAX_KEYS,
    Peer,
    SysrqReceiver,
    SysrqTrigger,
    decode_keys,
    encode_keys,
)

HOST = IPv4Address("10.0.0.1")
MAC = bytes.fromhex("525400000001")


def slides_loop(data: bytes) -> str:
    """The loop of the slides as it stands (its page "Extending Netconsole"), to show what ours corrects."""
    return "".join(chr(c) for c in data if not (c < ord("a") or c > ord("Z") or c == ord("\n")))


def test_the_slides_filter_lets_nothing_through_and_ours_does() -> None:
    everything = bytes(range(256))
    assert slides_loop(everything) == ""
    assert decode_keys(everything) == "0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("data", "keys"),
    [(b"t\n", "t"), (b"s\r\nu\nb", "sub"), (b"T", ""), (b"9", "9"), (b"\0\xff{`/:", ""), (b"", "")],
)
def test_decode(data: bytes, keys: str) -> None:
    assert decode_keys(data) == keys


@given(st.text(st.sampled_from(sorted(KEYS)), min_size=1, max_size=MAX_KEYS))
def test_keys_round_trip(keys: str) -> None:
    assert decode_keys(encode_keys(keys)) == keys


@pytest.mark.parametrize("keys", ["", "T", "a b", "a\n", "é", "a" * (MAX_KEYS + 1)])
def test_what_a_host_cannot_ask_for(keys: str) -> None:
    with pytest.raises(ValueError, match="sysrq keys"):
        encode_keys(keys)


ANY_PORT = Peer(HOST)
STRICT = Peer(HOST, 6666, MAC)

SOURCES = {
    "the peer": (STRICT, Peer(HOST, 6666, MAC), True),
    "other address": (STRICT, Peer(IPv4Address("10.0.0.2"), 6666, MAC), False),
    "other port": (STRICT, Peer(HOST, 6667, MAC), False),
    "other MAC": (STRICT, Peer(HOST, 6666, bytes(6)), False),
    "MAC not known": (STRICT, Peer(HOST, 6666), False),
    "port and MAC not configured": (ANY_PORT, Peer(HOST, 12345, MAC), True),
    "other address, nothing else configured": (ANY_PORT, Peer(IPv4Address("10.0.0.2")), False),
    "IPv6": (Peer(IPv6Address("fe80::1")), Peer(IPv6Address("fe80::1"), 5), True),
    "IPv4-mapped is not the IPv4 peer": (ANY_PORT, Peer(IPv6Address("::ffff:10.0.0.1")), False),
}


@pytest.mark.parametrize(("peer", "source", "admitted"), SOURCES.values(), ids=SOURCES.keys())
def test_only_the_configured_peer(peer: Peer, source: Peer, admitted: bool) -> None:
    pressed: list[str] = []
    receiver = SysrqReceiver(peer, pressed.append)
    assert receiver.receive(source, b"sub\n") == ("sub" if admitted else "")
    assert pressed == (["s", "u", "b"] if admitted else [])
    assert receiver.counts["stranger"] == (0 if admitted else 1)


def test_only_what_is_allowed() -> None:
    pressed: list[str] = []
    receiver = SysrqReceiver(ANY_PORT, pressed.append, allowed=frozenset("st"))
    assert receiver.receive(ANY_PORT, b"sbt\n") == "st"
    assert pressed == ["s", "t"]
    assert receiver.counts == {"keys": 2, "forbidden": 1}


def test_allowed_must_be_keys() -> None:
    with pytest.raises(ValueError, match="'T'"):
        SysrqReceiver(ANY_PORT, print, allowed=frozenset("tT"))


def test_a_flood_in_one_datagram_is_refused_whole() -> None:
    pressed: list[str] = []
    receiver = SysrqReceiver(ANY_PORT, pressed.append)
    assert receiver.receive(ANY_PORT, b"b" * 1400) == ""
    assert receiver.receive(ANY_PORT, b"h" * MAX_KEYS + b"\r\n") == "h" * MAX_KEYS
    assert (pressed, receiver.counts["long"]) == (["h"] * MAX_KEYS, 1)


@given(st.binary(max_size=100))
def test_only_keys_ever_reach_the_sink(data: bytes) -> None:
    pressed: list[str] = []
    SysrqReceiver(ANY_PORT, pressed.append).receive(ANY_PORT, data)
    assert set(pressed) <= KEYS


def test_trigger_writes_one_key_a_write(tmp_path: Path) -> None:
    """A pipe that is read after each key stands for the proc file, which looks at the first byte of each write."""
    fifo = tmp_path / "trigger"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with SysrqTrigger(fifo) as trigger:
        for key in "tb":
            trigger(key)
            assert os.read(reader, 100) == key.encode()
    os.close(reader)


def test_trigger_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="sysrq-trigger"):
        SysrqTrigger(tmp_path / "sysrq-trigger")
