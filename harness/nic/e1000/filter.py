"""Which received frames the MAC takes (manual, 13.4.22, 13.5): receive addresses, the multicast table, VLANs, promiscuous modes.

In: RCTL, RAL/RAH, MTA, VFTA. Out: `accepts(frame)`, and whether by address alone (PIF is its reverse). Rule: looked up for each frame in
the registers as they are; only the receive addresses are kept as bytes.
"""

from __future__ import annotations

from array import array

from guest.netpoll.layout.e1000 import MO_SHIFT, RAH_AV, RECEIVE_ADDRESSES, Rctl, Reg, hash_bit

BROADCAST = b"\xff" * 6
_UPE, _MPE, _BAM, _VFE, _MO = int(Rctl.UPE), int(Rctl.MPE), int(Rctl.BAM), int(Rctl.VFE), int(Rctl.MO)
ADDRESS_REGISTERS = range(Reg.RAL, Reg.RAL + 8 * RECEIVE_ADDRESSES, 4)


class Filter:
    def __init__(self) -> None:
        self._addresses: frozenset[bytes] = frozenset()

    def load(self, values: array[int]) -> None:
        """The receive addresses were written."""
        first = Reg.RAL >> 2
        pairs = ((values[first + 2 * n], values[first + 2 * n + 1]) for n in range(RECEIVE_ADDRESSES))
        self._addresses = frozenset(
            (low | (high & 0xFFFF) << 32).to_bytes(6, "little") for low, high in pairs if high & RAH_AV
        )

    def accepts(self, frame: bytes, values: array[int]) -> bool:
        control = values[Reg.RCTL >> 2]
        if control & _VFE and frame[12:14] == b"\x81\x00" and not _vlan(frame, values):
            return False
        target = frame[:6]
        if target in self._addresses:
            return True
        if target == BROADCAST:
            return bool(control & (_BAM | _MPE))
        if target[0] & 1:
            return bool(control & _MPE) or self.hashed(target, control, values)
        return bool(control & _UPE)

    def exact(self, frame: bytes) -> bool:
        """By its address, not by a hash that others share (RxStatus.PIF)."""
        return frame[:6] in self._addresses or frame[:6] == BROADCAST

    def hashed(self, target: bytes, control: int, values: array[int]) -> bool:
        bit = hash_bit(target, (control & _MO) >> MO_SHIFT)
        return bool(values[(Reg.MTA >> 2) + (bit >> 5)] >> (bit & 31) & 1)


def _vlan(frame: bytes, values: array[int]) -> bool:
    number = int.from_bytes(frame[14:16], "big") & 0xFFF
    return bool(values[(Reg.VFTA >> 2) + (number >> 5)] >> (number & 31) & 1)
