"""A machine that stands still, and from which others are copied in milliseconds, with all that QEMU has translated.

In: a template's command, the library that makes a QEMU forkable (images/forkable), the process below which all of this runs. Out:
`Original`, and from it `Copy`. Rule: the original has no network and its ends with ours; a copy has nothing of the original's
but its memory, copy-on-write, and is the child of whoever holds the original.

QEMU under software emulation makes host code of guest code, and that is most of a case's time. Each QEMU makes its own; a copy has it
made already. So the original is warmed up first, by what all cases do (harness.warm).
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.testbed.ends import CHANNELS, CONSOLE, Ends, make_ends
from harness.testbed.errors import TestbedError
from harness.testbed.machine import spawn_qemu
from harness.testbed.process import CLONE_NEWNET, CLONE_NEWUSER, Spawned
from harness.testbed.qemu import ACCEL, Channels
from harness.testbed.template import sealed_memory

HELM = "helm"  # the monitor of whoever warms the original up: the others have greeted nobody yet
_REQUEST, _PLACES = "=iii", 16  # images/forkable/forkable.c: struct request
_STDERR = "stderr"
_ORDER = (*CHANNELS, CONSOLE, "output", _STDERR)
PATIENCE = 10.0  # seconds for a greeting or a copy: milliseconds of work
GREETING_LIMIT = 1 << 16  # bytes
CODE = 128  # MiB of translated code that a machine keeps: the warm-up's and a case's; a page that is not used costs nothing


class NoCopy(TestbedError):
    """The original gives no copy; a machine can be restored instead."""


@dataclass(frozen=True)
class Copy:
    """A QEMU that stands still, and our ends of its channels, which whoever opened them closes. `memory`: its guest's, where other
    processes see it; a descriptor, to be closed, too."""

    pid: int
    argv: tuple[str, ...]
    ends: Ends
    memory: int | None = None

    def close(self) -> None:
        """Our ends. The machine goes on."""
        self.ends.close()
        if self.memory is not None:
            os.close(self.memory)


@dataclass
class Original:
    """`places`: the numbers that its channels have in it, in the order of _ORDER. `ends`: ours, for whoever warms it up. `memory`: its
    guest's, where each copy has its own that other processes see; in it the number is the same."""

    process: Spawned
    argv: tuple[str, ...]
    ends: Ends
    places: tuple[int, ...]
    greetings: Mapping[str, bytes]
    control: socket.socket
    memory: int | None = None

    def copy(self) -> Copy:
        """Raises NoCopy with QEMU's reason; nothing of the copy is left then."""
        with contextlib.ExitStack() as undo:
            ends = make_ends()
            undo.callback(ends.close)
            memory = None
            if self.memory is not None:
                memory = sealed_memory(os.fstat(self.memory).st_size)
                undo.callback(os.close, memory)
            pid = self._ask(ends, memory)
            for name, greeting in self.greetings.items():
                ends.far[name].sendall(greeting)  # as if the monitor had just been opened
            undo.pop_all()
        ends.hand_over()
        return Copy(pid, self.argv, ends, memory)

    def _ask(self, ends: Ends, memory: int | None) -> int:
        numbers = {**ends.numbers(), "output": ends.output, _STDERR: ends.stderr.fileno()}
        fds = array.array("i", [*(numbers[name] for name in _ORDER), *([] if memory is None else [memory])])
        head = struct.pack(_REQUEST, len(fds), os.getpid(), -1 if self.memory is None else self.memory)
        request = head + array.array("i", [*self.places, *[-1] * (_PLACES - len(self.places))]).tobytes()
        for _ in range(3):
            try:
                self.control.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                answer = self.control.recv(4096)
            except OSError as error:
                raise NoCopy(f"the original gives no answer: {error}") from error
            if not answer:
                raise NoCopy("the original has ended")
            pid, why = struct.unpack("=i", answer[:4])[0], answer[4:].split(b"\0")[0].decode(errors="replace")
            if pid > 0:
                return int(pid)
            if why:
                raise NoCopy(f"QEMU cannot be copied: {why}")
        raise NoCopy("QEMU cannot be copied: its threads never stand still")

    def close(self) -> None:
        """End it. Copies live on."""
        self.process.kill()
        self.process.wait()
        self.ends.close()
        self.control.close()
        if self.memory is not None:
            os.close(self.memory)


def start(argv_of: Callable[[Channels], Sequence[str]], library: Path, memory: int | None = None) -> Original:
    """A QEMU that waits, for a template to be restored into it over its monitor HELM. `memory`: a descriptor, where its guest's is shared;
    the original closes it. Raises NoCopy and QemuDied."""
    ends = make_ends(HELM)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ends.close)
        undo.callback(ours.close)
        numbers = ends.numbers()
        monitor = ("-chardev", f"socket,id={HELM},fd={numbers[HELM]}", "-mon", f"chardev={HELM},mode=control")
        argv = (*_preloading(argv_of(ends.channels()), library), *monitor)
        places = (*(numbers[name] for name in CHANNELS), 0, 1, 2)
        namespaces = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
        inherit = [theirs.fileno(), *([] if memory is None else [memory])]
        process = spawn_qemu(argv, ends, inherit, namespaces, NETPOLL_FORKABLE=str(theirs.fileno()))
        undo.callback(process.wait)
        undo.callback(process.kill)
        greetings = {name: _greeting(ends.near[name]) for name in ("qmp", "fast")}
        undo.pop_all()
        return Original(process, argv, ends, places, greetings, ours, memory)


def _preloading(argv: Sequence[str], library: Path) -> tuple[str, ...]:
    """An image's QEMU runs through its own ld.so, which takes it as an option."""
    if not Path(argv[0]).name.startswith("ld-linux"):
        raise NoCopy("a QEMU of one's own is not copied")
    more_code = {ACCEL["tcg"]: f"tcg,tb-size={CODE}"}
    return (argv[0], "--preload", str(library), *(more_code.get(word, word) for word in argv[1:]))


def _greeting(monitor: socket.socket) -> bytes:
    """A line, which QEMU says once, to whom it greets first."""
    monitor.settimeout(PATIENCE)
    said = b""
    try:
        while not said.endswith(b"\n"):
            if not (more := monitor.recv(GREETING_LIMIT)) or len(said) > GREETING_LIMIT:
                raise NoCopy("QEMU did not greet")
            said += more
    except OSError as error:
        raise NoCopy(f"QEMU did not greet: {error}") from error
    finally:
        monitor.settimeout(None)
    return said


def end_copy(pid: int) -> None:
    """Collect a copy, which is our child; it may still run."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
