"""Processes that cannot outlive their parent, and the system calls for it that Python 3.11 does not offer.

Rule: everything this harness starts is tied to its parent by PR_SET_PDEATHSIG, so a SIGKILL anywhere ends everything below.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from typing import IO

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


def spawn(
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    small_pages: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own (the terminal's Ctrl-C is ours to handle), dying with this thread. `small_pages`: it gets no
    2 MiB page where it asks for one and uses little of it."""
    parent = os.getpid()

    def before() -> None:
        die_with(parent)
        if small_pages:  # what a kernel refuses costs memory and nothing else
            _libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        preexec_fn=before,
    )
