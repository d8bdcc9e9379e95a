"""What happens on a real tap while it is captured: run as `python -m harness.tests.capture_scenes SCENE FOLDER`.

A process of its own, because it enters a network namespace of its own and leaves nothing behind. Prints one JSON object:
what the scene's test wants to know.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from guest.netpoll.middleware.pcapng_read import read_file
from guest.netpoll.wire import vlan
from harness.observe.capture import Capture
from harness.observe.events import Clock, Evidence
from harness.testbed.namespace import enter
from harness.testbed.tap import open_tap
from harness.tests.test_observe_frames import FRAME, ethernet_frame, ipv4_packet, udp_datagram

TAP = "tap-n0"
SRC, DST = bytes([198, 51, 100, 10]), bytes([198, 51, 100, 100])


@dataclass
class Stage:
    """A tap, its capture, and both ways to put a frame on it."""

    tap: int
    capture: Capture
    evidence: Evidence
    folder: Path

    def from_guest(self, frame: bytes) -> None:
        """What QEMU does: write to the tap's descriptor."""
        assert os.write(self.tap, frame) == len(frame)

    def to_guest(self, frame: bytes) -> None:
        """What our stack on the host does."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind((TAP, 0))
            sender.send(frame)

    def frames(self) -> list[dict[str, Any]]:
        return [each for each in self.evidence.events if each["kind"] == "frame"]

    def errors(self) -> list[str]:
        return [each["what"] for each in self.evidence.events if each["kind"] == "error"]

    def readable(self) -> bool:
        return bool(select.select([self.capture], [], [], 0)[0])


def numbered(number: int, size: int = 100) -> bytes:
    payload = number.to_bytes(4, "big") + bytes(size - 4)
    return ethernet_frame(ipv4_packet(udp_datagram(payload, SRC, DST)))


def both_ways(stage: Stage) -> dict[str, Any]:
    idle = stage.readable()
    before = stage.evidence.clock.now()
    stage.from_guest(numbered(1))
    stage.to_guest(numbered(2))
    stage.from_guest(numbered(3))
    after = stage.evidence.clock.now()
    readable, drained, again = stage.readable(), stage.capture.drain(), stage.capture.drain()
    stage.capture.close()
    saved = [(packet.direction.name, packet.data == numbered(n)) for n, packet in enumerate(_saved(stage), 1)]
    in_time = all(before - 0.01 <= each["t"] <= after + 0.01 for each in stage.frames())
    return {
        "readable": [idle, readable],
        "drained": [drained, again],
        "frames": stage.frames(),
        "saved": saved,
        "stamps_agree": [packet.timestamp for packet in _saved(stage)] == [each["wall_ns"] for each in stage.frames()],
        "in_time": in_time,
    }


def _saved(stage: Stage) -> list[Any]:
    return read_file(stage.folder / "tap.pcapng")


def burst(stage: Stage) -> dict[str, Any]:
    """As many frames as a slow reader may leave waiting."""
    for number in range(4000):
        stage.from_guest(numbered(number))
    drained = stage.capture.drain()
    stage.capture.close()
    numbers = [int.from_bytes(packet.data[42:46], "big") for packet in _saved(stage)]
    return {"drained": drained, "in_order": numbers == list(range(4000)), "errors": stage.errors()}


def overflow(stage: Stage) -> dict[str, Any]:
    for number in range(5000):
        stage.from_guest(numbered(number))
    return {"drained": stage.capture.drain(), "errors": stage.errors(), "again": stage.capture.drain()}


def wrap_around(stage: Stage) -> dict[str, Any]:
    """The ring goes round more than twice."""
    drained = 0
    for start in range(0, 10000, 1000):
        for number in range(start, start + 1000):
            stage.from_guest(numbered(number))
        drained += stage.capture.drain()
    stage.capture.close()
    numbers = [int.from_bytes(packet.data[42:46], "big") for packet in _saved(stage)]
    return {"drained": drained, "in_order": numbers == list(range(10000)), "errors": stage.errors()}


def long_frames(stage: Stage) -> dict[str, Any]:
    """Longer than a slot of the ring: they come whole, by the socket's queue, and in order."""
    sizes = [100, 9000, 1400, 60000, 100]
    for number, size in enumerate(sizes):
        stage.from_guest(numbered(number, size))
    stage.capture.drain()
    stage.capture.close()
    whole = [
        packet.data == numbered(n, size) for (n, size), packet in zip(enumerate(sizes), _saved(stage), strict=True)
    ]
    return {"whole": whole, "csum": [each.get("csum") for each in stage.frames()], "errors": stage.errors()}


