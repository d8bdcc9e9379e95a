"""Both ends of what joins us to a QEMU: its channels' socket pairs, the serial console, its standard error.

In: nothing. Out: `Ends`. Rule: whoever starts a QEMU or has one copied hands over the far ends and closes them here; the near ones
close with the context.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import IO

from harness.testbed.qemu import Channels

CONSOLE = "console"  # the name of its input among `Machine.ports`
CONSOLE_BUFFER = 1 << 20  # bytes
CHANNELS = tuple(each.name for each in fields(Channels))


@dataclass
class Ends:
    """`near` and `far` by the names of `Channels`, the console's input and what else was asked for; of the console's output `printed` is
    ours and `output` QEMU's."""

    near: Mapping[str, socket.socket]
    far: Mapping[str, socket.socket]
    printed: int
    output: int
    stderr: IO[bytes]

    def numbers(self) -> dict[str, int]:
        """What QEMU inherits, by name."""
        return {name: end.fileno() for name, end in self.far.items()}

    def channels(self) -> Channels:
        return Channels(**{name: self.far[name].fileno() for name in CHANNELS})

    def hand_over(self) -> None:
        """QEMU has its ends: when it ends, ours tell it. A second call does nothing."""
        for end in self.far.values():
            end.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def close(self) -> None:
        self.hand_over()
        for end in self.near.values():
            end.close()
        os.close(self.printed)
        self.stderr.close()


@contextlib.contextmanager
def open_ends(*more: str) -> Iterator[Ends]:
    """`more`: names of further socket pairs."""
    ends = make_ends(*more)
    try:
        yield ends
    finally:
        ends.close()


def make_ends(*more: str) -> Ends:
    """To be closed by the caller."""
    pairs = {name: socket.socketpair() for name in (*CHANNELS, CONSOLE, *more)}
    near, far = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
    stderr = tempfile.TemporaryFile()  # noqa: SIM115  (it has no name that a kill could leave)
    return Ends(near, far, *_wide_pipe(), stderr)


def _wide_pipe() -> tuple[int, int]:
    """For the serial console, which is written a byte at a time: a pipe of 1 MiB takes a million of them, a socket pair of the
    usual size 278. When the reader is late for longer than the guest's UART driver waits (10 ms), what does not fit is lost."""
    near, far = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(near, False)
    with contextlib.suppress(OSError):  # what this user may have together is used up: the default of 64 KiB then
        fcntl.fcntl(far, fcntl.F_SETPIPE_SZ, CONSOLE_BUFFER)
    return near, far
