"""Guest memory as a device sees it: ranges that the client mapped, backed by its shared descriptors.

In: DMA_MAP and DMA_UNMAP, checked by the session. Out: `read`, `write` and single stores at guest addresses; DmaFault where there
is nothing. Rule: no access leaves a mapped range, and no address is mapped twice.

Single stores (`store16`, `store32`) are one store of the CPU each, so that the guest never sees half of an index:
`struct.pack_into` on shared memory would clear the place first. Ranges without a descriptor (ROM, VGA) are known and fault.
Only files that are sealed against shrinking are mapped: a mapped page that the client takes away would end us with SIGBUS, and
reading such a file instead could wait for whoever serves it (FUSE). QEMU's memory-backend-memfd seals by itself.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from harness.vfio_user.errors import DmaFault, Refused
from harness.vfio_user.wire import MAX_DMA_MAPS, DmaFlags


@dataclass(eq=False)
class Range:
    """One mapping. `bytes_`, `halves`, `words`: the same memory in units of 1, 2 and 4 bytes; None without descriptor."""

    start: int
    end: int  # exclusive
    flags: int
    memory: mmap.mmap | None
    bytes_: memoryview
    halves: memoryview
    words: memoryview

    def close(self) -> None:
        """Let the memory go; if somebody still looks at it, it goes with the last view."""
        for view in (self.halves, self.words, self.bytes_):
            with contextlib.suppress(BufferError):
                view.release()
        if self.memory is not None:
            with contextlib.suppress(BufferError):
                self.memory.close()


_NOTHING = memoryview(b"")
_READ, _WRITE = int(DmaFlags.READ), int(DmaFlags.WRITE)  # numbers: an enum's & costs as much as the access


class DmaMemory:
    """The table of mappings."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ranges: list[Range] = []
        self._last = Range(0, 0, 0, None, _NOTHING, _NOTHING, _NOTHING)  # where the last access was
        self.faulted: Callable[[DmaFault], None] = lambda _fault: None  # hears of each fault

    def map(self, flags: int, iova: int, size: int, fd: int | None, offset: int) -> None:
        """Raises Refused: EEXIST for an overlap, ENOSPC, EINVAL for a descriptor that is no file of that size, or one that can shrink."""
        at = bisect.bisect_left(self._starts, iova)
        before = self._ranges[at - 1].end if at else 0
        after = self._starts[at] if at < len(self._starts) else 1 << 64
        if before > iova or after < iova + size:
            raise Refused(errno.EEXIST, f"{iova:#x} to {iova + size:#x} is mapped in part")
        if len(self._ranges) >= MAX_DMA_MAPS:
            raise Refused(errno.ENOSPC, "too many ranges")
        made = _backed(flags, iova, size, fd, offset)
        self._starts.insert(at, iova)
        self._ranges.insert(at, made)

    def unmap(self, iova: int, size: int) -> None:
        """Forget all ranges inside; Refused with ENOENT if there is none, EINVAL if one would be cut."""
        inside = [item for item in self._ranges if iova < item.end and item.start < iova + size]
        if not inside:
            raise Refused(errno.ENOENT, f"nothing at {iova:#x}")
        if any(item.start < iova or item.end > iova + size for item in inside):
            raise Refused(errno.EINVAL, f"{iova:#x} to {iova + size:#x} cuts a mapped range")
        self._forget(inside)

    def clear(self) -> None:
        self._forget(list(self._ranges))

    def _forget(self, gone: list[Range]) -> None:
        self._last = Range(0, 0, 0, None, _NOTHING, _NOTHING, _NOTHING)
        self._ranges = [item for item in self._ranges if item not in gone]
        self._starts = [item.start for item in self._ranges]
        for item in gone:
            item.close()

    def _find(self, address: int, length: int, need: int) -> Range:
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._ranges[at].end:
            raise self._fault(address, length, "not mapped")
        found = self._ranges[at]
        if found.memory is None:
            raise self._fault(address, length, "mapped without a descriptor")
        if not found.flags & need:
            raise self._fault(address, length, "not allowed in this range")
        self._last = found
        return found

    def _fault(self, address: int, length: int, why: str) -> DmaFault:
        fault = DmaFault(address, length, why)
        self.faulted(fault)
        return fault

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at guest address `address`. Raises DmaFault."""
        last = self._last
        if not (last.start <= address and address + length <= last.end and last.flags & 1):
            last = self._find(address, length, _READ)
            if address + length > last.end:
                head = last.end - address
                return self.read(address, head) + self.read(last.end, length - head)
        at = address - last.start
        return last.bytes_[at : at + length].tobytes()

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Raises DmaFault; what lies before the fault has been written then."""
        last, length = self._last, len(data)
        if not (last.start <= address and address + length <= last.end and last.flags & 2):
            last = self._find(address, length, _WRITE)
            if address + length > last.end:
                head = last.end - address
                self.write(address, data[:head])
                self.write(last.end, data[head:])
                return
        at = address - last.start
        last.bytes_[at : at + length] = data

    def store16(self, address: int, value: int) -> None:
        """One store of two bytes at an even address. Raises DmaFault."""
        if address & 1:
            raise DmaFault(address, 2, "not aligned")
        last = self._last
        if not (last.start <= address and address + 2 <= last.end and last.flags & 2):
            last = self._find(address, 2, _WRITE)
        last.halves[(address - last.start) >> 1] = value

    def store32(self, address: int, value: int) -> None:
        """One store of four bytes at an address divisible by four. Raises DmaFault."""
        if address & 3:
            raise DmaFault(address, 4, "not aligned")
        last = self._last
        if not (last.start <= address and address + 4 <= last.end and last.flags & 2):
            last = self._find(address, 4, _WRITE)
        last.words[(address - last.start) >> 2] = value


def _backed(flags: int, iova: int, size: int, fd: int | None, offset: int) -> Range:
    if fd is None:
        return Range(iova, iova + size, flags, None, _NOTHING, _NOTHING, _NOTHING)
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise Refused(errno.EINVAL, "the descriptor is no file")
    if not _seals(fd) & fcntl.F_SEAL_SHRINK:
        raise Refused(errno.EINVAL, "the file can shrink: map a memfd with F_SEAL_SHRINK (QEMU: memory-backend-memfd)")
    if os.fstat(fd).st_size < offset + size:  # after the seal was seen: before, it could still shrink
        raise Refused(errno.EINVAL, f"the file has no {offset + size} bytes")
    protection = (mmap.PROT_READ if flags & DmaFlags.READ else 0) | (mmap.PROT_WRITE if flags & DmaFlags.WRITE else 0)
    try:
        memory = mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=offset)
    except (OSError, ValueError, OverflowError) as error:
        raise Refused(errno.EINVAL, f"the descriptor cannot be mapped: {error}") from error
    view = memoryview(memory)
    return Range(iova, iova + size, flags, memory, view, view[: size & ~1].cast("H"), view[: size & ~3].cast("I"))


def _seals(fd: int) -> int:
    """What nobody can do to the file any more; nothing is sealed where seals are unknown (memfd and hugetlbfs have them)."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return 0
