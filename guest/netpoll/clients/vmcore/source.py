"""Where the bytes of a vmcore come from: a file, /proc/vmcore, or memory.

In: a path or bytes. Out: `read_at`. The rule it keeps: a read that ends early is told by its length, and nothing is mapped:
/proc/vmcore and a file that grows shorter under us cost an error, not a SIGBUS.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Protocol


class Source(Protocol):
    """Bytes at offsets. `size` in bytes; `read_at` may return fewer than asked for only at the end or at a hole."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes: ...


class BytesSource:
    """A vmcore in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Length of the data."""
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        """As Source's."""
        return self._data[offset : offset + length]


class FileSource(io.FileIO):
    """A vmcore on disk, or /proc/vmcore (whose size stat(2) tells: fs/proc/vmcore.c sets it). Raises OSError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.size = os.fstat(self.fileno()).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """As Source's; a kernel that cannot read a page of the old memory (EIO, EFAULT) shows as a short read."""
        parts: list[bytes] = []
        while length > 0:
            try:
                part = os.pread(self.fileno(), length, offset)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
