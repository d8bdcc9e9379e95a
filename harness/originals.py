"""The originals of a run: one process has them, and gives each case that asks a copy (harness.testbed.original).

In: over a seqpacket socket, one connection for each process that starts cases:

    {"like": KIND}                     a case on a machine of this kind begins -> {"none": WHY}, {"want": true}, or {"pid", "argv"} with descriptors
    {"make": KIND, "forkable"}         with a descriptor of the job's text -> {}: an original is begun
    {"done": PID}                      the copy's case is over -> {}, when nothing is left of it

Out: copies, children of this process. Rule: they end with the connection that asked for them, and everything ends with this process, which
ends with whoever started it. While an original is being warmed up nobody waits for it: cases are restored.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from harness.case import Job, shares_memory
from harness.testbed.ends import CHANNELS, CONSOLE, Ends
from harness.testbed.errors import TestbedError
from harness.testbed.original import Copy, NoCopy, Original, end_copy, start
from harness.testbed.process import die_with, module_environment
from harness.testbed.qemu import Memory
from harness.testbed.template import clone_argv, filled_memory
from harness.warm import warm_up

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
PLAIN = 2  # cases on one template that are restored before a machine is warmed up, which takes as long as some of them
WARM = 60  # seconds that this may take
LIMIT, FDS = 1 << 16, 16  # bytes and descriptors of a message
NAMES = (*CHANNELS, CONSOLE)  # whose near ends are handed over, before the console's output and the standard error
FAILED = 70  # sysexits' EX_SOFTWARE


# -- whoever starts a run


class Keeper:
    """The parent's handle. `address` is what cases connect to."""

    def __init__(self) -> None:
        parent = os.getpid()
        name = f"netpoll-harness-{secrets.token_hex(8)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"\0{name}")  # it has no file that could be left
            listener.listen()
            self.address = name
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness.originals", str(listener.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                preexec_fn=lambda: die_with(parent),
                env=module_environment(),
            )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- whoever starts cases


class Copies:
    """One connection. What goes wrong with it costs copies, and no case."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(WARM)
        self._works = True
        try:
            self._socket.connect(f"\0{address}")
        except OSError:
            self._works = False

    def copy(self, like: str, forkable: str, job: str) -> Copy | None:
        """A copy for a case on the template `like`, if there is one. `job`: the case's, as text, for an original to be made."""
        answer, fds = self._ask({"like": like})
        if answer.get("want"):
            with _as_file(job) as file:
                self._ask({"make": like, "forkable": forkable}, [file])
        if "pid" not in answer or len(fds) - len(NAMES) not in (2, 3):  # the third is the memory, where others see it
            return None
        near = {name: socket.socket(fileno=fd) for name, fd in zip(NAMES, fds, strict=False)}
        printed, stderr, *memory = fds[len(NAMES) :]
        ends = Ends(near, {}, printed, -1, os.fdopen(stderr, "w+b"))
        return Copy(answer["pid"], tuple(answer["argv"]), ends, memory[0] if memory else None)

    def done(self, copy: Copy) -> None:
        """Nothing of the copy is left when this returns."""
        copy.close()
        self._ask({"done": copy.pid})

    def _ask(self, request: Mapping[str, object], fds: list[int] | None = None) -> tuple[dict[str, Any], list[int]]:
        if not self._works:
            return {}, []
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds or [])
            text, got, _, _ = socket.recv_fds(self._socket, LIMIT, FDS)
            return json.loads(text), got
        except (OSError, ValueError):  # whoever kept the originals is gone
            self._works = False
            return {}, []


