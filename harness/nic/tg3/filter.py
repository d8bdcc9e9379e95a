"""Which received frames the MAC takes: perfect matches, the multicast hash, broadcast, promiscuous mode.

In: MAC_ADDR_*, MAC_EXTADDR_*, MAC_HASH_REG_*, MAC_RX_MODE. Out: `accepts(frame)`. Rule: recomputed when a register of it was
written, so that a frame costs a set lookup.
"""

from __future__ import annotations

import zlib
from array import array

from guest.netpoll.layout.bcm5787 import Reg, RxMode

BROADCAST = b"\xff" * 6
REGISTERS = frozenset(
    (
        *range(Reg.MAC_ADDR_0_HIGH, Reg.MAC_ADDR_0_HIGH + 32, 4),
        *range(Reg.MAC_HASH_REG_0, Reg.MAC_HASH_REG_0 + 16, 4),
        *range(Reg.MAC_EXTADDR_0_HIGH, Reg.MAC_EXTADDR_0_HIGH + 96, 4),
        Reg.MAC_RX_MODE,
    )
)


class Filter:
    def __init__(self) -> None:
        self._addresses: frozenset[bytes] = frozenset()
        self._hash = 0  # 128 bits
        self._all = False

    def load(self, values: array[int]) -> None:
        """Read the registers anew."""
        pairs = [Reg.MAC_ADDR_0_HIGH + 8 * n for n in range(4)] + [Reg.MAC_EXTADDR_0_HIGH + 8 * n for n in range(12)]
        found = (_address(values[at >> 2], values[(at >> 2) + 1]) for at in pairs)
        self._addresses = frozenset(address for address in found if any(address))
        first = Reg.MAC_HASH_REG_0 >> 2
        self._hash = sum(values[first + n] << 32 * n for n in range(4))
        self._all = bool(values[Reg.MAC_RX_MODE >> 2] & RxMode.PROMISC)

    def accepts(self, frame: bytes) -> bool:
        target = frame[:6]
        if self._all or target == BROADCAST or target in self._addresses:
            return True
        return bool(target[0] & 1 and self._hash >> hash_bit(target) & 1)


def hash_bit(address: bytes) -> int:
    """The bit of the 128-bit multicast hash: the low seven of the complemented CRC as the chip holds it."""
    return ~zlib.crc32(address) & 0x7F


def _address(high: int, low: int) -> bytes:
    return (high & 0xFFFF).to_bytes(2, "big") + low.to_bytes(4, "big")
