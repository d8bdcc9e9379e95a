"""What a capture writes down: each frame once to a pcapng file and once to evidence, with the same stamp.

In: frames with their stamps. Out: an enhanced packet block and a `wire frame` event each. Rule: a file that cannot be written is a
`run error`; evidence goes on.
"""

from __future__ import annotations

import time
from pathlib import Path

from guest.netpoll.middleware.pcapng import Direction, Writer
from harness.observe.events import Evidence
from harness.observe.frames import frame_keys


class Recorder:
    """For one wire, `name`, to NIC `nic`. `where` is the file's description of where it was captured. Raises OSError when the file
    cannot be made."""

    def __init__(self, name: str, nic: str, path: Path, evidence: Evidence, where: str) -> None:
        self.name, self.nic, self.path = name, nic, path
        self._evidence = evidence
        self._comments: list[tuple[int, str]] = []  # (wall_ns, text): for the first frame after that moment
        self._writer: Writer | None = Writer.create(path, application="netpoll-harness")
        self._interface = self._writer.add_interface(name, description=where)

    def frame(self, frame: bytes, wall_ns: int, to_guest: bool, partial: bool = False) -> None:
        """One frame. `wall_ns`: CLOCK_REALTIME; `partial`: its checksum was left to the hardware."""
        keys = {"tap": self.name, "nic": self.nic, "dir": "in" if to_guest else "out"}
        t = self._evidence.clock.of_wall(wall_ns / 1e9)
        self._evidence.add("wire", "frame", t=t, wall_ns=wall_ns, **keys, **frame_keys(frame, partial))
        self._write(frame, wall_ns, Direction.OUTBOUND if to_guest else Direction.INBOUND)

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
            self.error(f"{self.path} cannot be written: {error.strerror}", "make room, then run the case again")

    def comment(self, text: str) -> None:
        """Put `text` beside the first frame that is stamped later than now."""
        self._comments.append((time.time_ns(), text))

    def error(self, what: str, hint: str) -> None:
        """No verdict can be built on this case."""
        self._evidence.add("run", "error", what=what, hint=hint)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
