"""Captured frames as the keys of evidence.

In: whether the kernel left the checksum to the hardware, whether checksums are put right (one octet), then the frame.
Held: never raises; keys are JSON; a datagram that `reference` finds right has its ports, addresses and a right checksum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address

from guest.tests.fuzz import reference
from guest.tests.fuzz.frames import captured_frames, mixed_frames, near_misses
from guest.tests.fuzz.table import Target
from harness.observe.frames import frame_keys

PARTIAL, REPAIR = 1, 2


def run(data: bytes) -> None:
    flags, frame = (data[0] if data else 0), data[1:]
    if flags & REPAIR:
        frame = reference.repaired(frame)
    keys = frame_keys(frame, bool(flags & PARTIAL))
    assert json.loads(json.dumps(keys, allow_nan=False)) == keys
    assert keys["len"] == len(frame)
    assert ("dmac" in keys) == (len(frame) >= 14)
    assert keys.get("csum", "ok") in ("ok", "bad", "none", "partial")
    if keys.get("ethertype") == 0x0800 and "vlan" not in keys:
        _check_ipv4(frame, keys)
    _check_datagram(frame, keys, bool(flags & PARTIAL))


def _check_ipv4(frame: bytes, keys: dict[str, object]) -> None:
    """Only a first piece has a UDP header, only a whole packet a checksum."""
    frag, size = reference.number(frame[20:22]), (frame[14] & 15) * 4 if len(frame) > 14 else 0
    assert "sport" not in keys or (not frag & 0x1FFF and len(frame) >= 14 + size + 8)
    assert "csum" not in keys or not frag & 0x3FFF


def _check_datagram(frame: bytes, keys: dict[str, object], partial: bool) -> None:
    found = reference.datagram(frame)
    if found is None:
        whole = keys.get("csum") in ("ok", "none") and keys.get("ip_csum", "ok") == "ok"
        assert not whole or "vlan" in keys or _cut_inside(keys, frame), f"{keys} of what is no datagram"
        return
    assert "malformed" not in keys
    assert (keys["sport"], keys["dport"], keys["udp_len"]) == (found.source, found.dest, len(found.payload) + 8)
    assert (keys["sip"], keys["dip"]) == (str(ip_address(found.src)), str(ip_address(found.dst)))
    assert keys["csum"] in (("partial",) if partial else ("ok", "none"))


def _cut_inside(keys: dict[str, object], frame: bytes) -> bool:
    """UDP is shorter than IP has room for: netpoll wants them equal, for the evidence it is a datagram all the same."""
    udp_len = keys.get("udp_len")
    return isinstance(udp_len, int) and udp_len < len(frame)


def encoded() -> Iterator[bytes]:
    for number, frame in enumerate(mixed_frames()):
        yield bytes((number % 4,)) + frame
    for frame in near_misses():
        yield b"\0" + frame
    for frame in captured_frames(2):
        yield b"\0" + frame


TARGET = Target(run, encoded, tokens=(b"\x08\x00\x45", b"\x86\xdd\x60", b"\x81\x00"), max_len=200)
