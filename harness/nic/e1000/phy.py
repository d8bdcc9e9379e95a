"""The PHY inside an 82540EM: Marvell's 88E1011, whose status register 17 has what was negotiated (manual, table 13-16 on)."""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.layout.e1000 import PHY_ID
from guest.netpoll.layout.e1000 import Phy as Reg
from harness.nic import mii

_SPEED = {1000: 2 << 14, 100: 1 << 14, 10: 0}
_FULL, _RESOLVED, _LINK = 1 << 13, 1 << 11, 1 << 10


class Phy(mii.Phy):
    """See harness.nic.mii."""

    read_only = (*mii.Phy.read_only, Reg.PSSTAT, Reg.PINTS, Reg.PREC)

    def __init__(self, later: Callable[[float, Callable[[], None]], None], changed: Callable[[], None]) -> None:
        super().__init__(later, changed, PHY_ID)

    def power_on(self) -> None:
        super().power_on()
        self._registers[Reg.PSCON], self._registers[Reg.EPSCON1] = 0x0068, 0x0D60

    def special(self, number: int) -> int | None:
        if number != Reg.PSSTAT:
            return None
        found = self.resolved()
        return _SPEED[found[0]] | (_FULL if found[1] else 0) | _RESOLVED | _LINK if found else 0
