"""What can go wrong while images are built, as one tree grouped by what the reader can do about it.

    ImageError                 message + hint, both shown to the user
    ├── NoMirror               this host's apt names no Debian mirror: name one
    ├── NoKeyring              nothing to check signatures with: install the keyring
    ├── NoApt                  apt is missing, or this is no x86-64 machine: another host is needed
    ├── FetchFailed            apt tried and could not: network, suite gone, signature; carries apt's last output
    ├── DiskFull               no room in the cache: free some, or move it
    ├── CacheUnusable          the cache cannot be written or is damaged: move it, or prune
    ├── UnknownKernel          no recipe of that name
    ├── BadKernel              a kernel file that is none, or lacks what is needed
    └── BadQemu                the QEMU named with --qemu does not run, or lacks a feature

Rule: whoever catches ImageError can print `str(error)` and be done: message, then hint, no traceback needed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ImageError(Exception):
    """An image could not be had. `message` says what happened, `hint` what to do next (may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class NoMirror(ImageError):
    """No Debian mirror is known on this host."""


class NoKeyring(ImageError):
    """The keys of the Debian archive are not on this host."""


class NoApt(ImageError):
    """This machine cannot fetch Debian packages, or not run what they hold."""


class FetchFailed(ImageError):
    """apt could not fetch or verify; the message carries the end of its output."""


class DiskFull(ImageError):
    """The file system of the cache has no room left."""


class CacheUnusable(ImageError):
    """The cache folder cannot be written, or what is in it is damaged."""


class UnknownKernel(ImageError):
    """No recipe builds a kernel of that name."""


class BadKernel(ImageError):
    """A kernel image or module tree that cannot be used."""


class BadQemu(ImageError):
    """A QEMU that does not run or lacks a feature."""


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_RIGHT = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOLCK,
        errno.EOPNOTSUPP,
    }
)
MOVE_CACHE = "free some room, or put the cache elsewhere: NETPOLL_HARNESS_CACHE=/other/folder"


@contextmanager
def explained(what: str, root: Path) -> Iterator[None]:
    """Turns an OSError about room or rights into DiskFull or CacheUnusable; `what` was being done below `root`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(f"no room left in {root} while {what}: {error.strerror}", MOVE_CACHE) from error
        if error.errno in NO_RIGHT:
            place = error.filename or root
            raise CacheUnusable(
                f"{place} cannot be used while {what}: {error.strerror}",
                "put the cache into a folder of your own: NETPOLL_HARNESS_CACHE=/other/folder",
            ) from error
        raise
