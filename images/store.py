"""The cache on disk: finished images under their content's address, built aside and moved in whole.

    store/NAME-DIGEST/      a finished object: files and manifest.json
    current/KEY             which object a recipe last resolved to; with it, no network is needed
    tmp/RANDOM + .lock      an object under construction, or what a process needs for a while; who made it holds the lock
    locks/KEY.lock          one builder a recipe
    apt/                    package indices (see images.aptroot)

In: a function that fills a folder. Out: the path of a finished object. Rule: what is in store/ is complete. An object
gets there by one rename after its files are on disk, so a killed builder leaves only a tmp/ entry whose lock is free;
the next builder sweeps it away. All locks are flock(2) locks: they end with the process that holds them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from images.errors import CacheUnusable, explained

MANIFEST = "manifest.json"
UNFIT = '"\\:;,\n\t%'  # in a path: separators of library paths, of apt.conf and of QEMU options
_libc = ctypes.CDLL(None, use_errno=True)


def cache_root(env: Mapping[str, str] = os.environ) -> Path:
    """$NETPOLL_HARNESS_CACHE, else $XDG_CACHE_HOME/netpoll-harness, else ~/.cache/netpoll-harness; absolute.

    Raises CacheUnusable for a path that ld.so's, apt's or QEMU's options could not carry.
    """
    base = env.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = Path(env.get("NETPOLL_HARNESS_CACHE") or Path(base) / "netpoll-harness").absolute()
    if bad := sorted(set(str(root)) & set(UNFIT)):
        raise CacheUnusable(
            f"the cache's path {str(root)!r} holds {' '.join(map(repr, bad))}",
            "set NETPOLL_HARNESS_CACHE to a folder without such characters",
        )
    return root


@dataclass(frozen=True)
class Store:
    """The cache below `root`. Objects handed out are locked against `prune` until this process ends."""

    root: Path
    _held: dict[Path, IO[str]] = field(default_factory=dict, repr=False, compare=False)

    def current(self, key: str) -> Path | None:
        """The object that `key` points to, or None."""
        try:
            name = (self.root / "current" / key).read_text().strip()
        except FileNotFoundError:
            return None
        return self.find(name)

    def find(self, name: str) -> Path | None:
        """The finished object of that name, held for this process; None when there is none."""
        path = self.root / "store" / name
        while path not in self._held:
            try:
                manifest = (path / MANIFEST).open()
            except (FileNotFoundError, NotADirectoryError):
                return None
            fcntl.flock(manifest, fcntl.LOCK_SH)
            if _is_at(manifest, path / MANIFEST):
                self._held[path] = manifest
            else:  # pruned between open and lock
                manifest.close()
        return path

    def point(self, key: str, name: str) -> None:
        """Makes `name` the current object of `key`, atomically."""
        with explained("noting what was built", self.root):
            folder = self._folder("current")
            aside = folder / f".{key}.{secrets.token_hex(4)}"
            aside.write_text(name + "\n")
            os.replace(aside, folder / key)

    @contextmanager
    def lock(self, key: str, waiting: Callable[[], AbstractContextManager[object]] = nullcontext) -> Iterator[None]:
        """One holder a key among all processes; `waiting` is a context to wait in while somebody else has it."""
        with explained("taking a lock", self.root), open(self._folder("locks") / f"{key}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with waiting():
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def build(self, name_of: Callable[[Path], str], fill: Callable[[Path], Mapping[str, Any]]) -> Path:
        """Fills a fresh folder, adds the manifest that `fill` returns, and moves it to store/NAME.

        `name_of` gets the filled folder. Raises what `fill` raises, DiskFull and CacheUnusable; nothing stays then.
        """
        self.sweep()
        with explained("building an image", self.root), self._scratch() as scratch:
            manifest = fill(scratch)
            (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            to_disk(scratch)
            return self._publish(scratch, name_of(scratch))

    def _publish(self, scratch: Path, name: str) -> Path:
        target = self._folder("store") / name
        try:
            os.rename(scratch, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Somebody else published the same content meanwhile: use theirs.
        to_disk(target.parent)
        found = self.find(name)
        if found is None:
            raise CacheUnusable(f"{target} is in the way of a finished image", f"remove {target}")
        return found

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder in tmp/ for what is no image, gone with the context. Of one whose process was killed the next that asks for a
        folder here removes what was left. Raises CacheUnusable."""
        self.sweep()
        with self._scratch() as path:
            yield path

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A new folder in tmp/, guarded by a lock of ours, gone afterwards unless it was renamed away."""
        folder = self._folder("tmp")
        path = folder / secrets.token_hex(8)
        lock_path = path.with_suffix(".lock")
        with _own_lock(lock_path):
            try:
                path.mkdir()
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)
                lock_path.unlink(missing_ok=True)

    def sweep(self) -> list[Path]:
        """Removes what dead builders left in tmp/; returns what was removed."""
        swept = []
        for lock_path in sorted((self.root / "tmp").glob("*.lock")):
            with suppress(FileNotFoundError, BlockingIOError), open(lock_path) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
                lock_path.unlink(missing_ok=True)
                swept.append(lock_path.with_suffix(""))
        return swept

    def release(self) -> None:
        """Lets go of all objects that were handed out: `prune` may take them."""
        while self._held:
            self._held.popitem()[1].close()

    def objects(self) -> list[Path]:
        """All finished objects, by name."""
        return sorted(path for path in (self.root / "store").glob("*") if (path / MANIFEST).is_file())

    def pointers(self) -> dict[str, str]:
        """Which object each key points to."""
        folder = self.root / "current"
        paths = [path for path in folder.glob("*") if not path.name.startswith(".")] if folder.is_dir() else []
        return {path.name: path.read_text().strip() for path in paths}

    def remove(self, path: Path) -> bool:
        """Removes an object unless some process, this one included, holds it; True when it is gone."""
        if path in self._held:
            return False
        try:
            with open(path / MANIFEST) as manifest:
                fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
                aside = self._folder("tmp") / f"{secrets.token_hex(8)}"
                with _own_lock(aside.with_suffix(".lock")):
                    os.rename(path, aside)  # out of store/ in one step: never a half-removed object there
                    shutil.rmtree(aside, ignore_errors=True)
                    aside.with_suffix(".lock").unlink(missing_ok=True)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True
        return True

    def _folder(self, name: str) -> Path:
        with explained("creating the cache", self.root):
            path = self.root / name
            path.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def _own_lock(path: Path) -> Iterator[None]:
    """Creates and locks `path`; again if a sweeper removed it between the two."""
    with ExitStack() as stack:
        while True:
            lock = stack.enter_context(open(path, "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(lock, path):
                break
        yield


def _is_at(file: IO[str], path: Path) -> bool:
    """Is the open file still what stands at `path`?"""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a finished object. Raises CacheUnusable when it cannot be read."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CacheUnusable(f"{path / MANIFEST} cannot be read: {error}", f"remove {path} and build again") from error
    return manifest


def to_disk(folder: Path) -> None:
    """Waits until everything on the file system of `folder` is on disk (syncfs(2)), so that a rename may follow."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(fd) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
    finally:
        os.close(fd)
