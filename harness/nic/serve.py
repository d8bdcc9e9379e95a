"""A process that serves one NIC model: QEMU on one side, a tap on the other, the harness on the third.

In: inherited descriptors of a listening socket, a tap and a control socket; `{"model": ..., "mac": ..., "seed": ...}`. Out: JSON lines on the control
socket: `{"kind", "t", ...}` with CLOCK_MONOTONIC's time. Rule: it ends when the control socket closes, and never for anything that QEMU,
the guest or the wire does.

Commands, one JSON object a line:

    {"op": "link", "up": false, "silent": false}       {"op": "interrupt"}       {"op": "ready"}
    {"op": "fault", "name": "drop", "on": true, "chance": 0.5, "seconds": 0, "direction": "tx"}

Each is answered with `{"kind": "ok", "id": ...}` or `{"kind": "refused", "id": ..., "why": ...}`.
Events: `link`, `reset`, `remark`, and `activity` with what was counted (doorbells, tx_completed, interrupts, ...) over at most 50 ms.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import sys
import time
from typing import Any

from harness.nic.faults import Setting
from harness.nic.models import make
from harness.vfio_user.serve import Listener, Loop

FRAME = 65536  # bytes a read of the tap takes
BURST = 16  # frames before QEMU gets its turn: a guest that works while we do says so meanwhile
LATE = 1.0  # seconds that a relay may take to make room
SPAN = 0.05  # seconds that one `activity` covers


class Control:
    """The harness's side: events out, commands in. Never blocks."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop, self._sock = loop, sock
        self._out = self._in = b""
        self._counts: dict[str, int] = {}
        self._since = 0.0
        self.ended = False
        self.model: Model
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def tell(self, kind: str, **keys: Any) -> None:
        self.flush()  # what was counted came before
        self._emit({"kind": kind, "t": time.monotonic(), **keys})

    def count(self, name: str, number: int) -> None:
        if not self._counts:
            self._since = time.monotonic()
            self._loop.call_later(SPAN, self.flush)
        self._counts[name] = self._counts.get(name, 0) + number

    def flush(self) -> None:
        if self._counts:
            counts, self._counts = self._counts, {}
            self._emit({"kind": "activity", "since": self._since, "t": time.monotonic(), "counts": counts})

    def _emit(self, event: dict[str, Any]) -> None:
        self._out += json.dumps(event).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            self._out = self._out[self._sock.send(self._out) :]
        self._loop.watch_writer(self._sock.fileno(), self._readable, self._write if self._out else None)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(FRAME)
        except BlockingIOError:
            return
        if not data:
            self.ended = True
            return
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            self._obey(line)

    def _obey(self, line: bytes) -> None:
        ident: object = None
        try:
            command = json.loads(line)
            ident = command.get("id")
            self.model.command(command)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.tell("refused", id=ident, why=str(error))
        else:
            self.tell("ok", id=ident)


class Model:
    """The chip between QEMU and the tap."""

    def __init__(self, loop: Loop, control: Control, tap: int, model: str, mac: bytes, seed: int) -> None:
        self._loop, self._tap = loop, tap
        self._space = memoryview(bytearray(FRAME))  # read into it: an os.read() of so much each time frays the heap
        self._waiting: list[bytes] = []  # frames that the chip had no room for
        self._control = control
        self.chip, self.device = make(model, loop, mac, self, control.tell, control.count, seed)
        control.model = self
        loop.add_reader(tap, self._readable)

    def send(self, frame: bytes) -> None:
        """The chip's frame to the tap, or to the socket that stands for it. One that is down or stays full loses it, as a switch
        would; a socket is full while the harness's relay is late."""
        try:
            os.write(self._tap, frame)
        except BlockingIOError:
            self._send_late(frame)
        except OSError:
            self._control.count("wire_lost", 1)

    def _send_late(self, frame: bytes) -> None:
        select.select([], [self._tap], [], LATE)
        try:
            os.write(self._tap, frame)
        except OSError:
            self._control.count("wire_lost", 1)

    def resume(self) -> None:
        """The chip has room again."""
        frames, self._waiting = self._waiting, []
        if self._offer(frames):
            self._loop.remove(self._tap)
            self._loop.add_reader(self._tap, self._readable)

    def _offer(self, frames: list[bytes]) -> bool:
        """Whether the chip has taken all of them; otherwise the rest waits here, and the others on the tap."""
        taken = self.chip.receive_all(frames)
        self._waiting = frames[taken:]
        return not self._waiting

    def _readable(self) -> None:
        frames: list[bytes] = []
        tap, space, into = self._tap, self._space, (self._space,)
        try:
            for _ in range(BURST):
                frames.append(space[: os.readv(tap, into)].tobytes())
        except BlockingIOError:
            pass
        except OSError as error:
            self._tap_gone(error)
        if not self._offer(frames):
            self._loop.remove(self._tap)

    def _tap_gone(self, error: OSError) -> None:
        """EBADFD of a tap that was deleted, and for good; one that is only down says EIO."""
        if error.errno == errno.EBADFD:
            self._loop.remove(self._tap)
            self._control.tell("remark", text="the tap is gone")

    def command(self, command: dict[str, Any]) -> None:
        """Raises ValueError, KeyError or TypeError for nonsense."""
        if command["op"] == "link":
            self.chip.plug(bool(command["up"]), bool(command.get("silent", False)))
        elif command["op"] == "interrupt":
            self.chip.spurious()
        elif command["op"] == "ready":
            pass  # whoever asks wants to know that there is somebody to answer
        elif command["op"] == "fault":
            self.chip.fault(str(command["name"]), _setting(command) if command["on"] else None)
        else:
            raise ValueError(f"no operation {command['op']!r}")


def _setting(command: dict[str, Any]) -> Setting:
    return Setting(
        float(command.get("chance", 1)), float(command.get("seconds", 0)), str(command.get("direction", "both"))
    )


def main(arguments: dict[str, Any]) -> None:
    """Serve until the control socket closes."""
    loop = Loop()
    control = Control(loop, socket.socket(fileno=arguments["control"]))
    loop.remark = lambda text: control.tell("remark", text=text)
    tap = int(arguments["tap"])
    os.set_blocking(tap, False)
    mac = bytes.fromhex(str(arguments["mac"]).replace(":", ""))
    model = Model(loop, control, tap, str(arguments["model"]), mac, int(arguments.get("seed", 0)))
    Listener(loop, socket.socket(fileno=arguments["listen"]), model.device, loop.remark)
    while not control.ended:
        loop.run_once()
        model.chip.settle()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
