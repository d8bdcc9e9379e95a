"""The BCM5787's PHY: Broadcom's registers behind those of clause 22."""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.layout.bcm5787 import PHY_ID, Mii
from harness.nic import mii


class Phy(mii.Phy):
    """See harness.nic.mii. AUX_CTRL and MISC_SHDW are windows into shadow registers."""

    read_only = (*mii.Phy.read_only, Mii.AUX_STAT, Mii.ISTAT)

    def __init__(self, later: Callable[[float, Callable[[], None]], None], changed: Callable[[], None]) -> None:
        self._shadow: dict[tuple[int, int], int] = {}
        super().__init__(later, changed, PHY_ID)

    def power_on(self) -> None:
        super().power_on()
        self._shadow = {(Mii.AUX_CTRL, 7): 0x0010}  # wirespeed on

    def special(self, number: int) -> int | None:
        if number == Mii.AUX_STAT:
            found = self.resolved()
            return found[2] << 8 | 0x0004 if found else 0
        if number == Mii.AUX_CTRL:
            return self._aux_ctrl()
        if number == Mii.MISC_SHDW:
            select = self._registers.get(number, 0) & 0x7C00
            return select | self._shadow.get((number, select), 0)
        return 0 if number == Mii.ISTAT else None

    def _aux_ctrl(self) -> int:
        """The last write chose a shadow: register 7 is read through bits 12 to 14, others through the low three bits."""
        last = self._registers.get(Mii.AUX_CTRL, 0)
        select = last >> 12 & 7 if last & 7 == 7 else last & 7
        return self._shadow.get((Mii.AUX_CTRL, select), 0) & ~7 | select

    def keep(self, number: int, value: int) -> None:
        super().keep(number, value)
        if number == Mii.AUX_CTRL and (value & 7 != 7 or value & 0x8000):
            self._shadow[number, value & 7] = value & 0x7FF8
        if number == Mii.MISC_SHDW and value & 0x8000:
            self._shadow[number, value & 0x7C00] = value & 0x03FF
