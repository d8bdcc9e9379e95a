"""Columns of a run's header fields: one number for all frames, with a lane of 16, 32 or 64 bits for each.

In: what the first frame has and how it goes on, or all messages. Out: a column in network byte order, for one strided store into the frames
(frame.py). The one rule: a lane never carries into the next; whoever calls sees to that, each function says how.

An addition to such a number is one for all frames. Per message no bytecode runs: its sum is a remainder, as in wire/checksum.py, by map() alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from operator import mod
from struct import pack

_from_bytes = int.from_bytes  # big-endian by default since Python 3.11
_LOW, _FOLD = 0xFFFF, 16


@lru_cache(maxsize=32)
def _of(count: int) -> tuple[int, int, int, int]:
    """A 1 in each of `count` lanes of 64 bits; 0, 1, 2... in those; a 1, and the lower half, in each lane of 32."""
    ones, narrow = (_from_bytes(one * count) for one in (pack(">Q", 1), pack(">I", 1)))
    return ones, _from_bytes(pack(f">{count}Q", *range(count))), narrow, narrow * _LOW


def series(first: int, step: int, count: int) -> memoryview:
    """`first`, `first` + `step`..., each of them 64 bits and not negative."""
    ones, numbers, _, _ = _of(count)
    return memoryview((first * ones + step * numbers).to_bytes(8 * count, "big")).cast("Q")


def column(values: Iterable[int], count: int) -> memoryview:
    """Any values of 64 bits."""
    return memoryview(pack(f">{count}Q", *values)).cast("Q")


def checksums(messages: Sequence[bytes], base: int) -> memoryview:
    """`base` less each message, as a UDP checksum: modulo 65535, and 65535 for 0 (RFC 768). All messages are of one length. 0 <= base < 65535.

    No lane is 0 or less: 65535 times the factor of a message's remainder, which is smaller, is in it from the start. 16 bits and what is
    above them are added twice, since a lane has at most 24 bits.
    """
    count, factor = len(messages), 256 if len(messages[0]) & 1 else 1
    _, _, ones, low = _of(count)
    sums = _from_bytes(pack(f">{count}I", *map(mod, map(_from_bytes, messages), repeat(65535))))
    lanes = (base + 65535 * factor) * ones - factor * sums
    lanes = (lanes & low) + (lanes >> _FOLD & low)
    lanes = (lanes & low) + (lanes >> _FOLD & low)
    return memoryview(lanes.to_bytes(4 * count, "big")).cast("H")[1::2]
