"""What a run leaves on a machine, and what its processes hold while they live: for tests that say that nothing is left and nothing grows.

In: a `Ground`, a cache and a folder for temporary files of a test's own, and the mark that every process of its runs carries. Out:
processes, files, bytes. Rule: only what carries the mark is counted, so tests can run side by side.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import images

DEADLINE = 10.0  # seconds for the kernel to end orphans; it needs milliseconds
MARK = "NETPOLL_TEST_MARKER"
FETCHED = ("qemu-", f"kernel-{images.DEFAULT_KERNEL}-", "userland-")


@dataclass(frozen=True)
class Ground:
    """Where a test's runs happen."""

    cache: Path
    temporary: Path
    results: Path
    mark: str

    def popen(self, *arguments: str | Path, **options: object) -> subprocess.Popen[str]:
        """`netpoll-harness ARGUMENTS` with this ground's cache, in a session (and so a process group) of its own."""
        command = [sys.executable, "-m", "harness", *map(str, arguments)]
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # options are the caller's
            command, env=self.environment(), text=True, start_new_session=True, **options
        )

    def run(self, *arguments: str | Path, within: float = 240) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        command = [sys.executable, "-m", "harness", *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=within, check=False
        )

    def environment(self) -> dict[str, str]:
        own = {"NETPOLL_HARNESS_CACHE": str(self.cache), "TMPDIR": str(self.temporary), MARK: self.mark}
        return {**os.environ, **own}

    def processes(self) -> dict[int, str]:
        """pid -> command line of everything that carries the mark, however deep it was started."""
        return dict(marked(self.mark))

    def wait_until_gone(self) -> dict[int, str]:
        """What is still there after all had time to end."""
        return wait_until_gone(self.mark)


def make_ground(folder: Path, cache: Path) -> Ground:
    """A ground in `folder` with what was fetched for `cache`, as links to the same files, and nothing that was made of it: no guest's
    image, no template. Nobody who tidies the other cache takes anything away from this one."""
    own = folder / "cache"
    for made in (own / "current", own / "store", folder / "tmp"):
        made.mkdir(parents=True)
    for pointer in (cache / "current").iterdir():
        name = pointer.read_text().strip()
        if pointer.name.startswith(FETCHED) and (cache / "store" / name).is_dir():
            (own / "current" / pointer.name).write_text(name + "\n")
            shutil.copytree(cache / "store" / name, own / "store" / name, symlinks=True, copy_function=_linked)
    if (cache / "accel.json").exists():
        (own / "accel.json").write_text((cache / "accel.json").read_text())
    return Ground(own, folder / "tmp", folder / "runs", secrets.token_hex(8))


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # on another file system
        shutil.copy2(source, target, follow_symlinks=False)
    return target


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """(pid, command line) of the processes whose environment carries the mark."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile, or is another user's


def wait_until_gone(mark: str) -> dict[int, str]:
    """What still carries the mark after all had time to end; woken by their ends."""
    deadline = time.monotonic() + DEADLINE
    while left := dict(marked(mark)):
        if time.monotonic() > deadline:
            return left
        try:
            pidfd = os.pidfd_open(next(iter(left)))
        except ProcessLookupError:
            continue
        select.select([pidfd], [], [], 1.0)
        os.close(pidfd)
    return {}


def interfaces() -> set[str]:
    """Of the namespace that the test is in."""
    return {name for _, name in socket.if_nameindex()}


def own_bytes(pid: int) -> int:
    """Memory that is no file's, shared with children by copy-on-write or not; 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:")), 0)


def descriptors(pid: int) -> int:
    """How many a process holds; 0 once it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def files(folder: Path) -> dict[str, int]:
    """Path below `folder` -> size in bytes, of all regular files that are no links."""
    found = (path for path in folder.rglob("*") if not path.is_symlink())
    return {str(path.relative_to(folder)): path.stat().st_size for path in found if path.is_file()}
