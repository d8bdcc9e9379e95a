"""The folder that dumps arrive in: `ADDRESS-TIME/vmcore`, with `log` and `dump.json` beside it.

In: addresses, names and paths that a stranger chose, and bytes. Out: files below the folder, nothing anywhere else. The one rule:
every name is opened from its folder's descriptor, following no symbolic link, and what is opened to be written was made by us.

A dump is `vmcore-incomplete` while it arrives and as long as its client may go on with it, `vmcore` when it is whole, and
`vmcore-partial` when it ended early for good: the disk is full. What is left out is zero, and takes no space.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Callable

from guest.netpoll.clients.dump.sink import Kept, SinkError

INCOMPLETE, PARTIAL, COMPLETE = "vmcore-incomplete", "vmcore-partial", "vmcore"
DESCRIPTION = "dump.json"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_NOFOLLOW | os.O_CLOEXEC
MAX_PATH = 1024
RESERVE = 4096  # bytes kept back, so that a full disk can still be told about in the log
MAX_STATE = 1 << 20
MAX_SAME = 1000  # dumps of one address in one second
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

Say = Callable[[str], None]


class DumpDir:
    """A Store (clients/dump/sink.py). `say` gets a line when a dump begins and ends. Raises OSError if it is no folder."""

    def __init__(self, folder: str | os.PathLike[str], say: Say) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._say = say

    def close(self) -> None:
        """Release the folder."""
        os.close(self._fd)

    def find(self, peer: str, name: int, path: str | None) -> Kept:
        """What a dump of that name has left, in the folder that it asks for."""
        if not name:
            return Kept.NOTHING
        with contextlib.suppress(OSError), self._parent(path, peer) as parent:
            return _find(parent.fd, peer, name)[0]
        return Kept.NOTHING

    def open(self, peer: str, name: int, path: str | None, protocol: str) -> DumpFile:
        """A new folder with an empty dump, or the incomplete dump of that name. Raises SinkError."""
        try:
            with self._parent(path, peer) as parent:
                kept, folder = _find(parent.fd, peer, name) if name else (Kept.NOTHING, "")
                if kept is Kept.INCOMPLETE:
                    with contextlib.ExitStack() as stack:
                        fd = os.open(folder, FOLDER, dir_fd=parent.fd)
                        stack.callback(os.close, fd)
                        dump = DumpFile(fd, parent.path + folder, self._say, resumed=True)
                        stack.pop_all()
                        return dump
                folder, fd = _new_folder(parent.fd, peer)
                _write(fd, DESCRIPTION, json.dumps({"protocol": protocol, "client": peer, "name": name}).encode())
                return DumpFile(fd, parent.path + folder, self._say, resumed=False)
        except OSError as error:
            raise SinkError(f"cannot make its file: {error.strerror}") from error

    def _parent(self, path: str | None, peer: str) -> _Parent:
        """The folder for it: what it asks for where that is there and below ours, else ours (netdumpd does the same)."""
        if path:
            try:
                return _Parent(_descend(self._fd, path), path.rstrip("/") + "/")
            except (OSError, ValueError) as error:
                self._say(f"{peer}: no folder {path!r} for it ({error}): it goes to the one that is for all")
        return _Parent(os.dup(self._fd), "")


class _Parent:
    """A folder's descriptor, closed after use, and what to call it."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd, self.path = fd, path

    def __enter__(self) -> _Parent:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _descend(fd: int, path: str) -> int:
    """A descriptor for the folder `path` below `fd`. Raises ValueError for a name that is not allowed, OSError."""
    parts = path.rstrip("/").split("/")
    if len(path) > MAX_PATH or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError("not a plain relative path")
    here = os.dup(fd)
    for part in parts:
        above = here
        try:
            here = os.open(part, FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return here


def _new_folder(parent: int, peer: str) -> tuple[str, int]:
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for number in range(MAX_SAME):
        folder = f"{peer}-{stamp}" + (f"-{number}" if number else "")
        try:
            os.mkdir(folder, 0o700, dir_fd=parent)
        except FileExistsError:
            continue
        return folder, os.open(folder, FOLDER, dir_fd=parent)
    raise OSError(errno.EEXIST, f"{MAX_SAME} dumps of {peer} in one second")


def _find(parent: int, peer: str, name: int) -> tuple[Kept, str]:
    """The dump of that address and name, complete or incomplete, and its folder."""
    for folder in sorted(os.listdir(parent), reverse=True):
        if not folder.startswith(f"{peer}-"):
            continue
        try:
            fd = os.open(folder, FOLDER, dir_fd=parent)
        except OSError:
            continue
        try:
            kept = _kept(fd, name)
        finally:
            os.close(fd)
        if kept is not Kept.NOTHING:
            return kept, folder
    return Kept.NOTHING, ""


def _kept(folder: int, name: int) -> Kept:
    try:
        described = json.loads(_read(folder, DESCRIPTION))
        names = set(os.listdir(folder))
    except (OSError, ValueError):
        return Kept.NOTHING
    if not isinstance(described, dict) or described.get("name") != name:
        return Kept.NOTHING
    if INCOMPLETE in names:
        return Kept.INCOMPLETE
    return Kept.NOTHING if PARTIAL in names else Kept.COMPLETE


def _read(folder: int, name: str, size: int = 4096) -> bytes:
    fd = os.open(name, os.O_RDONLY | FILE | os.O_NONBLOCK, dir_fd=folder)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def _write(folder: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE, 0o600, dir_fd=folder)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


class DumpFile:
    """A Sink: one dump's folder, `where` it is for whoever reads about it. Raises OSError; owns `folder` from then on."""

    def __init__(self, folder: int, where: str, say: Say, *, resumed: bool) -> None:
        self.where = where
        self._folder = folder
        self._say = say
        made = 0 if resumed else os.O_CREAT | os.O_EXCL
        self._log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | FILE, 0o600, dir_fd=folder)
        self._fd = os.open(INCOMPLETE, os.O_RDWR | FILE | made, 0o600, dir_fd=folder)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError(errno.EINVAL, "not a file of ours")
        self._reserve()
        self._tell("goes on" if resumed else "begins")

    def _reserve(self) -> None:
        with contextlib.suppress(OSError):
            _write(self._folder, "reserve", bytes(RESERVE))

    def write(self, offset: int, data: bytes) -> None:
        """pwrite() all of it. Raises SinkError."""
        try:
            while data:
                count = os.pwrite(self._fd, data, offset)
                offset, data = offset + count, data[count:]
        except OSError as error:
            raise SinkError(f"cannot write: {error.strerror}") from error

    def log(self, line: str) -> None:
        """With the time; what cannot be written is left out."""
        with contextlib.suppress(OSError):
            os.write(self._log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode())

    def keep(self, state: bytes) -> None:
        """Under its name at once or not at all."""
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink("state.new", dir_fd=self._folder)
            _write(self._folder, "state.new", state)
            os.rename("state.new", "state", src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def kept(self) -> bytes:
        """Empty if there is none."""
        try:
            return _read(self._folder, "state", MAX_STATE)
        except OSError:
            return b""

    def finish(self, length: int, name: str, *, exact: bool) -> None:
        """On the disk, then under its name. Raises SinkError."""
        try:
            size = os.fstat(self._fd).st_size
            if length > size or (exact and 0 < length < size):
                os.ftruncate(self._fd, length)
            os.fsync(self._fd)
            self._name(name)
            os.fsync(self._folder)
        except OSError as error:
            raise SinkError(f"cannot finish: {error.strerror}") from error
        self._close(f"is complete: {max(length, size)} bytes as {name}")

    def abandon(self, why: str, *, partial: bool) -> None:
        """What came stays."""
        if self._fd < 0:
            return
        name = PARTIAL if partial else INCOMPLETE
        if partial:
            with contextlib.suppress(OSError):
                self._name(PARTIAL)
        self._close(f"ends early, as {name}: {why}", resumable=not partial)

    def _name(self, name: str) -> None:
        os.rename(INCOMPLETE, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _tell(self, what: str) -> None:
        self.log(f"the dump {what}")
        self._say(f"{self.where}: the dump {what}")

    def _close(self, what: str, *, resumable: bool = False) -> None:
        for name in ("reserve", "state") if not resumable else ("reserve",):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
        self._tell(what)
        for fd in (self._fd, self._log, self._folder):
            os.close(fd)
        self._fd = -1
