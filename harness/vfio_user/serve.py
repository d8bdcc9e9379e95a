"""The socket edge: accept a client, move bytes and descriptors between it and a Session. One thread, any number of devices.

In: a listening UNIX socket and a PciDevice. Out: nothing; `Loop.run_once` serves until the next thing happens. Rule: no call here
waits for a client. Reads and writes never block, one client's flood does not starve the others, and a client that does not take
its replies is cut off.
"""

from __future__ import annotations

import array
import contextlib
import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable

from harness.vfio_user import wire
from harness.vfio_user.awake import LULL, Events, GiveWay, Stream, Waiter
from harness.vfio_user.device import PciDevice
from harness.vfio_user.errors import Violation
from harness.vfio_user.session import Remark, Session

CHUNK = 1 << 16  # bytes a recvmsg takes
BURST = 16  # recvmsg calls before the others get their turn
BACKLOG = 4 << 20  # bytes of replies that wait for a client
_FINE = 0.002  # seconds; select() is told in microseconds
_READABLE, _WRITABLE = ~select.EPOLLOUT, ~select.EPOLLIN  # a hang-up or an error is for both
_FD_SPACE = socket.CMSG_SPACE(wire.MAX_FDS * 4)


class Loop:
    """Readiness and timers. A callback that raises is told to `remark`, not passed on.

    Plain epoll: with `selectors` on top of it, and a read more to see that nothing is left, a ping costs the server a tenth more.
    """

    def __init__(self, remark: Remark = lambda _text: None) -> None:
        self._epoll = select.epoll()
        self._waiter = Waiter(self._poll)
        self._watched: dict[int, tuple[Callable[[], None], Callable[[], None]]] = {}  # reader, writer
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._lull = False
        self.remark = remark

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._watched[fd] = callback, callback

    def watch_writer(self, fd: int, reader: Callable[[], None], writer: Callable[[], None] | None) -> None:
        """Also (or no longer) wait until `fd` takes data."""
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if writer else 0))
        self._watched[fd] = reader, writer or reader

    def remove(self, fd: int) -> None:
        self._watched.pop(fd, None)
        with contextlib.suppress(OSError, ValueError):  # what was closed is gone from epoll anyway
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), callback))

    def sleep(self, seconds: float) -> None:
        """Keep everybody waiting: a slow device."""
        time.sleep(seconds)

    def let_gather(self) -> None:
        """Nothing that comes next is urgent: let some of it come together."""
        self._lull = True

    def run_once(self, timeout: float | None = None) -> None:
        """Wait for the next event or timer, at most `timeout` seconds, and serve what there is."""
        if self._lull:
            self._lull = False
            time.sleep(LULL)
        for fd, events in self._waiter.wait(self._patience(timeout)):
            if events & _WRITABLE and fd in self._watched:
                self._call(self._watched[fd][1])
            if events & _READABLE and fd in self._watched:
                self._call(self._watched[fd][0])
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._call(heapq.heappop(self._timers)[2])

    def _poll(self, timeout: float | None) -> Events:
        """Short waits are select()'s: epoll's are in whole milliseconds, and a device's timers are not."""
        if timeout is not None and 0 < timeout < _FINE:
            select.select((self._epoll,), (), (), timeout)
            timeout = 0
        return self._epoll.poll(timeout)

    def _patience(self, timeout: float | None) -> float | None:
        if not self._timers:
            return timeout
        until = max(0.0, self._timers[0][0] - time.monotonic())
        return until if timeout is None else min(until, timeout)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as defect:
            self.remark(f"defect in {getattr(callback, '__qualname__', callback)}: {type(defect).__name__}: {defect}")

    def close(self) -> None:
        self._epoll.close()


class Listener:
    """Gives `device` to one client after the other; a second one at the same time is turned away."""

    def __init__(self, loop: Loop, sock: socket.socket, device: PciDevice, remark: Remark = lambda _text: None) -> None:
        self._loop, self._sock, self.device, self._remark = loop, sock, device, remark
        self.connection: Connection | None = None
        device.irqs.told = GiveWay()
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client, _ = self._sock.accept()
            if self.connection is not None:
                self._remark("a second client at the same time: turned away")
                client.close()
                return
            self.connection = Connection(self._loop, client, self.device, self._gone, self._remark)

    def _gone(self) -> None:
        self.connection = None
        self.device.disconnected()

    def close(self) -> None:
        self._loop.remove(self._sock.fileno())
        self._sock.close()
        if self.connection is not None:
            self.connection.close("the server ends")


class Connection:
    """One client."""

    def __init__(
        self, loop: Loop, sock: socket.socket, device: PciDevice, gone: Callable[[], None], remark: Remark
    ) -> None:
        self._loop, self._sock, self._gone, self._remark = loop, sock, gone, remark
        self._session, self._stream = Session(device, remark), Stream()
        self._in, self._out = memoryview(bytearray(CHUNK)), bytearray()
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(BURST):
            try:
                length, ancillary, flags, _ = self._sock.recvmsg_into((self._in,), _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except ConnectionError as error:
                self.close(str(error))
                return
            data, fds = bytes(self._in[:length]), _descriptors(ancillary) if ancillary else []
            if not data:
                self.close("the client has closed")
                return
            posted = self._session.posted
            try:
                replies = self._session.receive(data, fds)
                if flags & socket.MSG_CTRUNC:
                    raise Violation(f"more than {wire.MAX_FDS} descriptors with one message")
            except Violation as violation:
                self.close(f"violation: {violation}")
                return
            if self._stream.heard(0 if replies else self._session.posted - posted):
                self._loop.let_gather()
            if (replies and not self._send(replies)) or (len(data) < CHUNK and not fds):
                return  # that was all; a message with descriptors ends a recvmsg before that

    def _send(self, replies: bytes) -> bool:
        """False if the connection has ended."""
        if not self._out:
            try:
                replies = replies[self._sock.send(replies) :]
            except BlockingIOError:
                pass
            except ConnectionError as error:
                self.close(str(error))
                return False
            if not replies:
                return True
            self._loop.watch_writer(self._sock.fileno(), self._readable, self._writable)
        self._out += replies
        if len(self._out) > BACKLOG:
            self.close("the client does not take its replies")
            return False
        return True

    def _writable(self) -> None:
        try:
            del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            return
        except ConnectionError as error:
            self.close(str(error))
            return
        if not self._out:
            self._loop.watch_writer(self._sock.fileno(), self._readable, None)

    def close(self, why: str) -> None:
        """End the connection; the device hears of it."""
        self._remark(f"connection ends: {why}")
        self._loop.remove(self._sock.fileno())
        self._sock.close()
        self._session.close()
        self._gone()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
