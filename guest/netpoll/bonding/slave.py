"""struct slave: what a bond knows of one of its devices.

In: the bond's decisions. Out: plain data, read by the transmit paths. The one rule: `link` is what the
link monitor decided, not what the carrier is at the moment; `active` says whether to send on the slave,
`inactive` whether to leave aside what it receives.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from guest.netpoll.bonding.port import Port
from guest.netpoll.netdevice import NetdevEvent, NetDevice, NetpollSender
from guest.netpoll.skbuff import SkBuff


class Link(enum.Enum):
    """BOND_LINK_*, by bond_slave_link_status()'s words."""

    UP = "up"
    FAIL = "going down"  # carrier lost, downdelay running
    DOWN = "down"
    BACK = "going back"  # carrier came, updelay running


@runtime_checkable
class SettableAddress(Protocol):
    """A device whose hardware can take another MAC address (ndo_set_mac_address)."""

    def set_mac_address(self, addr: bytes) -> None:
        """Raises NetdevError."""


class Slave:
    """One device of a bond. `number` counts from 1 and is the port number of 802.3ad."""

    def __init__(self, dev: NetDevice, number: int, speed: int, full_duplex: bool) -> None:
        self.dev = dev
        self.number = number
        self.perm_hwaddr = dev.dev_addr
        self.hwaddr = dev.dev_addr  # the one it has now
        self.speed = speed  # Mbit/s; 0 while unknown
        self.full_duplex = full_duplex
        self.link = Link.DOWN
        self.link_new_state: Link | None = None  # proposed by bond_miimon_inspect(); None is NOCHANGE
        self.delay = 0  # looks of the link monitor that updelay or downdelay still take
        self.active = False  # BOND_STATE_ACTIVE, else BOND_STATE_BACKUP
        self.inactive = True  # what it receives is not the bond's
        self.link_failure_count = 0
        self.load = 0  # octets a second that tlb has put here
        self.port: Port | None = None  # 802.3ad
        self.np: NetpollSender | None = None  # netpoll on this slave, while the bond has it
        self.disable_np: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Slave {self.dev.name} {self.link.value}{' active' if self.active else ''}>"

    @property
    def is_up(self) -> bool:
        """bond_slave_is_up(): running, with carrier."""
        return self.dev.running and self.dev.carrier

    @property
    def can_tx(self) -> bool:
        """bond_slave_can_tx()."""
        return self.link is Link.UP and self.active and self.is_up

    def set_active(self) -> None:
        """bond_set_slave_active_flags()."""
        self.active, self.inactive = True, False

    def set_inactive(self, *, lb: bool, all_slaves_active: bool) -> None:
        """bond_set_slave_inactive_flags(): the load balancing modes go on sending on it."""
        self.active = lb
        self.inactive = not all_slaves_active

    def set_mac_address(self, addr: bytes) -> None:
        """dev_set_mac_address(), as far as the device allows; raises NetdevError if its hardware refuses.

        A device without set_mac_address() takes the address in software only: we send from it and know
        frames to it as our own, but its hardware may filter them unless it is promiscuous.
        """
        self.hwaddr = addr
        if self.dev.dev_addr == addr:
            return
        if isinstance(self.dev, SettableAddress):
            self.dev.set_mac_address(addr)
        self.dev.dev_addr = addr
        self.dev.net.call_netdevice_notifiers(NetdevEvent.CHANGEADDR, self.dev)


def back_to_the_bond(_skb: SkBuff) -> None:
    """Drop routine of netpoll on a slave: nothing is to be done, the bond has the frame and may have another way."""
