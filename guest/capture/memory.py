"""The crashed kernel's memory as a stream: makedumpfile leaves out pages that say nothing of a crash, and packs the others.

In: a dump level (makedumpfile(8), -d). Out: standard input, for whoever is run next in this process. Rule: the filter is started before the NIC is
brought up and works while that waits; it stops by itself when the pipe is full.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from pathlib import Path

PROGRAM = "/usr/bin/makedumpfile"
VMCORE = "/proc/vmcore"
PIPE = 1 << 20  # bytes: the most that an unprivileged pipe has by default, /proc/sys/fs/pipe-max-size
BLOCK = 1 << 16


def filtered(level: int) -> subprocess.Popen[bytes]:
    """Start the filter: flattened, LZO, without its progress bar."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE)
    argv = [PROGRAM, "-F", "-l", "-d", str(level), "--message-level", "4", VMCORE]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=write)
    os.close(write)
    os.dup2(read, 0)
    os.close(read)
    return process


def no_more() -> None:
    """Nobody reads any more: a filter that still has something to say ends with SIGPIPE instead of waiting."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def crash_after(kibibytes: int) -> None:
    """Put a thread between standard input and what it is now, which panics this kernel after so much has gone through."""
    before, (read, write) = os.dup(0), os.pipe()
    os.dup2(read, 0)
    os.close(read)
    threading.Thread(target=_pump, args=(before, write, kibibytes << 10), daemon=True).start()


def _pump(source: int, target: int, left: int) -> None:
    while left > 0 and (data := os.read(source, min(left, BLOCK))):
        left -= len(data)
        while data:
            data = data[os.write(target, data) :]
    Path("/proc/sys/kernel/sysrq").write_text("1")
    Path("/proc/sysrq-trigger").write_text("c")