@contextlib.contextmanager
def _as_file(text: str) -> Any:
    fd = os.memfd_create("job", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield fd
    finally:
        os.close(fd)


# -- the process that has them


@dataclass
class Kept:
    """What is known of a template. `warming`: the child that warms its original up; 0: none."""

    original: Original | None = None
    warming: int = 0
    why: str = "not asked for often enough yet"


@dataclass
class Server:
    kept: dict[str, Kept] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    copies: dict[socket.socket, set[int]] = field(default_factory=dict)  # by connection

    def answer(self, who: socket.socket, request: Mapping[str, Any], fds: list[int]) -> None:
        match request:
            case {"like": str(like)}:
                self._copy(who, like)
            case {"make": str(like), "forkable": str(library)} if fds:
                self._make(like, library, fds[0])
                _say(who, {})
            case {"done": int(pid)}:
                if pid in self.copies[who]:
                    self.copies[who].remove(pid)
                    end_copy(pid)
                _say(who, {})
            case _:
                _say(who, {"none": "not understood"})

    def _copy(self, who: socket.socket, like: str) -> None:
        self.asked[like] += 1
        kept = self.kept.get(like)
        if kept is None:
            _say(who, {"want": True} if self.asked[like] > PLAIN else {"none": Kept.why})
            return
        if kept.original is None or kept.warming:
            _say(who, {"none": kept.why})
            return
        try:
            copy = kept.original.copy()
        except (NoCopy, OSError) as error:
            kept.original.close()
            kept.original, kept.why = None, str(error)
            print(f"cases are restored from their template: {error}", file=sys.stderr)
            _say(who, {"none": kept.why})
            return
        self.copies[who].add(copy.pid)
        fds = [*(copy.ends.near[name].fileno() for name in NAMES), copy.ends.printed, copy.ends.stderr.fileno()]
        _say(who, {"pid": copy.pid, "argv": copy.argv}, fds if copy.memory is None else [*fds, copy.memory])
        copy.close()

    def _make(self, like: str, library: str, job_fd: int) -> None:
        if like in self.kept:
            return
        kept = self.kept[like] = Kept()
        try:
            job = _JOB.validate_json(_whole(job_fd))
            kept.original = begin(job, Path(library))
        except (TestbedError, ValueError, OSError) as error:
            kept.why = str(error)
            print(f"cases are restored from their template: {error}", file=sys.stderr)
            return
        kept.warming, kept.why = in_child(partial(_warm, kept.original, job)), "an original is being warmed up"

    def look(self) -> None:
        """Which children have ended: those that warmed an original up."""
        for kept in self.kept.values():
            if kept.warming and (ended := os.waitpid(kept.warming, os.WNOHANG))[0]:
                status, kept.warming = os.waitstatus_to_exitcode(ended[1]), 0
                if status != 0 and kept.original is not None:
                    kept.original.close()
                    kept.original, kept.why = None, f"warming up ended with status {status}"
                    print(f"cases are restored from their template: {kept.why}", file=sys.stderr)

    def forget(self, who: socket.socket) -> None:
        for pid in self.copies.pop(who):
            end_copy(pid)
        who.close()


def begin(job: Job, library: Path) -> Original:
    """On the template's memory, copy-on-write, or where others are to see a copy's, on memory that has what is in it."""
    with contextlib.ExitStack() as undo:
        fd, memory = None, Memory(str(job.template.ram), False)
        if shares_memory(job):
            fd = filled_memory(job.template)
            undo.callback(os.close, fd)
            memory = Memory(f"/proc/self/fd/{fd}", True)
        original = start(partial(clone_argv, job.ingredients, memory, folder=job.template.folder), library, fd)
        undo.pop_all()
    return original


def _warm(original: Original, job: Job) -> int:
    signal.alarm(WARM)
    warm_up(original, job)
    return 0


def in_child(work: Callable[[], int]) -> int:
    """Do `work` in a child that dies with us and ends with what it returns; its number."""
    me = os.getpid()
    if (child := os.fork()) != 0:
        return child
    status = FAILED
    try:
        die_with(me)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends a case by killing it
        status = work()
    except BaseException as error:  # the child must never return into the loop
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _whole(fd: int) -> bytes:
    with os.fdopen(fd, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _say(who: socket.socket, answer: Mapping[str, object], fds: list[int] | None = None) -> None:
    with contextlib.suppress(OSError):  # it is gone; its connection tells
        socket.send_fds(who, [json.dumps(answer).encode()], fds or [])


def _mine(who: socket.socket) -> bool:
    """A connection of the same user's (unix(7), SO_PEERCRED)."""
    return os.geteuid() == int.from_bytes(who.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)


def serve(listener: socket.socket) -> None:
    """Until standard input ends."""
    server, poll = Server(), select.poll()
    known: dict[int, socket.socket] = {}
    for fd in (0, listener.fileno()):
        poll.register(fd, select.POLLIN)
    wake = _ended_children()
    poll.register(wake, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                return
            if fd == wake:
                os.read(wake, LIMIT)
                server.look()
            elif fd == listener.fileno():
                who, _ = listener.accept()
                if _mine(who):
                    known[who.fileno()], server.copies[who] = who, set()
                    poll.register(who, select.POLLIN)
            else:
                who = known[fd]
                text, fds = _heard(who)
                if not text:
                    poll.unregister(fd)
                    server.forget(known.pop(fd))
                else:
                    server.answer(who, _parsed(text), fds)
                for each in fds:
                    os.close(each)


def _heard(who: socket.socket) -> tuple[bytes, list[int]]:
    """A message; none from whoever is gone, which with an answer unread is an error (unix(7), ECONNRESET)."""
    try:
        text, fds, _, _ = socket.recv_fds(who, LIMIT, FDS)
    except OSError:
        return b"", []
    return text, fds


def _parsed(text: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            return found
    return {}


def _ended_children() -> int:
    """Readable when a child has ended."""
    near, far = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(far, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return near


def main() -> int:
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        serve(listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
