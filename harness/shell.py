"""`netpoll-harness shell CASE`: a case's topology, a shell in its guest, what passes on its wires, and its steps by hand.

In: a `Job` and a terminal (or, without one, lines on standard input). Out: the case's folder with all evidence, as a run writes it.
Rule: nothing of it outlives the session, and the terminal is given back as it was, however the session ends.

    netpoll-harness shell --- job ---> python -m harness.shell      in a network namespace of its own, dies with the first
                                        | bring_up, step 0          harness.case, harness.act: as in a run
                                        | keys  -> Keyboard -> ssh  or a command: `:step 3`
                                        | shell -> Screen -> terminal <- evidence, line by line
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import queue
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
from pydantic import TypeAdapter

from harness.act import run_stage
from harness.case import Case, Job, Silent, bring_up
from harness.conduct import settle
from harness.interactive.commands import Commands
from harness.interactive.keyboard import Command, Keyboard, ToGuest
from harness.interactive.live import line_of
from harness.interactive.screen import PlainScreen, Screen
from harness.observe.events import Clock, Event, Evidence
from harness.plan.model import Stage
from harness.testbed import namespace
from harness.testbed.channels.doors import open_channel
from harness.testbed.channels.ssh import Ssh
from harness.testbed.errors import GuestSilent, TestbedError
from harness.testbed.process import die_with

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
STDIN, STDOUT = 0, 1
OK, TESTBED_FAILED, INTERRUPTED = 0, 3, 130  # of harness.cli.Exit
SETTLE = 60.0  # seconds
COMMAND_SECONDS = 600.0  # for a command that comes from a file instead of from a person


def run(job: Job) -> int:
    """The session, in a process of its own; returns an exit status. The terminal's state is put back here as well, for a session
    that was killed."""
    parent = os.getpid()
    with _job_file(job) as fd, _as_it_was(), _deaf_to_interrupts():
        here = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        child = subprocess.Popen(
            [sys.executable, "-m", "harness.shell", str(fd)],
            pass_fds=(fd,),
            preexec_fn=lambda: die_with(parent, signal.SIGTERM),  # SIGTERM: it still gives the terminal back
            env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path},
        )
        try:
            status = child.wait()
        finally:
            child.kill()
            child.wait()
        return status if status >= 0 else TESTBED_FAILED


@contextlib.contextmanager
def _job_file(job: Job) -> Iterator[int]:
    fd = os.memfd_create("job")
    try:
        os.write(fd, _JOB.dump_json(job, by_alias=True))
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Leave the terminal in the state in which it was found."""
    if not os.isatty(STDIN):
        yield
        return
    before = termios.tcgetattr(STDIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole foreground; it is the session's to answer."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Told(Evidence):
    """Evidence that also tells each event to somebody, from whichever thread it came."""

    def __init__(self, path: Path, clock: Clock, tell: Callable[[Event], None]) -> None:
        super().__init__(path, clock)
        self._tell = tell

    def add(self, src: str, kind: str, /, t: float | None = None, **keys: Any) -> Event:
        event = super().add(src, kind, t, **keys)
        self._tell(event)
        return event


async def session(job: Job) -> int:
    """From the restore to the last word; returns an exit status."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    screen = _screen()
    hidden = {"wire", "console", "qmp", "await"}  # until the shell is there
    evidence = Told(job.folder / "evidence.jsonl", Clock.start(), partial(_live, loop, screen, hidden))
    wall = datetime.datetime.now(datetime.UTC).isoformat()
    evidence.add("run", "start", case=job.plan.case, wall=wall, versions=dict(job.versions))
    screen.say(f"{job.plan.case}: bringing it up")
    status = OK
    try:
        async with _brought_up(job, evidence) as (case, ssh):
            commands = Commands(case.plan, partial(_step, case), lambda: case.crashed, screen.say, hidden)
            hidden.clear()
            work = _on_a_terminal if os.isatty(STDIN) else _line_by_line
            await case.machine.alive(work(case, ssh, screen, commands), 1e9, "the end of the session")
            await commands.stop()
    except TestbedError as error:
        evidence.add("run", "error", what=error.what, hint=error.hint)
        screen.say(str(error))
        status = TESTBED_FAILED
    finally:
        evidence.add("run", "end")
        evidence.close()
        screen.say(f"evidence: {job.folder}")
    return status


def _screen() -> Screen:
    if not os.isatty(STDIN):
        return PlainScreen(_write, time.monotonic)
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Screen(_write, time.monotonic, lambda: os.get_terminal_size(STDOUT).columns, colour)


def _live(loop: asyncio.AbstractEventLoop, screen: Screen, hidden: Collection[str], event: Event) -> None:
    line = line_of(event) if event["src"] not in hidden else None
    if line is not None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the screen
            loop.call_soon_threadsafe(screen.live, line)


@contextlib.asynccontextmanager
async def _brought_up(job: Job, evidence: Evidence) -> AsyncIterator[tuple[Case, Ssh]]:
    """The topology, as step 0 makes it, and ssh to the guest; afterwards all that is still in a buffer goes to evidence."""
    async with bring_up(job, evidence) as case:
        await run_stage(case, case.plan.stages[0])
        if "ssh" not in case.channels:  # a testcase may have needed it already, and there is one connection
            case.channels["ssh"] = await open_channel("ssh", case.machine, case.login)
            case.stack.push_async_callback(case.channels["ssh"].close)
        ssh = case.channels["ssh"]
        assert isinstance(ssh, Ssh)
        yield case, ssh
        await case.machine.alive(settle(case), SETTLE, "the last of the evidence")


async def _step(case: Case, stage: Stage) -> None:
    """Raises TestbedError for a guest that fell silent, too: by hand one may go on all the same."""
    try:
        await run_stage(case, stage)
    except Silent as silent:
        raise GuestSilent(f"the guest fell silent: {silent.__cause__}") from silent
    except TestbedError as error:
        case.evidence.add("run", "error", what=f"step {stage.step}: {error.what}", hint=error.hint)
        raise


async def _on_a_terminal(case: Case, ssh: Ssh, screen: Screen, commands: Commands) -> None:
    """Keys to the guest's shell and its output to the screen, until either ends."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    size = os.get_terminal_size(STDOUT)
    shell = await ssh.shell(os.environ.get("TERM", "vt100"), size.columns, size.lines)
    keyboard = Keyboard(screen.guest)
    typed: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def keys() -> None:
        data = os.read(STDIN, 4096)
        for each in keyboard.feed(data, screen.full):
            if isinstance(each, ToGuest):
                typed.put(each.data)
            elif isinstance(each, Command) and not commands.take(each.line):
                over.set()
        if not data:  # the terminal was hung up
            over.set()

    def resized() -> None:
        now = os.get_terminal_size(STDOUT)
        shell.resize_pty(now.columns, now.lines)

    def ended() -> None:
        """A crash ends the shell as well, but not the session: there is still evidence to look at."""
        if not case.crashed:
            over.set()

    threading.Thread(target=_send, args=(shell, typed), daemon=True).start()
    threading.Thread(target=_receive, args=(shell, loop, screen, ended), daemon=True).start()
    with _as_it_was():
        tty.setraw(STDIN, termios.TCSADRAIN)
        screen.say(_welcome(case))
        loop.add_reader(STDIN, keys)
        loop.add_signal_handler(signal.SIGWINCH, resized)
        ticking = asyncio.create_task(_tick(screen))
        try:
            await over.wait()
        finally:
            ticking.cancel()
            loop.remove_reader(STDIN)
            loop.remove_signal_handler(signal.SIGWINCH)
            shell.close()
            screen.guest(b"\r\n")  # so that what we say from here on stands below the guest's last prompt


def _welcome(case: Case) -> str:
    return f"{case.plan.case}: its guest is yours. :help tells the commands, :quit ends."


def _send(shell: paramiko.Channel, typed: queue.SimpleQueue[bytes]) -> None:
    """A thread of its own: a guest that reads no more must not stop our commands."""
    with contextlib.suppress(OSError):  # closed
        while True:
            shell.sendall(typed.get())


def _receive(
    shell: paramiko.Channel, loop: asyncio.AbstractEventLoop, screen: Screen, ended: Callable[[], None]
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        with contextlib.suppress(OSError):
            while data := shell.recv(1 << 16):
                loop.call_soon_threadsafe(screen.guest, data)
        loop.call_soon_threadsafe(ended)


async def _tick(screen: Screen) -> None:
    """So that the number of lines left out is told even when nothing more happens."""
    while True:
        await asyncio.sleep(0.5)
        screen.catch_up()


async def _line_by_line(case: Case, ssh: Ssh, screen: Screen, commands: Commands) -> None:
    """Without a terminal: each line to its end before the next, so that a file of them is a script."""
    screen.say(_welcome(case))
    while line := await asyncio.to_thread(sys.stdin.readline):
        text = line.strip()
        if text.startswith(":"):
            if not commands.take(text.removeprefix(":")):
                return
            await commands.idle()
        elif text and case.crashed:
            screen.say(f"the guest has crashed and runs nothing: {text}")
        elif text:
            ran = await ssh.run(["sh", "-c", text], COMMAND_SECONDS)
            screen.guest((ran.out + ran.err).encode())
        screen.catch_up()


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(STDOUT, data) :]


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent ignores it, and we inherit that
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        job = _JOB.validate_json(file.read())
    try:
        if job.plan.wires == "tap":
            namespace.enter()
    except TestbedError as error:
        print(error, file=sys.stderr)
        return TESTBED_FAILED
    with _as_it_was():
        try:
            return asyncio.run(session(job))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
