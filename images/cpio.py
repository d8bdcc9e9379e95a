"""Writes cpio archives in the "newc" format, as the kernel unpacks an initramfs (Documentation/driver-api/early-userspace/
buffer-format.rst).

In: paths with what stands there. Out: bytes. Rule: the same entries give the same bytes: sorted by path, owner root,
time 0, numbered in order. Archives may be concatenated; a later entry replaces an earlier one of the same path.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ALIGN = 4
TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """What stands at a path: `mode` as in stat(2); content as bytes or as a file to copy; `rdev` of a device node."""

    mode: int
    data: bytes | Path = b""
    rdev: tuple[int, int] = (0, 0)


def folder(mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(stat.S_IFDIR | mode)


def regular(data: bytes | Path, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(stat.S_IFREG | mode, data)


def symlink(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device node."""
    return Entry(stat.S_IFCHR | mode, b"", (major, minor))


def write_archive(out: IO[bytes], entries: Mapping[str, Entry]) -> int:
    """Writes one archive; returns its length in bytes, a multiple of 4.

    Paths are relative, without a leading `/` or `./`; folders that nobody named are added. Raises OSError.
    """
    complete = {**_parents(entries), **entries}
    length = 0
    for number, path in enumerate(sorted(complete), start=1):
        length += _write_entry(out, path, complete[path], number)
    return length + _write_entry(out, TRAILER, Entry(0), 0)


def _parents(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    parents = {str(parent) for path in entries for parent in Path(path).parents} - {"."}
    return {path: folder() for path in parents}


def _write_entry(out: IO[bytes], path: str, entry: Entry, number: int) -> int:
    data = entry.data if isinstance(entry.data, bytes) else entry.data.read_bytes()
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(data), 0, 0, *entry.rdev, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    written = 0
    for part in (head, data):
        padding = -len(part) % ALIGN
        out.write(part + b"\0" * padding if padding else part)
        written += len(part) + padding
    return written
