"""`netdump`: send a dump to a server, as a crashed machine's capture kernel does.

In: a file or a stream (makedumpfile -F), and a server. Out: progress on standard output, True when the server has all of it. The
rule it keeps: one thread, which reads memory only while datagrams can leave.
"""

from __future__ import annotations

import argparse
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from guest.netpoll.clients.debugnet import kdh
from guest.netpoll.clients.debugnet.client import ENDED, Client, State, Tuning
from guest.netpoll.clients.debugnet.wire import CLIENT_PORT, SERVER_PORT
from guest.netpoll.clients.dump.sources import FileSource, Source, StreamSource
from guest.netpoll.core import Netpoll
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.send import netpoll_send_udp_batch
from guest.netpoll.tool.progress import Progress
from guest.netpoll.tool.resolve import resolve, use
from guest.netpoll.tool.session import Session, say, session

DEBUGNET = CLIENT_PORT, SERVER_PORT


def netdump(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, SetupError, OSError (the file)."""
    with memory(arguments.vmcore) as source:
        return _debugnet(arguments, source)


@contextmanager
def memory(path: str) -> Iterator[Source]:
    """The source that `path` is: - is standard input. Raises OSError."""
    if path == "-":
        os.set_blocking(0, False)
        yield StreamSource(read_stream)
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size or os.lseek(fd, 0, os.SEEK_END)
        if not size:
            raise OSError(errno.EINVAL, f"{path} is empty: there is nothing to dump (a stream is read from -)")
        yield FileSource(lambda offset, count: os.pread(fd, count, offset), size)
    finally:
        os.close(fd)


def read_stream(size: int) -> bytes | None:
    """What standard input has; None if that is nothing yet, b"" at its end."""
    try:
        return os.read(0, size)
    except BlockingIOError:
        return None


def header(panic: str, length: int) -> bytes:
    """The kernel dump header of this machine."""
    system = os.uname()
    return kdh.emit(
        kdh.Header(
            length,
            architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(system.machine, system.machine),
            time=int(time.time()),
            hostname=system.nodename,
            versionstring=f"{system.sysname} {system.release} {system.version}\n",
            panicstring=panic,
            extent=length,
        )
    )


def _debugnet(arguments: argparse.Namespace, source: Source) -> bool:
    clients: list[Client] = []

    def rx_hook(_np: Netpoll, port: int, data: bytes) -> None:
        for client in clients:
            client.receive(data, port, time.monotonic())

    with session(arguments, "netdump", rx_hook, DEBUGNET) as current:
        resolve(current)
        netpoll_set_trap(current.np.net, 1)
        client = Client(
            source,
            lambda length: header(arguments.panic, length),
            room=current.np.max_payload,
            name=int.from_bytes(os.urandom(4)) | 1,
            path=arguments.path,
            tuning=Tuning(patience=arguments.patience),
        )
        clients.append(client)
        say(arguments.quiet, f"dumping {arguments.vmcore}: {current.np!r}")
        serve(current, client, Progress(arguments.progress), arguments.timeout)
    return client.state is State.DONE


def serve(current: Session, client: Client, progress: Progress, timeout: float | None) -> None:
    """Until the dump has ended, the user ends it, or time is up. Raises DeviceGone."""
    np = current.np
    server_port = np.remote_port
    end = float("inf") if timeout is None else time.monotonic() + timeout
    progress.begin(time.monotonic())
    while client.state not in ENDED and not current.stop.requested and (now := time.monotonic()) < end:
        out = client.poll(now)
        port = server_port if client.state is State.HERALD else client.port
        if port != np.remote_port:
            np.remote_port = port
            use(np, np.remote_mac)
        if out:
            netpoll_send_udp_batch(np, out)
        current.serve(0.0 if out else min(client.wait(now), end - now))
        progress.tell(client, now)
    progress.end(client, time.monotonic())
