"""`netdump`: send a dump to a server, as a crashed machine's capture kernel does.

In: a file or a stream (makedumpfile -F), and a server. Out: progress on standard output, True when the server has all of it. The
rule it keeps: one thread, which reads memory only while datagrams can leave.
"""

from __future__ import annotations

import argparse
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from guest.netpoll.clients.debugnet import client as debugnet
from guest.netpoll.clients.debugnet import kdh
from guest.netpoll.clients.debugnet.wire import CLIENT_PORT, SERVER_PORT
from guest.netpoll.clients.dump.sources import FileSource, Source, StreamSource
from guest.netpoll.clients.netdump import client as redhat
from guest.netpoll.clients.netdump.memory import Memory, VmcoreMemory
from guest.netpoll.clients.netdump.wire import PORT
from guest.netpoll.clients.vmcore import source as vmcore
from guest.netpoll.core import Netpoll
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.send import netpoll_send_udp_batch
from guest.netpoll.tool.progress import Dumping, Progress
from guest.netpoll.tool.resolve import resolve, use
from guest.netpoll.tool.session import Session, say, session

DEBUGNET = CLIENT_PORT, SERVER_PORT


@contextmanager
def open_source(path: str) -> Iterator[Source]:
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


def _debugnet(arguments: argparse.Namespace, np: Netpoll, source: Source) -> Dumping:
    return debugnet.Client(
        source,
        lambda length: header(arguments.panic, length),
        room=np.max_payload,
        name=int.from_bytes(os.urandom(4)) | 1,
        path=arguments.path,
        tuning=debugnet.Tuning(patience=arguments.patience),
    )


def _netdump(arguments: argparse.Namespace, memory: Memory) -> Dumping:
    return redhat.Client(
        memory,
        magic=int.from_bytes(os.urandom(8)) if arguments.magic is None else arguments.magic,
        name=int.from_bytes(os.urandom(4)) | 1,
        state=arguments.panic,
        tuning=redhat.Tuning(patience=arguments.patience),
    )


def netdump(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, SetupError, OSError (the file), VmcoreError (netdump: it is no ELF vmcore)."""
    if arguments.protocol == "debugnet":
        with open_source(arguments.vmcore) as source:
            return dump(arguments, DEBUGNET, lambda np: _debugnet(arguments, np, source))
    if arguments.vmcore == "-":
        raise ValueError(
            "--protocol netdump gives out the pages that are asked for: --vmcore must be a file, not a stream"
        )
    with closing(vmcore.FileSource(Path(arguments.vmcore))) as core:
        memory = VmcoreMemory(core)
        return dump(arguments, (PORT, PORT), lambda _: _netdump(arguments, memory))


def dump(arguments: argparse.Namespace, ports: tuple[int, int], make: Callable[[Netpoll], Dumping]) -> bool:
    """Send it all; `ports` are presets. Raises OptionError, SetupError, DeviceGone."""
    clients: list[Dumping] = []

    def rx_hook(_np: Netpoll, port: int, data: bytes) -> None:
        for client in clients:
            client.receive(data, port, time.monotonic())

    with session(arguments, "netdump", rx_hook, ports) as current:
        resolve(current)
        netpoll_set_trap(current.np.net, 1)
        client = make(current.np)
        clients.append(client)
        say(arguments.quiet, f"dumping {arguments.vmcore}: {current.np!r}")
        serve(current, client, Progress(arguments.progress), arguments.timeout)
    return client.done


def serve(current: Session, client: Dumping, progress: Progress, timeout: float | None) -> None:
    """Until the dump has ended, the user ends it, or time is up. Raises DeviceGone."""
    np = current.np
    well_known = np.remote_port
    end = float("inf") if timeout is None else time.monotonic() + timeout
    progress.begin(time.monotonic())
    while not client.ended and not current.stop.requested and (now := time.monotonic()) < end:
        out = client.poll(now)
        port = well_known if client.port is None else client.port
        if port != np.remote_port:
            np.remote_port = port
            use(np, np.remote_mac)
        if out:
            netpoll_send_udp_batch(np, out)
        if client.starved:
            current.loop.wake_on(0)  # only a stream starves
        current.serve(0.0 if out else min(client.wait(now), end - now))
        progress.tell(client, now)
    progress.end(client, time.monotonic())
