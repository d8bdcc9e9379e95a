"""Processes that cannot outlive their parent, and the system calls for it that Python 3.11 does not offer.

Rule: everything this harness starts is tied to its parent by PR_SET_PDEATHSIG, so a SIGKILL anywhere ends everything below.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

PR_SET_PDEATHSIG, PR_SET_THP_DISABLE = 1, 41  # linux/prctl.h
CLONE_NEWUSER = 0x10000000  # linux/sched.h
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel kill this process when its parent thread ends; end at once if `parent` is already gone. `by`: a signal that
    leaves time for what only this process can put right, such as its terminal."""
    if _libc.prctl(PR_SET_PDEATHSIG, by, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def module_environment() -> dict[str, str]:
    """For a Python that runs a module of ours: where this very harness was imported from comes first."""
    here = str(Path(__file__).resolve().parents[2])
    path = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path)}


def processor_time(who: int = resource.RUSAGE_SELF) -> float:
    """Seconds that this process has used so far, or with RUSAGE_CHILDREN those below it that were waited for."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def clock_of(pid: int) -> int:
    """The clock of a process's processor time, for clock_gettime(2), as clock_getcpuclockid(3) makes it
    (include/linux/posix-timers_types.h: MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED)."""
    return (~pid << 3) | 2


def unshare(flags: int) -> None:
    """unshare(2): leave the namespaces named by `flags`. OSError with the kernel's errno when refused."""
    if _libc.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Process(Protocol):
    """One that can be ended and waited for. `processor`: seconds of processor time, once it was waited for; `counted`: whether
    RUSAGE_CHILDREN has them, too. `wait`: its exit status, or minus the signal that ended it."""

    pid: int
    processor: float
    counted: bool

    @property
    def returncode(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self) -> int: ...


class Spawned:
    """A child of ours."""

    counted = True

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.pid, self.processor = child.pid, 0.0

    @property
    def returncode(self) -> int | None:
        return self._child.returncode

    def kill(self) -> None:
        self._child.kill()

    def wait(self) -> int:
        """Its time comes with it: what children that were waited for have used grows by that (getrusage(2))."""
        before = processor_time(resource.RUSAGE_CHILDREN)
        code = self._child.wait()
        self.processor += processor_time(resource.RUSAGE_CHILDREN) - before
        return code


class Sibling:
    """A child of our parent, which collects it after our own end and not before: until then its number is nobody else's."""

    counted = False

    def __init__(self, pid: int) -> None:
        self.pid, self.processor = pid, 0.0
        self.returncode: int | None = None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            fd = os.pidfd_open(self.pid)
            select.select([fd], [], [])
            os.close(fd)
            self.processor = time.clock_gettime(clock_of(self.pid))
            *_, status = Path(f"/proc/{self.pid}/stat").read_text().split()  # proc_pid_stat(5): exit_code is the last
            self.returncode = os.waitstatus_to_exitcode(int(status))
        return self.returncode


def spawn(
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    small_pages: bool = False,
    namespaces: int = 0,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own (the terminal's Ctrl-C is ours to handle), dying with this thread. `env`: added to our
    environment. `small_pages`: it gets no 2 MiB page where it asks for one and uses little of it. `namespaces`: flags of unshare(2), for what
    may be refused."""
    parent = os.getpid()

    def before() -> None:
        die_with(parent)
        if small_pages:  # what a kernel refuses costs memory and nothing else
            _libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
        if namespaces:
            with contextlib.suppress(OSError):
                unshare(namespaces)

    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        env={**os.environ, **env} if env else None,
        start_new_session=True,
        preexec_fn=before,
    )
