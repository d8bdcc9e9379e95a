"""Where a dump's bytes come from: a file read at offsets, or a stream that comes once.

In: read functions. Out: chunks, (offset in the dump's file, bytes or a view of them), no longer than asked for. The one rule: what was read goes out at
the offset at which the file has it, whatever the order; a range that never goes out is zero.

/proc/vmcore, or any file, is read at its offsets, pages of zeros left out. makedumpfile's flattened stream (-F) says where each of
its records belongs in the file, so what the server writes is that file, as `makedumpfile -R` would have made it; offsets go back at
times, and later records overwrite earlier ones. Any other stream is its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Protocol

PAGE = 4096
BLOCK = 1 << 20
ZERO = bytes(PAGE)
FLAT_MAGIC = b"makedumpfile\0\0\0\0"
FLAT_HEADER = 4096
MOST = 1 << 62  # offsets and sizes beyond are not of this world

_RECORD = Struct(">qq")  # offset, size
_FLAT = Struct(">16sqq")  # signature, type, version

Chunk = tuple[int, bytes | memoryview]
Waiting = Iterator[None]


class SourceError(Exception):
    """The memory cannot be read, or a stream is not what it said; str() has the offset."""


class Source(Protocol):
    """`length`: of the file, in bytes; known for good when chunks() has ended."""

    repeatable: bool

    @property
    def length(self) -> int:
        """Of the file so far."""

    def chunks(self, size: int) -> Iterator[Chunk | None]:
        """From the beginning, at most `size` bytes each; None where there is nothing yet. Raises SourceError."""


class FileSource:
    """`read(offset, size)` as os.pread; `length` in bytes. Pages that cannot be read are zero, and counted."""

    repeatable = True

    def __init__(self, read: Callable[[int, int], bytes], length: int) -> None:
        self.length = length
        self.unreadable = 0
        self._read = read

    def chunks(self, size: int) -> Iterator[Chunk | None]:
        """Ascending, without pages of zeros. Raises SourceError when the file ends early."""
        for start in range(0, self.length, BLOCK):
            block = self._block(start, min(BLOCK, self.length - start))
            view = memoryview(block)
            ends = (
                start + BLOCK >= self.length
            )  # the last byte goes out, whatever it is: by it a server knows the length
            for first, last in extents(block, ends):
                for at in range(first, last, size):
                    yield start + at, view[at : min(at + size, last)]

    def _block(self, offset: int, size: int) -> bytes:
        parts = []
        end = offset + size
        while offset < end:
            try:
                part = self._read(offset, end - offset)
            except OSError:
                part = self._pages(offset, end - offset)
            if not part:
                raise SourceError(f"the file ends at byte {offset}, not at {self.length}")
            parts.append(part)
            offset += len(part)
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def _pages(self, offset: int, size: int) -> bytes:
        """A block that cannot be read at once, page by page."""
        step = min(PAGE - offset % PAGE, size)
        try:
            return self._read(offset, step)
        except OSError:
            self.unreadable += 1
            return bytes(step)


def extents(block: bytes, ends: bool = False) -> Iterator[tuple[int, int]]:
    """(first, last) of the runs of pages that are not all zero, or (`ends`) are the last; `last` is excluded."""
    first = None
    size = len(block)
    final = (size - 1) // PAGE * PAGE if ends else size
    for at in range(0, size, PAGE):
        zero = at != final and (block.startswith(ZERO, at) or (at + PAGE > size and not any(block[at:])))
        if zero and first is not None:
            yield first, at
            first = None
        elif not zero and first is None:
            first = at
    if first is not None:
        yield first, size


class StreamSource:
    """`read(size)` as os.read: b"" at the end, None where there is nothing yet. Flattened or not is seen from its first bytes."""

    repeatable = False

    def __init__(self, read: Callable[[int], bytes | None]) -> None:
        self.length = 0
        self.flattened = False
        self._read = read
        self._have = memoryview(b"")
        self._at = 0  # in _have: what comes next
        self._before = 0  # bytes of the stream before _have

    def chunks(self, size: int) -> Iterator[Chunk | None]:
        """In the stream's order. Raises SourceError for a flattened stream that is damaged or cut short."""
        yield from self._gather(len(FLAT_MAGIC))
        self.flattened = self._have[: len(FLAT_MAGIC)] == FLAT_MAGIC
        if self.flattened:
            yield from self._records(size)
        else:
            yield from self._whole(size)

    def _gather(self, size: int) -> Waiting:
        """Until `size` bytes are here, or the stream has ended."""
        while len(self._have) - self._at < size:
            more = self._read(max(BLOCK, size))
            if more is None:
                yield None
            elif more:
                left = bytes(self._have[self._at :])
                self._before += self._at
                self._have, self._at = memoryview(left + more if left else more), 0
            else:
                return

    def _take(self, size: int) -> memoryview:
        start, self._at = self._at, self._at + size
        if self._at > len(self._have):
            end = self._before + len(self._have)
            raise SourceError(f"the flattened stream ends at byte {end}, in a record: its maker was stopped")
        return self._have[start : self._at]

    def _whole(self, size: int) -> Iterator[Chunk | None]:
        while True:
            yield from self._gather(size)
            block = self._take(len(self._have) - self._at)
            if not block:
                return
            yield from self._cut(self.length, block, size)

    def _cut(self, offset: int, block: memoryview, size: int) -> Iterator[Chunk]:
        self.length = max(self.length, offset + len(block))
        for at in range(0, len(block), size):
            yield offset + at, block[at : at + size]

    def _records(self, size: int) -> Iterator[Chunk | None]:
        yield from self._gather(FLAT_HEADER)
        _, kind, version = _FLAT.unpack_from(self._take(FLAT_HEADER))
        if (kind, version) != (1, 1):
            raise SourceError(f"a flattened stream of type {kind}, version {version}: only 1, 1 is known")
        while True:
            yield from self._gather(_RECORD.size)
            offset, count = _RECORD.unpack(self._take(_RECORD.size))
            if offset == count == -1:
                return
            if not (0 <= offset < MOST and 0 < count < MOST):
                raise SourceError(f"byte {self._before + self._at}: a record of {count} bytes at offset {offset}")
            yield from self._record(offset, count, size)

    def _record(self, offset: int, count: int, size: int) -> Iterator[Chunk | None]:
        """One record, which may be longer than memory: what is here of it goes out, in whole chunks."""
        while count:
            yield from self._gather(min(count, size))
            here = len(self._have) - self._at
            step = count if here >= count else max(here // size, 1) * size
            yield from self._cut(offset, self._take(step), size)
            offset, count = offset + step, count - step
