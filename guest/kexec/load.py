"""kexec_load(2), called through ctypes, and the two calls that the rest of the harness needs: `load` once, `arm` as often as one likes.

In: files of a kernel and an initramfs, a command line. Out: /sys/kernel/kexec_crash_loaded says 1. Rule: what `load` placed is remembered in a file of
/run, so that `arm` can be another process's; a failed call leaves no half of an image that a panic would jump into.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from guest.kexec import layout
from guest.kexec.layout import Placed, Segment
from guest.kexec.machine import KexecError, Machine, read

SYS_KEXEC_LOAD = 246  # arch/x86/entry/syscalls/syscall_64.tbl
KEXEC_ON_CRASH, KEXEC_ARCH_X86_64 = 0x1, 62 << 16  # include/uapi/linux/kexec.h
PLACED = Path("/run/kexec.json")


class _Segment(ctypes.Structure):
    """struct kexec_segment."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("bufsz", ctypes.c_size_t),
        ("mem", ctypes.c_void_p),
        ("memsz", ctypes.c_size_t),
    ]


def load(vmlinux: Path, initrd: Path, cmdline: str) -> Placed:
    """Put a capture kernel into the crash region. Raises KexecError."""
    machine = read()
    segments, placed = layout.big(memoryview(_mapped(vmlinux)), memoryview(_mapped(initrd)), machine.crash)
    _call(machine, placed, cmdline, segments)
    PLACED.write_text(json.dumps(asdict(placed)))
    return placed


def arm(cmdline: str) -> None:
    """The same kernel and initramfs with another command line. Raises KexecError when none has been loaded."""
    try:
        known = json.loads(PLACED.read_text())
    except FileNotFoundError as error:
        raise KexecError("no capture kernel was loaded") from error
    _call(read(), Placed(known["entry"], tuple(known["initrd"])), cmdline, ())


def loaded() -> bool:
    return Path("/sys/kernel/kexec_crash_loaded").read_text().strip() == "1"


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE)


def _call(machine: Machine, placed: Placed, cmdline: str, big: Sequence[Segment]) -> None:
    small = layout.small(machine, placed, cmdline)
    every = [*small, *big]
    buffers = [(ctypes.c_char * len(each.data)).from_buffer(_writable(each.data)) for each in every]
    table = (_Segment * len(every))(
        *(
            _Segment(ctypes.addressof(buffer), len(each.data), each.address, each.size)
            for buffer, each in zip(buffers, every, strict=True)
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(KEXEC_ON_CRASH | KEXEC_ARCH_X86_64)
    entry, count = ctypes.c_ulong(small[0].address), ctypes.c_ulong(len(every))
    if libc.syscall(SYS_KEXEC_LOAD, entry, count, table, flags):
        number = ctypes.get_errno()
        raise KexecError(f"kexec_load: {os.strerror(number)} ({len(every)} segments at {machine.crash[0]:#x})")


def _writable(data: bytes | memoryview) -> bytearray | memoryview:
    """ctypes takes the address of what could be written to, only."""
    return bytearray(data) if isinstance(data, bytes) else data
