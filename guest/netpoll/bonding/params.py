"""What a bond is told to be: the bonding driver's options, by the names that its sysfs files have.

In: keyword arguments or sysfs strings. Out: a frozen BondParams, or ParamError in words. The one rule:
everything is checked here, so that no other module of the package meets a contradiction.

Which mode to put at the host's end of a guest's bond says partner_mode().
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from guest.netpoll.wire.errors import WireError
from guest.netpoll.wire.ethernet import parse_mac


class ParamError(ValueError):
    """An option that does not exist, has no such value, or contradicts another."""


class Mode(enum.Enum):
    """BOND_MODE_*, by the words of the `mode` file."""

    ROUNDROBIN = "balance-rr"
    ACTIVEBACKUP = "active-backup"
    XOR = "balance-xor"
    BROADCAST = "broadcast"
    AD = "802.3ad"
    TLB = "balance-tlb"
    ALB = "balance-alb"

    @property
    def number(self) -> int:
        """The kernel's number of the mode, 0 to 6."""
        return list(Mode).index(self)

    @property
    def uses_primary(self) -> bool:
        """One slave is special: bond_mode_uses_primary()."""
        return self in (Mode.ACTIVEBACKUP, Mode.TLB, Mode.ALB)

    @property
    def is_lb(self) -> bool:
        """bond_is_lb()."""
        return self in (Mode.TLB, Mode.ALB)


class XmitPolicy(enum.Enum):
    """BOND_XMIT_POLICY_*; the encapsulation policies and vlan+srcmac are left out."""

    LAYER2 = "layer2"
    LAYER23 = "layer2+3"
    LAYER34 = "layer3+4"


class LacpRate(enum.Enum):
    """What we ask the partner for: a LACPDU every 30 s, or every second."""

    SLOW = "slow"
    FAST = "fast"


class AdSelect(enum.Enum):
    """When the active aggregator is chosen anew: BOND_AD_*."""

    STABLE = "stable"
    BANDWIDTH = "bandwidth"
    COUNT = "count"


class PrimaryReselect(enum.Enum):
    """When a primary that came back takes over: BOND_PRI_RESELECT_*."""

    ALWAYS = "always"
    BETTER = "better"
    FAILURE = "failure"


class FailOverMac(enum.Enum):
    """Whose MAC address changes on a fail-over: BOND_FOM_*."""

    NONE = "none"
    ACTIVE = "active"
    FOLLOW = "follow"


@dataclass(frozen=True, slots=True)
class BondParams:
    """Times are milliseconds; defaults are the driver's, but miimon, which is 100 where it has 0 (off)."""

    mode: Mode = Mode.ROUNDROBIN
    miimon: int = 100
    updelay: int = 0
    downdelay: int = 0
    xmit_hash_policy: XmitPolicy = XmitPolicy.LAYER2
    primary: str = ""
    primary_reselect: PrimaryReselect = PrimaryReselect.ALWAYS
    fail_over_mac: FailOverMac = FailOverMac.NONE
    all_slaves_active: bool = False
    packets_per_slave: int = 1
    num_grat_arp: int = 1
    min_links: int = 0
    lacp_rate: LacpRate = LacpRate.SLOW
    lacp_active: bool = True
    ad_select: AdSelect = AdSelect.STABLE
    ad_actor_sys_prio: int = 65535
    ad_actor_system: bytes = bytes(6)  # all zero: the bond's own address
    ad_user_port_key: int = 0
    tlb_dynamic_lb: bool = True
    lp_interval: int = 1  # seconds between learning packets

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ParamError(f"{name} is {value}: {low} to {high} expected")
        for name in ("updelay", "downdelay"):
            if getattr(self, name) and not self.miimon:
                raise ParamError(f"{name} without miimon: nobody would look at the link")
        if self.primary and not self.mode.uses_primary:
            raise ParamError(f"primary {self.primary!r}: mode {self.mode.value} has none")
        if self.fail_over_mac is not FailOverMac.NONE and self.mode is not Mode.ACTIVEBACKUP:
            raise ParamError(f"fail_over_mac={self.fail_over_mac.value}: for active-backup only")
        if not self.miimon and (self.mode is Mode.AD or self.mode.is_lb):
            raise ParamError(f"mode {self.mode.value} needs miimon")
        if self.ad_actor_system[0] & 1:
            raise ParamError("ad_actor_system is a group address")


