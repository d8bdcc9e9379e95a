"""Netpoll on the slaves of a bond that has it (bond_main.c: bond_netpoll_setup(), slave_enable_netpoll()).

In: the bond's npinfo coming and going, slaves coming and going. Out: Slave.np. The one rule: a slave has
netpoll exactly as long as it is a slave and its bond has it.

Retries are the business of whoever sends on the bond: a slave is polled once for a frame, and then the bond is asked again which slave it
is to be. A copy of a frame that leaves by several slaves (broadcast) is nobody's business above, so there each slave is polled for a tick.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from guest.netpoll.bonding.params import Mode
from guest.netpoll.bonding.slave import Slave, back_to_the_bond
from guest.netpoll.netdevice import NetDevice, NetpollHook, NetpollSender
from guest.netpoll.skbuff import SkBuff

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond

TICK = 4000 // 50  # tries: jiffies_to_usecs(1) / USEC_PER_POLL at 250 Hz, as in __netpoll_send_skb()


@runtime_checkable
class SlaveNetpoll(Protocol):
    """What the bond asks of its npinfo (core.NetpollInfo): netpoll on single slaves."""

    def slave_enable_netpoll(self, dev: NetDevice, drop: Callable[[SkBuff], None], tries: int) -> NetpollSender:
        """A sender set up on `dev` (an address is not needed), at most `tries` retries, `drop` as its drop routine."""

    def slave_disable_netpoll(self, np: NetpollSender) -> None:
        """Clean it up."""


def bond_netpoll_setup(bond: Bond) -> None:
    """Newcomers inherit it, and all lose it together; a slave that cannot poll forbids it to the bond."""
    bond.supports_netpoll = all(slave.dev.supports_netpoll for slave in bond.slaves)
    for slave in bond.slaves:
        if bond.npinfo is None:
            slave_disable_netpoll(slave)
        elif slave.np is None and slave.dev.supports_netpoll:
            slave_enable_netpoll(slave, bond.npinfo, TICK if bond.mode is Mode.BROADCAST else 1)


def slave_enable_netpoll(slave: Slave, npinfo: NetpollHook, tries: int) -> None:
    """Set netpoll up on a slave. An npinfo that cannot leaves the bond sending straight to the slave's driver."""
    if isinstance(npinfo, SlaveNetpoll):
        np = npinfo.slave_enable_netpoll(slave.dev, back_to_the_bond, tries)
        slave.np, slave.disable_np = np, functools.partial(npinfo.slave_disable_netpoll, np)


def slave_disable_netpoll(slave: Slave) -> None:
    """Clean it up; twice does no harm."""
    disable, slave.np, slave.disable_np = slave.disable_np, None, None
    if disable is not None:
        disable()
