"""A capture on one tap: every frame that passes, to a pcapng file and to evidence.

In: frames of a `Ring` on the tap, in the current network namespace. Out: an enhanced packet block and a `wire frame` event
each. Rule: a capture that lost a frame says so as `run error`, so that no verdict is built on it.

Seen from a tap, what the host sends goes to the guest; everything else came from QEMU. The kernel stamps frames with
CLOCK_REALTIME; the case's clock translates. `harness.observe.relay` captures where there are no taps.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from guest.netpoll.wire import ethernet, vlan
from harness.observe.events import Evidence
from harness.observe.recorder import Recorder
from harness.observe.ring import Raw, Ring


class Capture:
    """One tap's capture. Never blocks: call `drain` whenever `fileno` is readable. A context manager.

    Raises OSError when there is no such interface, no right to capture, or the file cannot be made.
    """

    def __init__(self, tap: str, nic: str, pcapng_path: Path, evidence: Evidence) -> None:
        self.tap = tap
        self._ring = Ring(tap)
        try:
            self._recorder = Recorder(tap, nic, pcapng_path, evidence, f"NIC {nic} of the guest")
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
            self._recorder.error(f"the capture on {self.tap} failed: {error.strerror}", "frames may be missing")
        if drops := self._ring.drops():
            self._recorder.error(f"the capture on {self.tap} lost {drops} frames", "run fewer cases at once (-n)")
        return frames

    def comment(self, text: str) -> None:
        """Put `text` beside the next frame that passes from now on; frames already waiting were before it."""
        self._recorder.comment(text)

    def close(self) -> None:
        """Take what is left, check for losses, close ring and file. A second call does nothing."""
        if self.fileno() < 0:
            return
        self.drain()
        self._ring.close()
        self._recorder.close()

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
            what = f"the capture on {self.tap} lost the end of a long frame"
            self._recorder.error(what, "run fewer cases at once (-n)")
        self._recorder.frame(frame, raw.wall_ns, to_guest=raw.outgoing, partial=raw.partial)
