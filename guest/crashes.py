"""How a guest crashes itself, from process context.

In: the name of a way to crash. Out: nothing, when it works. Rule: one function a way, found in WAYS; each does what an ordinary program
can do on a stock kernel, and the panic is the kernel's own answer to it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from guest import watchdog

PAGE = mmap.PAGESIZE
CHUNK = 4 << 20  # bytes
SYS_USERFAULTFD = 323  # arch/x86/entry/syscalls/syscall_64.tbl
UFFD_API, UFFD_REGISTER_MODE_MISSING = 0xAA, 1  # include/uapi/linux/userfaultfd.h
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00


def sysrq_c() -> None:
    """drivers/tty/sysrq.c, write_sysrq_trigger()."""
    Path("/proc/sys/kernel/sysrq").write_text("1")
    Path("/proc/sysrq-trigger").write_text("c")


def oom() -> None:
    """Take memory until there is none: mm/oom_kill.c, out_of_memory() -> check_panic_on_oom()."""
    taken = []
    while True:
        chunk = mmap.mmap(-1, CHUNK)
        for offset in range(0, CHUNK, PAGE):
            chunk[offset] = 1
        taken.append(chunk)


def hung_task() -> None:
    """A task that waits for ever and cannot be killed: kernel/hung_task.c, check_hung_task().

    One thread writes to a pipe from memory that userfaultfd(2) never fills in, so it sleeps with the pipe's mutex held; the second
    one waits for that mutex, uninterruptibly (fs/pipe.c, pipe_write()).
    """
    page = _never_there()
    _, pipe = os.pipe()
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(2):
        threading.Thread(
            target=libc.write, args=(pipe, ctypes.c_void_p(page), ctypes.c_size_t(PAGE)), daemon=True
        ).start()


_kept: list[object] = []  # what must live as long as the thread that waits


def _never_there() -> int:
    """The address of a page whose first access waits for a fault handler that does not exist. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("QQQ", UFFD_API, 0, 0))
    area = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    fcntl.ioctl(fd, UFFDIO_REGISTER, struct.pack("QQQQ", address, PAGE, UFFD_REGISTER_MODE_MISSING, 0))
    _kept.append(area)
    return address


WAYS: dict[str, Callable[[], None]] = {
    "sysrq-c": sysrq_c,
    "oom": oom,
    "hung-task": hung_task,
    "watchdog": watchdog.starve,
}
WAY = Path("/sys/module/npcrash/parameters/way")  # images/npcrash: all the other ways


def crash(how: str) -> None:
    """Crash this machine. Does not return when it works at once. Raises RuntimeError for a way that does not exist, OSError for one
    that this machine does not have."""
    if how in WAYS:
        WAYS[how]()
    elif WAY.exists():
        WAY.write_text(how)
    else:
        raise RuntimeError(f"the guest cannot crash itself by {how!r}")
