"""A capture on one tap: every frame that passes, to a pcapng file and to evidence.

In: frames of a `Ring` on the tap, in the current network namespace. Out: an enhanced packet block and a `wire frame` event
each. Rule: a capture that lost a frame says so as `run error`, so that no verdict is built on it.

Seen from a tap, what the host sends goes to the guest; everything else came from QEMU. The kernel stamps frames with
CLOCK_REALTIME; the case's clock translates.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from guest.netpoll.middleware.pcapng import Direction, Writer
from guest.netpoll.wire import ethernet, vlan
from harness.observe.events import Evidence
from harness.observe.frames import frame_keys
from harness.observe.ring import Raw, Ring


class Capture:
    """One tap's capture. Never blocks: call `drain` whenever `fileno` is readable. A context manager.

    Raises OSError when there is no such interface, no right to capture, or the file cannot be made.
    """

    def __init__(self, tap: str, nic: str, pcapng_path: Path, evidence: Evidence) -> None:
        self.tap, self.nic, self.path = tap, nic, pcapng_path
        self._evidence = evidence
        self._comments: list[tuple[int, str]] = []  # (wall_ns, text): for the first frame after that moment
        self._ring = Ring(tap)
        try:
            self._writer: Writer | None = Writer.create(pcapng_path, application="netpoll-harness")
            self._interface = self._writer.add_interface(tap, description=f"NIC {nic} of the guest")
        except BaseException:
            self._ring.close()
            raise

    def fileno(self) -> int:
        """For select and for an event loop; -1 once closed."""
        return self._ring.fileno()

    def drain(self) -> int:
        """Take every frame that has arrived; returns how many. A closed capture has none."""
        frames = 0
        try:
            for raw in self._ring.frames():
                self._take(raw)
                frames += 1
        except OSError as error:
            self._error(f"the capture on {self.tap} failed: {error.strerror}", "frames may be missing")
        if drops := self._ring.drops():
            self._error(f"the capture on {self.tap} lost {drops} frames", "run fewer cases at once (-n)")
        return frames

    def comment(self, text: str) -> None:
        """Put `text` beside the next frame that passes from now on; frames already waiting were before it."""
        self._comments.append((time.time_ns(), text))

    def close(self) -> None:
        """Take what is left, check for losses, close ring and file. A second call does nothing."""
        if self.fileno() < 0:
            return
        self.drain()
        self._ring.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, raw: Raw) -> None:
        frame = raw.data
        if raw.vlan is not None and len(frame) >= ethernet.HEADER_LEN:
            frame = vlan.insert(frame, raw.vlan[0], raw.vlan[1] or ethernet.ETH_P_8021Q)
        if raw.cut:
            self._error(f"the capture on {self.tap} lost the end of a long frame", "run fewer cases at once (-n)")
        keys = {"tap": self.tap, "nic": self.nic, "dir": "in" if raw.outgoing else "out"}
        t = self._evidence.clock.of_wall(raw.wall_ns / 1e9)
        self._evidence.add("wire", "frame", t=t, wall_ns=raw.wall_ns, **keys, **frame_keys(frame, raw.partial))
        self._write(frame, raw.wall_ns, Direction.OUTBOUND if raw.outgoing else Direction.INBOUND)

    def _write(self, frame: bytes, wall_ns: int, direction: Direction) -> None:
        if self._writer is None:
            return
        due = [text for since, text in self._comments if since <= wall_ns]
        if due:
            self._comments = [each for each in self._comments if each[0] > wall_ns]
        try:
            self._writer.packet(self._interface, wall_ns, frame, direction=direction, comment="; ".join(due))
        except OSError as error:
            self._writer.close()
            self._writer = None
            self._error(f"{self.path} cannot be written: {error.strerror}", "make room, then run the case again")

    def _error(self, what: str, hint: str) -> None:
        self._evidence.add("run", "error", what=what, hint=hint)
