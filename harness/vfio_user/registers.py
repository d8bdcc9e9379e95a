"""A BAR of 32-bit registers as a table.

In: a size and `Register` rows. Out: a `RegisterFile` that a PciDevice serves. Rule: what no row describes is storage that reads back;
a row says what is different: which bits can be written, what a read gives, what a write does.

Accesses narrower than 32 bits are done on the whole register: a read takes the bytes out of it, a write puts them into what the
register holds. Wider ones are split.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ALL = 0xFFFF_FFFF


@dataclass(frozen=True)
class Register:
    """One row. `read(value)` gets what is stored and returns what the guest sees; `write(value)` is called after the
    writable bits were stored, with what the guest wrote."""

    offset: int
    name: str
    initial: int = 0
    writable: int = ALL
    read: Callable[[int], int] | None = None
    write: Callable[[int], None] | None = None


class RegisterFile:
    """`values[offset >> 2]` is what register `offset` holds."""

    def __init__(self, size: int, rows: Iterable[Register] = ()) -> None:
        self.size = size
        self.values = array("I", bytes(size))
        self._rows = tuple(rows)
        self._reads = {row.offset: row.read for row in self._rows if row.read}
        self._writes = {row.offset: row.write for row in self._rows if row.write}
        self._masks = {row.offset: row.writable for row in self._rows if row.writable != ALL}
        if len({row.offset for row in self._rows}) != len(self._rows):
            raise ValueError("two rows for one register")
        self.reset()

    def reset(self) -> None:
        """Every register to its initial value, without the rows' functions."""
        self.values[:] = array("I", bytes(self.size))  # in place: a fresh one at each reset frays the heap
        for row in self._rows:
            self.values[row.offset >> 2] = row.initial

    def read32(self, offset: int) -> int:
        read = self._reads.get(offset)
        value = self.values[offset >> 2]
        return value if read is None else read(value) & ALL

    def write32(self, offset: int, value: int) -> None:
        mask = self._masks.get(offset)
        at = offset >> 2
        self.values[at] = value if mask is None else self.values[at] & ~mask | value & mask
        write = self._writes.get(offset)
        if write is not None:
            write(value)

    def read(self, offset: int, count: int) -> bytes:
        """Any width and place inside the BAR."""
        if count == 4 and not offset & 3:
            return self.read32(offset).to_bytes(4, "little")
        first, last = offset & ~3, (offset + count + 3) & ~3
        words = b"".join(self.read32(at).to_bytes(4, "little") for at in range(first, last, 4))
        return words[offset - first : offset - first + count]

    def write(self, offset: int, data: bytes) -> None:
        if len(data) == 4 and not offset & 3:
            self.write32(offset, int.from_bytes(data, "little"))
            return
        end = offset + len(data)
        for at in range(offset & ~3, end, 4):
            word = bytearray(self.values[at >> 2].to_bytes(4, "little"))
            low, high = max(offset, at), min(end, at + 4)
            word[low - at : high - at] = data[low - offset : high - offset]
            self.write32(at, int.from_bytes(word, "little"))
