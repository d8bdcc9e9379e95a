"""A port of 802.3ad and its aggregator: the variables of IEEE 802.1AX-2014 6.4.4 to 6.4.8, and no code that decides.

In: the state machines' assignments. Out: the variables, and the LACPDU that they amount to. The one rule:
a timer is a deadline on the caller's clock, or None while it does not run.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field, replace

from guest.netpoll.bonding.lacpdu import Information, Lacpdu

FAST_PERIODIC_TIME = 1.0  # seconds, 6.4.4
SLOW_PERIODIC_TIME = 30.0
SHORT_TIMEOUT_TIME = 3 * FAST_PERIODIC_TIME
LONG_TIMEOUT_TIME = 3 * SLOW_PERIODIC_TIME
AGGREGATE_WAIT_TIME = 2.0
MAX_TX = 3  # LACPDUs in a FAST_PERIODIC_TIME, 6.4.16

DUPLEX_KEY = 1  # lowest bit of a key, as bond_3ad.c has it: full duplex
_SPEEDS = (1, 10, 100, 1000, 2500, 5000, 10000, 14000, 20000, 25000, 40000, 50000, 56000, 100000, 200000, 400000)
_SPEED_CODE = {speed: code for code, speed in enumerate(_SPEEDS, start=1)}

PARTNER_ADMIN = Information(0xFFFF, bytes(6), 1, 0xFF, 1, 0)  # who is assumed while nobody answers


class RxState(enum.Enum):
    """Figure 6-18."""

    INITIALIZE = enum.auto()
    PORT_DISABLED = enum.auto()
    EXPIRED = enum.auto()
    LACP_DISABLED = enum.auto()
    DEFAULTED = enum.auto()
    CURRENT = enum.auto()


class PeriodicState(enum.Enum):
    """Figure 6-19."""

    NO_PERIODIC = enum.auto()
    FAST_PERIODIC = enum.auto()
    SLOW_PERIODIC = enum.auto()
    PERIODIC_TX = enum.auto()


class MuxState(enum.Enum):
    """Figure 6-21: coupled control."""

    DETACHED = enum.auto()
    WAITING = enum.auto()
    ATTACHED = enum.auto()
    COLLECTING_DISTRIBUTING = enum.auto()


class Selected(enum.Enum):
    """6.4.8. STANDBY: its aggregator is not the active one."""

    UNSELECTED = enum.auto()
    SELECTED = enum.auto()
    STANDBY = enum.auto()


def port_key(user_key: int, speed: int, full_duplex: bool) -> int:
    """bond_3ad.c: user key (10 bits), speed (5 bits), duplex. Only equal keys may be aggregated."""
    return user_key << 6 | _SPEED_CODE.get(speed, 0) << 1 | full_duplex


@dataclass(slots=True, eq=False)
class Aggregator:
    """What ports are attached to. There is one for each port, so that none goes without."""

    number: int
    ports: list[Port] = field(default_factory=list)
    is_active: bool = False
    is_individual: bool = False
    actor_key: int = 0
    partner_system: bytes = bytes(6)
    partner_system_priority: int = 0
    partner_key: int = 0

    @property
    def has_partner(self) -> bool:
        """Somebody answers: __agg_has_partner()."""
        return any(self.partner_system)

    @property
    def active_ports(self) -> list[Port]:
        """Those with a link: __agg_active_ports()."""
        return [port for port in self.ports if port.enabled]

    @property
    def bandwidth(self) -> int:
        """Mbit/s of all ports with a link: __get_agg_bandwidth()."""
        return sum(port.speed for port in self.active_ports)

    def clear(self) -> None:
        """ad_clear_agg()."""
        self.is_active = self.is_individual = False
        self.actor_key = self.partner_key = self.partner_system_priority = 0
        self.partner_system = bytes(6)


@dataclass(slots=True, eq=False)
class Port:
    """`actor` is Actor_Oper, `partner` Partner_Oper; `enabled` is port_enabled (a link)."""

    actor: Information
    source: bytes  # source address of what the port sends
    speed: int = 0
    enabled: bool = False
    partner: Information = PARTNER_ADMIN
    selected: Selected = Selected.UNSELECTED
    aggregator: Aggregator | None = None
    matched: bool = False
    ready_n: bool = False
    ntt: bool = False
    rx_state: RxState = RxState.INITIALIZE
    periodic_state: PeriodicState = PeriodicState.NO_PERIODIC
    mux_state: MuxState = MuxState.DETACHED
    current_while: float | None = None
    periodic_timer: float | None = None
    wait_while: float | None = None
    tx_times: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_TX))
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Actor_Port_Number."""
        return self.actor.port

    @property
    def lacp_enabled(self) -> bool:
        """LACP runs on full duplex links only."""
        return bool(self.actor.key & DUPLEX_KEY)

    @property
    def usable(self) -> bool:
        """Frames may pass: distributing - or nobody answers, then the active aggregator's port does without."""
        agg = self.aggregator
        if agg is None or not agg.is_active or not self.enabled:
            return False
        return self.mux_state is MuxState.COLLECTING_DISTRIBUTING or not agg.has_partner

    def actor_state(self, *, on: int = 0, off: int = 0) -> None:
        """Set and clear bits of Actor_Oper_Port_State."""
        self.actor = replace(self.actor, state=(self.actor.state | on) & ~off)

    def partner_state(self, *, on: int = 0, off: int = 0) -> None:
        """Set and clear bits of Partner_Oper_Port_State."""
        self.partner = replace(self.partner, state=(self.partner.state | on) & ~off)

    def has(self, bit: int) -> bool:
        """True if the actor's state has `bit`."""
        return bool(self.actor.state & bit)

    def partner_has(self, bit: int) -> bool:
        """True if the partner's state has `bit`."""
        return bool(self.partner.state & bit)

    def count(self, what: str) -> None:
        """Add one to a counter."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def lacpdu(self) -> Lacpdu:
        """What the port has to say now."""
        return Lacpdu(self.actor, self.partner)

    def timers(self) -> list[float]:
        """Deadlines of the running timers."""
        running = (self.current_while, self.periodic_timer, self.wait_while, self.tx_allowed_at())
        return [deadline for deadline in running if deadline is not None]

    def tx_allowed_at(self) -> float | None:
        """When the rate limit lets the next LACPDU go; None if nothing waits for it."""
        if not self.ntt or self.periodic_state is PeriodicState.NO_PERIODIC:
            return None
        full = len(self.tx_times) == MAX_TX
        return self.tx_times[0] + FAST_PERIODIC_TIME if full else 0.0


def expired(deadline: float | None, now: float) -> bool:
    """True if a timer runs and has run out."""
    return deadline is not None and now >= deadline