_RANGES = {
    "miimon": (0, 1 << 31),
    "updelay": (0, 1 << 31),
    "downdelay": (0, 1 << 31),
    "packets_per_slave": (1, 65535),
    "num_grat_arp": (0, 255),
    "min_links": (0, 1 << 31),
    "ad_actor_sys_prio": (1, 65535),
    "ad_user_port_key": (0, 1023),
    "lp_interval": (1, 0x7FFFFFFF),
}


def parse_options(options: Mapping[str, str | int]) -> BondParams:
    """BondParams from sysfs names and values (`{"mode": "802.3ad", "miimon": 100}`); raises ParamError.

    An enumerated option takes its word or, as sysfs does, its number.
    """
    defaults = {field.name: field.default for field in fields(BondParams)}
    unknown = sorted(options.keys() - defaults.keys())
    if unknown:
        raise ParamError(f"{unknown[0]!r} is no option of a bond ({', '.join(defaults)})")
    values = {name: _parse(name, str(value), defaults[name]) for name, value in options.items()}
    return replace(BondParams(), **values)  # type: ignore[arg-type]  # _parse() gives the default's type


def _parse(name: str, text: str, default: object) -> object:
    """`text` in the type of the option's default."""
    if isinstance(default, enum.Enum):
        return _parse_word(name, text, type(default))
    if isinstance(default, bytes):
        return _parse_address(name, text)
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text not in ("0", "1"):
            raise ParamError(f"{name} is {text!r}: 0 or 1 expected")
        return text == "1"
    if not (text.isascii() and text.isdigit()):
        raise ParamError(f"{name} is {text!r}: a number expected")
    return int(text)


def _parse_address(name: str, text: str) -> bytes:
    try:
        return parse_mac(text)
    except WireError as error:
        raise ParamError(f"{name}: {error}") from None


def _parse_word(name: str, text: str, kind: type[enum.Enum]) -> enum.Enum:
    words = [member.value for member in kind]
    if text in words:
        return kind(text)
    if text.isascii() and text.isdigit() and int(text) < len(words):
        return kind(words[int(text)])
    raise ParamError(f"{name} is {text!r}: one of {', '.join(words)} expected")


_PARTNER = {
    Mode.ROUNDROBIN: Mode.XOR,
    Mode.ACTIVEBACKUP: Mode.BROADCAST,
    Mode.XOR: Mode.XOR,
    Mode.BROADCAST: Mode.ACTIVEBACKUP,
    Mode.AD: Mode.AD,
    Mode.TLB: Mode.BROADCAST,
    Mode.ALB: Mode.BROADCAST,
}


def partner_mode(guest_mode: str) -> str:
    """The mode of a bond of ours that stands where a switch would, at the other end of a bond's cables.

    It follows what the kernel's bonding.rst asks of the switch:
      802.3ad                    802.3ad: the ports negotiate.
      balance-rr, balance-xor    balance-xor: a static link aggregation. These bonds accept frames on every
                                 slave, so each frame must be sent on one of them only; the hash keeps a
                                 flow on one slave, among those with carrier.
      broadcast                  active-backup: both slaves bring every frame, one of them is listened to.
      active-backup,             broadcast: plain ports of a switch that floods. These bonds drop what
      balance-tlb, -alb          arrives on a slave that is not the active one (tlb, alb: for their main
                                 address), so that frames reach it whichever slave that is, once.
    Raises ParamError for a word that is no mode.
    """
    mode = _parse_word("mode", guest_mode, Mode)
    assert isinstance(mode, Mode)
    return _PARTNER[mode].value
