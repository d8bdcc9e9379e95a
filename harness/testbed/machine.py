"""One QEMU process with its three channels: QMP, serial console, agent.

In: argv (as a function of the channels' descriptors) and observers. Out: a running machine that answers. Rule: it ends with the
context, whatever happened in it; when QEMU ends by itself, whoever waits is told why, with its command and last output.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from harness.observe.events import Clock
from harness.testbed.agent import Agent, OnEvent
from harness.testbed.console import Console, OnLine
from harness.testbed.errors import GuestSilent, QemuDied
from harness.testbed.fast_lane import FastLane
from harness.testbed.process import clock_of, processor_time, spawn
from harness.testbed.qemu import Channels
from harness.testbed.qmp import OnEvent as OnQmpEvent
from harness.testbed.qmp import Qmp

CONSOLE = "console"  # the name of its input among `Machine.ports`
CONSOLE_BUFFER = 1 << 20  # bytes
BY_HAND = "run the command by hand; `netpoll-harness doctor` tells what this machine can do"
NO_MEMORY = "the kernel kills so when memory is used up (dmesg says): fewer cases at once (-n), or less guest.memory"


@dataclass(frozen=True)
class Observers:
    """Who is told what: each callback runs in the event loop's thread."""

    qmp_event: OnQmpEvent
    console_line: OnLine
    guest_event: OnEvent
    guest_garbage: Callable[[str], None] = field(default=lambda _text: None)


