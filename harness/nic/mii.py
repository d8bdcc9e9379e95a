"""A PHY for 1000 Mbit/s: MII registers, auto-negotiation with a partner, and the cable. What a maker adds is a subclass of the model's.

In: MDIO reads and writes, `plug` and `partner` from outside. Out: `changed()` whenever the link goes up or down. Rule: the link is a
function of cable, BMCR and both ends' abilities; BMSR's link bit latches low until it is read (IEEE 802.3, 22.2.4.2.13).

A restarted negotiation takes `NEGOTIATION` seconds, shorter than a real one and long enough for a driver to see the link go away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

(BMCR, BMSR, PHYSID1, PHYSID2, ADVERTISE, LPA, EXPANSION) = range(7)
CTRL1000, STAT1000, ESTATUS = 0x09, 0x0A, 0x0F
NEGOTIATION = 0.02  # seconds

RESET, LOOPBACK, SPEED100, ANENABLE, PDOWN, ISOLATE, ANRESTART, FULLDPLX, SPEED1000 = (
    0x8000, 0x4000, 0x2000, 0x1000, 0x0800, 0x0400, 0x0200, 0x0100, 0x0040
)  # fmt: skip
_BMSR = 0x7949  # all of 10 and 100, extended status, negotiates, extended registers
_AN_DONE, _LINK = 0x0020, 0x0004
_DEFAULTS = {
    BMCR: ANENABLE | FULLDPLX | SPEED1000,
    ADVERTISE: 0x01E1,
    CTRL1000: 0x0300,
    ESTATUS: 0x3000,
}
_READ_ONLY = (BMSR, PHYSID1, PHYSID2, LPA, EXPANSION, STAT1000, ESTATUS)

# Speed in Mbit/s and full duplex: bit of ADVERTISE, or of CTRL1000 for 1000; value of AUX_STAT's speed field. Best first.
_MODES = ((1000, True, 0x0200, 7), (1000, False, 0x0100, 6), (100, True, 0x0100, 5), (100, False, 0x0080, 3),
          (10, True, 0x0040, 2), (10, False, 0x0020, 1))  # fmt: skip


@dataclass(frozen=True)
class Partner:
    """The other end of the cable: what it advertises in its registers 4 and 9; a hub that does not negotiate has neither."""

    advertise: int = 0x0DE1  # everything of 10 and 100, pause both ways
    ctrl1000: int = 0x0300


class Phy:
    """`later(seconds, callback)` runs negotiations; `changed` is called after the link went up or down."""

    read_only: tuple[int, ...] = _READ_ONLY

    def __init__(
        self, later: Callable[[float, Callable[[], None]], None], changed: Callable[[], None], ident: tuple[int, int]
    ) -> None:
        self._later, self._changed = later, changed
        self._defaults = {**_DEFAULTS, PHYSID1: ident[0], PHYSID2: ident[1]}
        self._cable, self.partner = True, Partner()
        self._negotiating = 0  # how many restarts; a timer of an older one is void
        self._done = True
        self._registers: dict[int, int] = {}
        self._up = self._latched = False
        self.power_on()
        self._up = self._latched = self._resolve() is not None

    def power_on(self) -> None:
        """Every register as after a reset."""
        self._registers = dict(self._defaults)

    def special(self, number: int) -> int | None:  # noqa: ARG002  # overriders look at it
        """What a register of the maker's reads as; None for one that reads back what was written."""
        return None

    def keep(self, number: int, value: int) -> None:
        """A register that is no part of negotiation was written."""
        self._registers[number] = value

    @property
    def link(self) -> bool:
        return self._up

    @property
    def loopback(self) -> bool:
        return bool(self._registers[BMCR] & LOOPBACK)

    def mode(self) -> tuple[int, bool] | None:
        """Speed in Mbit/s and full duplex; None without link."""
        found = self._resolve()
        return (found[0], found[1]) if found else None

    def plug(self, cable: bool) -> None:
        """Put the cable in or pull it out."""
        self._cable = cable
        self._update()

    def replace_partner(self, partner: Partner) -> None:
        self.partner = partner
        self._restart()

    def read(self, number: int) -> int:
        if number == BMSR:
            value = _BMSR | (_AN_DONE if self._done and self._cable else 0) | (_LINK if self._latched else 0)
            self._latched = self._up
            return value
        for computed in (self._computed(number), self.special(number)):
            if computed is not None:
                return computed
        return self._registers.get(number, 0)

    def _computed(self, number: int) -> int | None:
        there = self._cable and self._done
        if number == LPA:
            return 0x4000 | self.partner.advertise if there and self.partner.advertise else 0
        if number == STAT1000:
            return (self.partner.ctrl1000 & 0x0300) << 2 | 0x3000 if there and self.partner.ctrl1000 else 0
        if number == EXPANSION:
            return 0x0005 if there and self.partner.advertise else 0x0004
        return None

    def resolved(self) -> tuple[int, bool, int] | None:
        """Speed, full duplex and Broadcom's code for it, while the link is up."""
        return self._resolve() if self._up else None

    def write(self, number: int, value: int) -> None:
        if number in self.read_only:
            return
        if number == BMCR:
            self._control(value)
        else:
            self.keep(number, value)

    def _control(self, value: int) -> None:
        if value & RESET:
            self.power_on()
            self._restart()
            return
        before = self._registers[BMCR]
        self._registers[BMCR] = value & ~ANRESTART
        if value & ANENABLE and (value & ANRESTART or not before & ANENABLE):
            self._restart()
        else:
            self._done = self._done or not value & ANENABLE
            self._update()

    def _restart(self) -> None:
        self._negotiating += 1
        mine = self._negotiating
        self._done = False
        self._update()
        self._later(NEGOTIATION, lambda: self._finish(mine))

    def _finish(self, mine: int) -> None:
        if mine == self._negotiating:
            self._done = True
            self._update()

    def _resolve(self) -> tuple[int, bool, int] | None:
        """The best common mode, or the forced one if the partner can follow it."""
        control = self._registers[BMCR]
        if not self._cable or control & (LOOPBACK | PDOWN | ISOLATE):
            return None
        partner = {1000: self.partner.ctrl1000}
        if not control & ANENABLE:
            speed = 1000 if control & SPEED1000 else 100 if control & SPEED100 else 10
            full = bool(control & FULLDPLX)
            fits = (m for m in _MODES if m[:2] == (speed, full) and partner.get(speed, self.partner.advertise) & m[2])
            return next(((m[0], m[1], m[3]) for m in fits), None)
        if not self._done:
            return None
        mine = {1000: self._registers.get(CTRL1000, 0)}
        advertise = self._registers.get(ADVERTISE, 0)
        for speed, full, bit, code in _MODES:
            if mine.get(speed, advertise) & partner.get(speed, self.partner.advertise) & bit:
                return speed, full, code
        return None

    def _update(self) -> None:
        up = self._resolve() is not None
        if up != self._up:
            self._up = up
            self._latched = self._latched and up
            self._changed()
