"""What a first process does for itself: mounts, modules, the end of the machine; by system calls, since there is no other program to do it.

In: names. Out: a system in which /proc, /sys and the NICs' drivers are there. Rule: nothing is started; each call costs what the kernel needs
for it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

SYS_FINIT_MODULE = 313  # arch/x86/entry/syscalls/syscall_64.tbl
RB_AUTOBOOT = 0x01234567  # include/uapi/linux/reboot.h
MODULES = Path("/modules")
MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"))
_libc = ctypes.CDLL(None, use_errno=True)


def mount_all() -> None:
    """mount(2) of MOUNTS. Raises OSError."""
    for kind, where in MOUNTS:
        mount(kind, kind, Path(where))


def mount(kind: str, what: str, where: Path, options: str = "") -> None:
    """mount(2). Raises OSError."""
    if _libc.mount(what.encode(), os.fsencode(where), kind.encode(), 0, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (mount {kind})", str(where))


def umount(where: Path) -> None:
    """umount2(2). Raises OSError."""
    if _libc.umount2(os.fsencode(where), 0):
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (umount)", str(where))


def needs(folder: Path = MODULES) -> dict[str, list[str]]:
    """What each module must find loaded, in order; `images.capture` writes it."""
    lines = (folder / "needs").read_text().splitlines()
    return {words[0]: words[1:] for words in map(str.split, lines)}


def in_order(names: Iterable[str], before: dict[str, list[str]]) -> list[str]:
    """The modules, each after those that it needs, each once; a name that nobody has may be built in and is left to the kernel."""
    wanted = dict.fromkeys(each for name in names for each in (*before.get(name, ()), name))
    return [name for name in wanted if name in before]


def load_modules(names: Iterable[str]) -> list[str]:
    """finit_module(2) of modules and what they need; returns what was loaded. Raises OSError."""
    order = in_order((name.replace("-", "_") for name in names), needs())
    for name in order:
        _load(MODULES / f"{name}.ko")
    return order


def _load(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syscall(SYS_FINIT_MODULE, fd, b"", 0):
            number = ctypes.get_errno()
            raise OSError(number, f"{os.strerror(number)} (finit_module)", str(path))
    finally:
        os.close(fd)


def reboot() -> None:
    """reboot(2). Does not return when it works."""
    _libc.reboot(RB_AUTOBOOT)
