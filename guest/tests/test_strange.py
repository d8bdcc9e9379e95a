"""Strange frames: each is right but for one thing, as an independent reader of frames sees it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.wire import arp, ethernet
from guest.strange import KINDS, PAYLOAD, Other, forge, strange_frame
from harness.observe.frames import frame_keys

ENDS = Endpoints(b"\2" * 6, b"\4" * 6, IPv4Address("198.51.100.100"), IPv4Address("198.51.100.10"), 6666, 6665)
OTHER = Other.of({"ip": "203.0.113.254", "port": 40000, "mac": "52:54:00:73:74:01"})
PAYLOADS = [bytes(range(64)), b"\xff" * 65, bytes(512)]

RIGHT = frame_keys(make_frame(ENDS).build(PAYLOADS[0]))
WRONG: dict[str, dict[str, Any]] = {
    "wrong-port": {"dport": 40000},
    "wrong-address": {"dip": "203.0.113.254"},
    "wrong-peer": {"sip": "203.0.113.254"},
    "bad-udp-checksum": {"csum": "bad"},
    "bad-ip-checksum": {"ip_csum": "bad"},
    "fragment": {"csum": None},  # of what is not whole none can be said
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_frame_is_right_but_for_what_its_kind_names(kind: str) -> None:
    keys = frame_keys(strange_frame(kind, ENDS, OTHER, PAYLOADS[0]))
    changed = {key: keys.get(key) for key in RIGHT | keys if keys.get(key) != RIGHT.get(key)}
    assert changed == WRONG[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("payload", PAYLOADS, ids=len)
def test_the_payload_is_at_the_same_place_in_each(kind: str, payload: bytes) -> None:
    assert strange_frame(kind, ENDS, OTHER, payload)[PAYLOAD:] == payload


def test_a_bad_checksum_is_never_none() -> None:
    """0 would say that there is none, and that is right."""
    for number in range(2000):
        frame = strange_frame("bad-udp-checksum", replace(ENDS, local_port=1 + number * 31), OTHER, b"x" * (number % 7))
        assert frame_keys(frame)["csum"] == "bad"


def test_an_arp_request_asks_everybody_for_the_peers_address() -> None:
    frame = strange_frame("arp-request", ENDS, OTHER, PAYLOADS[0])
    asked = arp.parse(frame[ethernet.HEADER_LEN :])
    assert frame[:6] == ethernet.BROADCAST
    assert (asked.operation, asked.spa, asked.tpa) == (arp.ARPOP_REQUEST, ENDS.local_ip.packed, ENDS.remote_ip.packed)
    assert (asked.sha, asked.tha) == (ENDS.local_mac, bytes(6))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("ip", "sip", "203.0.113.254"), ("port", "sport", 40000), ("mac", "smac", "52:54:00:73:74:01")],
)
def test_a_forged_sender_differs_in_one_part(part: str, key: str, value: object) -> None:
    right, forged = (frame_keys(make_frame(ends).build(b"c")) for ends in (ENDS, forge(ENDS, part, OTHER)))
    assert {name: forged[name] for name in forged if forged[name] != right[name]} == {key: value}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError, match="odd"):
        strange_frame("odd", ENDS, OTHER, b"")
