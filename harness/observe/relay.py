"""A wire where no tap can be had: QEMU and our stack joined by datagram sockets, through a relay that captures.

    QEMU -netdev dgram  <== socket pair ==>  Relay  <== socket pair ==>  DgramDevice of our stack, or nobody
                                              | Recorder

In: each side's frames, a datagram each. Out: the same to the other side, an enhanced packet block and a `wire frame` event. Rule: what a
side was given has been recorded, and what was recorded is given on in order; a relay that could not says so as `run error`.

The stamp is the kernel's, of the moment at which the sender handed the frame over (SO_TIMESTAMPNS on unix datagrams; af_unix.c,
unix_dgram_sendmsg()): the same clock and, within the cost of a system call, the same moment as on a tap. It is not the moment at which
the other side got it: the relay comes between, for about 0.1 ms, or longer while the case's process is busy.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from harness.observe.events import Evidence
from harness.observe.recorder import Recorder

SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_TIMESPEC = struct.Struct("@qq")
MAX_FRAME = 65536 + 18
BACKLOG = 10_000  # frames that wait for a side, as many as wait on a tap (harness.testbed.tap.QUEUE)
BURST = 512  # frames of a side before the event loop gets its turn
FEW = 1  # bytes of a socket that nobody reads; the kernel makes 4608 of it, two or three small frames
SNDBUF = 4 << 20  # bytes; cut to net.core.wmem_max, and more than enough at its default of 208 KiB
WHERE = "NIC {nic} of the guest; captured in the harness's relay between two unix datagram sockets, stamped when sent"


@dataclass
class Side:
    """One end of the relay."""

    sock: socket.socket
    far: socket.socket  # QEMU's, or our stack's
    waiting: deque[bytes] = field(default_factory=deque)
    lost: int = 0


class Relay:
    """One NIC's wire. Never blocks: call `drain` whenever `fileno` is readable. Raises OSError when the file cannot be made."""

    def __init__(self, name: str, nic: str, pcapng_path: Path, evidence: Evidence) -> None:
        self.name = name
        self._recorder = Recorder(name, nic, pcapng_path, evidence, WHERE.format(nic=nic))
        self._guest, self._host = _side(), _side()
        self._closed = False
        self._held = False  # what the guest sends stays where it is
        self._epoll = select.epoll()
        for side in (self._guest, self._host):
            self._epoll.register(side.sock, select.EPOLLIN)

    @property
    def for_qemu(self) -> int:
        """The descriptor for `netdev_add type=dgram,local.type=fd`, or for the process that serves the NIC."""
        return self._guest.far.fileno()

    @property
    def for_stack(self) -> socket.socket:
        """The socket of our stack's DgramDevice."""
        return self._host.far

    def fileno(self) -> int:
        """For select and for an event loop; -1 once closed."""
        return -1 if self._closed else self._epoll.fileno()

    def drain(self) -> int:
        """Carry what has arrived, BURST frames of each side at most; returns how many were taken."""
        if self._closed:
            return 0
        for side in (self._guest, self._host):
            self._flush(side)
        from_guest = () if self._held else self._arrived(self._guest, False)
        arrived = sorted([*from_guest, *self._arrived(self._host, True)], key=itemgetter(0))
        for stamp, frame, to_guest in arrived:  # in the order in which they were sent
            self._recorder.frame(frame, stamp, to_guest)
            self._pass_on(frame, self._guest if to_guest else self._host, to_guest)
        self._listen()
        return len(arrived)

    def _listen(self) -> None:
        for side in (self._guest, self._host):
            reads = 0 if self._held and side is self._guest else select.EPOLLIN
            self._epoll.modify(side.sock, reads | (select.EPOLLOUT if side.waiting else 0))

    def hold(self, held: bool) -> None:
        """Stop reading what the guest's side sends, or go on: a few frames fill QEMU's socket, and it cannot send more."""
        self._held = held
        self._guest.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FEW if held else SNDBUF)
        self._listen()

    def _arrived(self, source: Side, to_guest: bool) -> Iterator[tuple[int, bytes, bool]]:
        """What a side has sent: (stamp, frame, to_guest). A far end that was closed sends nothing: others tell that QEMU ended."""
        for _ in range(BURST):
            try:
                frame, stamps, _, _ = source.sock.recvmsg(MAX_FRAME, 64)
            except OSError:
                return
            yield self._stamp(stamps), frame, to_guest

    def _pass_on(self, frame: bytes, target: Side, to_guest: bool) -> None:
        """A guest that takes no more loses what a full tap would lose; our own stack must not."""
        if len(target.waiting) < BACKLOG:
            target.waiting.append(frame)
            self._flush(target)
        elif not to_guest:
            target.lost += 1

    def _flush(self, side: Side) -> None:
        with contextlib.suppress(OSError):  # full, or its far end was closed
            while side.waiting:
                side.sock.send(side.waiting[0])
                side.waiting.popleft()

    def _stamp(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        """CLOCK_REALTIME in nanoseconds."""
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                return int(seconds * 1_000_000_000 + nanoseconds)
        self._recorder.error(f"the kernel gave a frame on {self.name} no time", "use taps: --wires tap")
        return time.time_ns()

    def comment(self, text: str) -> None:
        """Put `text` beside the next frame that is sent from now on."""
        self._recorder.comment(text)

    def close(self) -> None:
        """Take what is left, check for losses, close sockets and file. A second call does nothing."""
        if self._closed:
            return
        self._held = False
        while self.drain():
            pass
        self._closed = True
        if lost := self._host.lost:
            what = f"the relay on {self.name} lost {lost} frames on their way to our stack"
            self._recorder.error(what, "run fewer cases at once (-n)")
        self._epoll.close()
        for side in (self._guest, self._host):
            side.sock.close()
            side.far.close()
        self._recorder.close()


def _side() -> Side:
    ours, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (ours, far):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
    ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return Side(ours, far)