def many_long_frames(stage: Stage) -> dict[str, Any]:
    """A flood of them, both ways, while nobody drains."""
    to_tap = 250  # the tap's own queue has 500 places, and is read by nobody here
    for number in range(to_tap):
        stage.from_guest(numbered(2 * number, 8900))
        stage.to_guest(numbered(2 * number + 1, 1500 - 42))
    drained = stage.capture.drain()
    stage.capture.close()
    long = [packet.data for packet in _saved(stage) if len(packet.data) > 2000]
    whole = long == [numbered(2 * number, 8900) for number in range(to_tap)]
    return {"drained": drained, "whole": whole, "errors": sorted(set(stage.errors()))}


def tagged(stage: Stage) -> dict[str, Any]:
    frame = vlan.insert(FRAME, 3 << 13 | 42)
    stage.from_guest(frame)
    stage.capture.drain()
    stage.capture.close()
    return {
        "same": _saved(stage)[0].data == frame,
        "vlan": stage.frames()[0].get("vlan"),
        "csum": stage.frames()[0]["csum"],
    }


def comments(stage: Stage) -> dict[str, Any]:
    """Put while a frame from before still waits: it belongs to the first that passes afterwards."""
    stage.from_guest(numbered(1))
    stage.capture.comment("link of n0 down")
    stage.capture.comment("link of n1 down")
    stage.from_guest(numbered(2))
    stage.from_guest(numbered(3))
    stage.capture.drain()
    stage.capture.close()
    return {"comments": [list(packet.comments) for packet in _saved(stage)]}


def down_and_up(stage: Stage) -> dict[str, Any]:
    """An interface that goes down is told once, and is no error: the capture goes on when it comes back."""
    stage.from_guest(numbered(1))
    _set(TAP, "down")
    told, drained, quiet = stage.readable(), stage.capture.drain(), stage.readable()
    _set(TAP, "up")
    stage.from_guest(numbered(2))
    return {"told": told, "drained": [drained, stage.capture.drain()], "quiet": not quiet, "errors": stage.errors()}


def _set(name: str, state: str) -> None:
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=name)
        netlink.link("set", index=index, state=state)


def other_taps(stage: Stage) -> dict[str, Any]:
    """Frames of another tap are not seen, not even those that pass while the capture is being opened."""
    other = open_tap("tap-n1")
    for number in range(10):
        os.write(other, numbered(number))
    stage.from_guest(numbered(99))
    drained = stage.capture.drain()
    os.close(other)
    return {"drained": drained}


def closed(stage: Stage) -> dict[str, Any]:
    stage.from_guest(numbered(1))
    stage.capture.close()
    stage.capture.close()
    return {"frames": len(stage.frames()), "fileno": stage.capture.fileno(), "drained": stage.capture.drain()}


def file_fails(stage: Stage) -> dict[str, Any]:
    """The capture file's other end goes away: evidence goes on, the verdict will be ERROR."""
    fifo = stage.folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with Capture(TAP, "n0", fifo, stage.evidence) as capture:
        os.close(reader)
        stage.from_guest(numbered(1))
        stage.from_guest(numbered(2))
        capture.drain()
    return {"frames": len(stage.frames()), "errors": stage.errors()}


def cannot_open(stage: Stage) -> dict[str, Any]:
    open_before = len(os.listdir("/proc/self/fd"))
    said = []
    for tap, path in (
        ("nope", stage.folder / "x.pcapng"),
        (TAP, stage.folder / "no" / "x.pcapng"),
        (TAP, Path("/dev/full")),
    ):
        try:
            Capture(tap, "n0", path, stage.evidence)
        except OSError as error:
            said.append(str(error))
    return {"said": said, "leaked": len(os.listdir("/proc/self/fd")) - open_before}


SCENES: dict[str, Callable[[Stage], dict[str, Any]]] = {
    scene.__name__: scene
    for scene in (
        both_ways,
        burst,
        overflow,
        wrap_around,
        long_frames,
        many_long_frames,
        tagged,
        comments,
        down_and_up,
        other_taps,
        closed,
        file_fails,
        cannot_open,
    )
}


def main() -> None:
    scene, folder = SCENES[sys.argv[1]], Path(sys.argv[2])
    enter()
    tap = open_tap(TAP)
    evidence = Evidence(folder / "evidence.jsonl", Clock.start())
    with Capture(TAP, "n0", folder / "tap.pcapng", evidence) as capture:
        result = scene(Stage(tap, capture, evidence, folder))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
