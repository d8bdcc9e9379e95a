"""Reading structure out of a fuzzer's octets: numbers, lengths, blocks.

In: octets. Out: values, and zeros or less than was asked for where the octets end. The one rule: every input means
something, so that no mutation is wasted on being refused here.
"""

from __future__ import annotations

from collections.abc import Iterable


class Octets:
    """A position in `data`; true while something is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """The next `count` octets, or as many as there are."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def u8(self) -> int:
        """One octet; 0 at the end."""
        return int.from_bytes(self.take(1), "big")

    def u16(self) -> int:
        """Two octets, big-endian; what is missing counts as absent, not as zero."""
        return int.from_bytes(self.take(2), "big")

    def block(self) -> bytes:
        """A length of two octets and that many octets."""
        return self.take(self.u16())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def block(data: bytes) -> bytes:
    """What Octets.block() reads back."""
    return len(data).to_bytes(2, "big") + data


def blocks(datas: Iterable[bytes]) -> bytes:
    """Several of them."""
    return b"".join(map(block, datas))
