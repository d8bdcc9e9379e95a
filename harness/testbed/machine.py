"""One QEMU process with its three channels: QMP, serial console, agent.

In: argv (as a function of the channels' descriptors) and observers. Out: a running machine that answers. Rule: it ends with the
context, whatever happened in it; when QEMU ends by itself, whoever waits is told why, with its command and last output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from harness.observe.events import Clock
from harness.testbed.agent import Agent, OnEvent
from harness.testbed.console import Console, OnLine
from harness.testbed.ends import CONSOLE, Ends, open_ends
from harness.testbed.errors import GuestSilent, QemuDied
from harness.testbed.fast_lane import FastLane
from harness.testbed.process import Process, Spawned, clock_of, spawn
from harness.testbed.qemu import Channels
from harness.testbed.qmp import OnEvent as OnQmpEvent
from harness.testbed.qmp import Qmp

BY_HAND = "run the command by hand; `netpoll-harness doctor` tells what this machine can do"
KILLED = (
    "somebody ended it, or whoever kept it; the kernel does so when memory is used up, and then dmesg says it: "
    "fewer cases at once (-n), or less guest.memory"
)


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

    def __init__(self, process: Process, argv: Sequence[str], stderr: IO[bytes]) -> None:
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
        with open_ends() as ends:
            argv = argv_of(ends.channels())
            process = spawn_qemu(argv, ends, inherit)
            async with cls.on(process, argv, ends, observers, clock, console_log) as machine:
                yield machine

    @classmethod
    @contextlib.asynccontextmanager
    async def on(
        cls,
        process: Process,
        argv: Sequence[str],
        ends: Ends,
        observers: Observers,
        clock: Clock,
        console_log: Path,
        fast: bool = True,
    ) -> AsyncIterator[Self]:
        """The same over a QEMU that was started. `fast`: with the second monitor."""
        async with contextlib.AsyncExitStack() as stack:
            machine = cls(process, argv, ends.stderr)
            stack.callback(machine._end)
            machine._watch()
            stack.callback(machine._unwatch)
            machine.ports = ends.near
            machine.fast = FastLane(ends.near["fast"])
            await machine._open_channels(ends, observers, clock, console_log)
            if fast:
                await machine.alive(machine.fast.open(), 20, "QEMU's greeting on its second monitor")
            stack.push_async_callback(machine._close_channels)
            yield machine

    async def _open_channels(self, ends: Ends, observers: Observers, clock: Clock, console_log: Path) -> None:
        self.console = Console(console_log, clock.now, observers.console_line)
        self.agent = Agent(observers.guest_event, observers.guest_garbage)
        self.qmp = Qmp(partial(self._on_qmp_event, observers.qmp_event))
        self._printed = ends.printed
        asyncio.get_running_loop().add_reader(ends.printed, self._read_console)
        await self.agent.open(ends.near["agent"])
        await self.alive(self.qmp.open(ends.near["qmp"]), 20, "QEMU's greeting on QMP")

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
            KILLED if code == -signal.SIGKILL else BY_HAND,
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
        """QEMU's status. Its processor time comes with it."""
        code = self.process.wait()
        self.processor = self.process.processor
        return code


def spawn_qemu(
    argv: Sequence[str], ends: Ends, inherit: Sequence[int] = (), namespaces: int = 0, **env: str
) -> Spawned:
    """QEMU with its ends, which are no longer ours then. `env`: added to the environment. Raises QemuDied."""
    fds, stdin = [*ends.numbers().values(), *inherit], ends.far[CONSOLE].fileno()
    try:
        child = spawn(
            argv,
            pass_fds=fds,
            stdin=stdin,
            stdout=ends.output,
            stderr=ends.stderr,
            env=env,
            small_pages=True,
            namespaces=namespaces,
        )
    except OSError as error:
        raise QemuDied(
            f"QEMU cannot be started: {error}", f"look at {argv[0]}, or give another QEMU: --qemu PATH"
        ) from error
    finally:
        ends.hand_over()
    return Spawned(child)
