"""The active slave: which one it is, and what changes hands with the role (bond_main.c).

In: a bond whose slaves' links or options changed. Out: bond.curr_active_slave, flags, MAC addresses. The
one rule: only bond_change_active_slave() moves the role.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.netpoll.bonding import alb
from guest.netpoll.bonding.params import FailOverMac, Mode, PrimaryReselect
from guest.netpoll.bonding.slave import Link, Slave
from guest.netpoll.wire import arp, ethernet

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond


def bond_select_active_slave(bond: Bond) -> None:
    """Put the best slave into the role; nobody, if no link is up."""
    best = bond_find_best_slave(bond)
    if best is not bond.curr_active_slave:
        bond_change_active_slave(bond, best)
    bond.set_carrier()


def bond_find_best_slave(bond: Bond) -> Slave | None:
    """The primary or the current one as primary_reselect says, else the first that is up, else the next to be."""
    best = _choose_primary_or_current(bond)
    if best is not None:
        return best
    for slave in bond.slaves:
        if slave.link is Link.UP:
            return slave
    coming = [slave for slave in bond.slaves if slave.link is Link.BACK and slave.is_up]
    return min(coming, key=lambda slave: slave.delay, default=None)


def _choose_primary_or_current(bond: Bond) -> Slave | None:
    """bond_choose_primary_or_current(); None if neither is up."""
    primary, current = bond.primary_slave, bond.curr_active_slave
    if current is not None and current.link is not Link.UP:
        current = None
    if primary is None or primary.link is not Link.UP:
        return current
    if current is None or bond.force_primary:
        bond.force_primary = False
        return primary
    return primary if _primary_wins(bond.params.primary_reselect, primary, current) else current


def _primary_wins(reselect: PrimaryReselect, primary: Slave, current: Slave) -> bool:
    if reselect is PrimaryReselect.BETTER:
        return (primary.speed, primary.full_duplex) > (current.speed, current.full_duplex)
    return reselect is PrimaryReselect.ALWAYS


def bond_change_active_slave(bond: Bond, new: Slave | None) -> None:
    """Hand the role over, at once: a slave whose updelay still runs is taken as up."""
    old = bond.curr_active_slave
    if old is new:
        return
    if new is not None and new.link is Link.BACK:
        new.delay = 0
        new.link = Link.UP
    bond.curr_active_slave = new
    bond.stats["failovers"] += 1
    if bond.mode.is_lb:
        alb.bond_alb_handle_active_change(bond, old, new)
    if bond.mode.uses_primary:
        _set_flags(bond, old, new)
    if bond.mode is Mode.ACTIVEBACKUP:
        _do_fail_over_mac(bond, old, new)
        if new is not None and bond.running:
            bond_send_gratuitous_arp(bond, new)
    bond.update_slave_arr()


def _set_flags(bond: Bond, old: Slave | None, new: Slave | None) -> None:
    if old is not None:
        bond.set_slave_inactive(old)
    if new is not None:
        new.set_active()


def _do_fail_over_mac(bond: Bond, old: Slave | None, new: Slave | None) -> None:
    """bond_do_fail_over_mac(): by default nothing, all slaves have the bond's address."""
    policy = bond.params.fail_over_mac
    if new is None or policy is FailOverMac.NONE:
        return
    if policy is FailOverMac.ACTIVE:
        bond.set_dev_addr(new.hwaddr)
        return
    holder = old or next((slave for slave in bond.slaves if slave.hwaddr == bond.dev_addr), None)
    if holder is not None and holder is not new:
        holder.set_mac_address(new.hwaddr)
    new.set_mac_address(bond.dev_addr)


def bond_send_gratuitous_arp(bond: Bond, slave: Slave) -> None:
    """NETDEV_NOTIFY_PEERS: switches and neighbours learn where the bond's IPv4 addresses now are."""
    for interface in bond.addresses:
        if interface.version == 4 and bond.params.num_grat_arp:
            ip = interface.ip.packed
            packet = arp.Packet(arp.ARPOP_REQUEST, bond.dev_addr, ip, bytes(6), ip)
            header = ethernet.Header(ethernet.BROADCAST, bond.dev_addr, ethernet.ETH_P_ARP)
            frame = bytearray(ethernet.HEADER_LEN + arp.buffer_len(packet))
            arp.emit(packet, frame, ethernet.emit(header, frame))
            bond.send_control(slave, bytes(frame))