class Machine:
    """A QEMU that runs. Made by `Machine.start`, ended by leaving the context."""

    qmp: Qmp
    fast: FastLane
    agent: Agent
    console: Console
    ports: Mapping[str, socket.socket]  # our ends of the virtio-serial ports that wait for a channel: guest_agent, ssh

    def __init__(self, process: subprocess.Popen[bytes], argv: Sequence[str], stderr: IO[bytes]) -> None:
        self.process = process
        self.argv = argv
        self._stderr = stderr
        self.spawned = time.monotonic()
        self.processor = 0.0  # seconds of processor time; known once QEMU has ended
        self.died = asyncio.Event()
        self._qmp_events: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue()

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        argv_of: Callable[[Channels], Sequence[str]],
        observers: Observers,
        clock: Clock,
        console_log: Path,
        inherit: Sequence[int] = (),
    ) -> AsyncIterator[Self]:
        """Spawn QEMU and open its channels; QMP has greeted when this yields. Raises QemuDied."""
        async with contextlib.AsyncExitStack() as stack:
            channels = [each.name for each in fields(Channels)]
            pairs = {name: socket.socketpair() for name in (*channels, CONSOLE)}
            for ours, theirs in pairs.values():
                stack.callback(ours.close)
                stack.callback(theirs.close)
            far = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
            argv = argv_of(Channels(**{name: far[name] for name in channels}))
            printed, output = _wide_pipe()
            stack.callback(os.close, printed)
            stderr = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (it has no name that a kill could leave)
            try:
                process = _spawn(argv, [*far.values(), *inherit], far[CONSOLE], output, stderr.fileno())
            finally:
                os.close(output)
            machine = cls(process, argv, stderr)
            stack.callback(machine._end)
            for _, theirs in pairs.values():
                theirs.close()
            machine._watch()
            stack.callback(machine._unwatch)
            near = {name: ours for name, (ours, _) in pairs.items()}
            machine.ports = near
            machine.fast = FastLane(near["fast"])
            await machine._open_channels(near["qmp"], printed, near["agent"], observers, clock, console_log)
            stack.push_async_callback(machine._close_channels)
            yield machine

    async def _open_channels(
        self,
        qmp: socket.socket,
        printed: int,
        agent: socket.socket,
        observers: Observers,
        clock: Clock,
        console_log: Path,
    ) -> None:
        self.console = Console(console_log, clock.now, observers.console_line)
        self.agent = Agent(observers.guest_event, observers.guest_garbage)
        self.qmp = Qmp(partial(self._on_qmp_event, observers.qmp_event))
        self._printed = printed
        asyncio.get_running_loop().add_reader(printed, self._read_console)
        await self.agent.open(agent)
        await self.alive(self.qmp.open(qmp), 20, "QEMU's greeting on QMP")
        await self.alive(self.fast.open(), 20, "QEMU's greeting on its second monitor")

    async def _close_channels(self) -> None:
        await self.qmp.close()
        self.fast.close()
        await self.agent.close()
        self._read_console()
        with contextlib.suppress(ValueError, OSError):
            asyncio.get_running_loop().remove_reader(self._printed)
        self.console.close()

    def _read_console(self) -> None:
        while True:
            try:
                data = os.read(self._printed, 1 << 16)
            except (BlockingIOError, OSError):
                return
            if not data:
                asyncio.get_running_loop().remove_reader(self._printed)
                return
            self.console.feed(data)

    def _on_qmp_event(self, observer: OnQmpEvent, name: str, data: Mapping[str, Any]) -> None:
        self._qmp_events.put_nowait((name, data))
        observer(name, data)

    async def qmp_event(
        self, name: str, within: float, what: str, match: Callable[[Mapping[str, Any]], bool]
    ) -> Mapping[str, Any]:
        """The next QMP event `name` whose data satisfies `match`; events before it are passed over. Raises as `alive`."""

        async def find() -> Mapping[str, Any]:
            while True:
                got, data = await self._qmp_events.get()
                if got == name and match(data):
                    return data

        found: Mapping[str, Any] = await self.alive(find(), within, what)
        return found

    def type(self, text: str) -> None:
        """Type on the serial line: a few bytes, which its buffer always takes."""
        self.ports[CONSOLE].sendall(text.encode())

    def drain_console(self) -> None:
        """Take what the console has sent so far, without waiting."""
        self._read_console()

    async def alive(self, awaitable: Any, within: float, what: str) -> Any:
        """Await something that a living QEMU brings within `within` seconds; QemuDied at once if it ends, GuestSilent when
        the time is over."""
        work = asyncio.ensure_future(awaitable)
        dead = asyncio.ensure_future(self.died.wait())
        try:
            await asyncio.wait({work, dead}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and isinstance(work.exception(), QemuDied):
                await asyncio.wait({dead}, timeout=1)  # a socket may close before the process has ended
            if self.died.is_set():
                raise self.post_mortem()
            if not work.done():
                raise GuestSilent(f"{what} did not come within {within:g} s\n{self.console.tail()}")
            return work.result()
        finally:
            for task in (work, dead):
                if not task.done():
                    task.cancel()
            if work.done() and not work.cancelled():
                work.exception()  # it was ours to look at

    def post_mortem(self) -> QemuDied:
        """What is known of a QEMU that ended by itself."""
        code = self._wait()
        how = self.ending()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()[-2000:] or "(nothing on stderr)"
        return QemuDied(
            f"QEMU ended with {how}:\n{said}\n  command: {shlex.join(self.argv)}",
            NO_MEMORY if code == -signal.SIGKILL else BY_HAND,
        )

    def used(self) -> float:
        """Seconds of processor time that QEMU has used so far."""
        if self.process.returncode is None:
            with contextlib.suppress(OSError):
                return time.clock_gettime(clock_of(self.process.pid))
        return self.processor

    def ending(self) -> str:
        """How QEMU ended, which it has."""
        code = self._wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"

    def _watch(self) -> None:
        self._pidfd = os.pidfd_open(self.process.pid)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(self._pidfd)
            self.died.set()

        loop.add_reader(self._pidfd, ended)

    def _unwatch(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)

    def _end(self) -> None:
        self.process.kill()
        self._wait()

    def _wait(self) -> int:
        """QEMU's status. Its time comes with it: what children that were waited for have used grows by that (getrusage(2))."""
        before = processor_time(resource.RUSAGE_CHILDREN)
        code = self.process.wait()
        self.processor += processor_time(resource.RUSAGE_CHILDREN) - before
        return code


def _wide_pipe() -> tuple[int, int]:
    """For the serial console, which is written a byte at a time: a pipe of 1 MiB takes a million of them, a socket pair of the
    usual size 278. When the reader is late for longer than the guest's UART driver waits (10 ms), what does not fit is lost."""
    near, far = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(near, False)
    with contextlib.suppress(OSError):  # what this user may have together is used up: the default of 64 KiB then
        fcntl.fcntl(far, fcntl.F_SETPIPE_SZ, CONSOLE_BUFFER)
    return near, far


def _spawn(argv: Sequence[str], fds: Sequence[int], stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    try:
        return spawn(argv, pass_fds=fds, stdin=stdin, stdout=stdout, stderr=stderr, small_pages=True)
    except OSError as error:
        raise QemuDied(
            f"QEMU cannot be started: {error}", f"look at {argv[0]}, or give another QEMU: --qemu PATH"
        ) from error
