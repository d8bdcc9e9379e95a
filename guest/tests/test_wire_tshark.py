"""Every kind of frame that the stack makes, in front of Wireshark's dissectors: no complaint, no wrong checksum."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

import images
from guest.netpoll import netpoll_set_trap
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.middleware.pcapng import Direction, Writer
from guest.tests.test_core_neighbours import arp_request, solicit, watch
from guest.tests.wired import inject, wired, wired6

FIELDS = ["ip.checksum.status", "udp.checksum.status", "icmpv6.checksum.status", "_ws.malformed", "_ws.expert.message"]
GOOD = {"udp over ipv4": "1|1|||", "udp over ipv6": "|1|||", "arp": "||||", "neighbour": "||1||"}


def datagrams(version: int) -> list[bytes]:
    """Several sizes, from one template, so that the identification counts."""
    addresses = ("10.0.0.1", "10.0.0.2") if version == 4 else ("fd00::1", "fd00::2")
    local, remote = (ipaddress.ip_address(a) for a in addresses)
    build = make_frame(
        Endpoints(bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), local, remote, 5, 7)
    ).build
    return [build(bytes(range(256))[:size]) for size in (0, 1, 2, 100, 255)]


def answers() -> list[tuple[str, bytes]]:
    """What goes back while trapped: to ARP, to a neighbour solicitation, to duplicate address detection."""
    found = []
    for wire, kind, question in (
        (wired(), "arp", arp_request()),
        (wired6(), "neighbour", solicit()),
        (wired6(), "neighbour", solicit(bytes(16))),
    ):
        seen = watch(wire.a)
        netpoll_set_trap(wire.net, 1)
        inject(wire, question)
        found += [(kind, frame) for frame in seen]
    return found


def test_tshark_finds_no_fault(tmp_path: Path, tools: images.Tools) -> None:
    frames = [(f"udp over ipv{v}", frame) for v in (4, 6) for frame in datagrams(v)] + answers()
    assert len(frames) == 13
    path = tmp_path / "frames.pcapng"
    with Writer.create(path, application="test", system="none") as writer:
        number = writer.add_interface("wire0")
        for at, (_, frame) in enumerate(frames):
            writer.packet(number, at, frame, direction=Direction.OUTBOUND)
    command = [*tools.argv("tshark"), "-r", str(path), "-T", "fields", "-E", "separator=|"]
    for protocol in ("ip", "udp"):
        command += ["-o", f"{protocol}.check_checksum:TRUE"]
    for field in FIELDS:
        command += ["-e", field]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown == [GOOD[kind] for kind, _ in frames]
