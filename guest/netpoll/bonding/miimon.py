"""The link monitor: UP -> FAIL (downdelay) -> DOWN -> BACK (updelay) -> UP, by looking every `miimon` ms (bond_main.c).

In: the slaves' carrier at the time of a look. Out: Slave.link, and the bond's reaction. The one rule:
inspect proposes, commit acts; delays count looks, so they are rounded down to whole multiples of miimon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.netpoll.bonding.active import bond_select_active_slave
from guest.netpoll.bonding.params import Mode
from guest.netpoll.bonding.slave import Link, Slave

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond


def bond_mii_monitor(bond: Bond) -> None:
    """One look: bond_miimon_inspect(), then bond_miimon_commit() if anything is to change."""
    if bond_miimon_inspect(bond):
        bond_miimon_commit(bond)


def bond_miimon_inspect(bond: Bond) -> bool:
    """Look at every slave's carrier; True if a link_new_state was proposed. Without an active slave updelay is skipped."""
    impatient = bond.curr_active_slave is None if bond.mode.uses_primary else not bond.usable_slaves
    for slave in bond.slaves:
        slave.link_new_state = None
        _INSPECT[slave.link](bond, slave, impatient)
        if slave.link_new_state is Link.UP and slave.link is not Link.FAIL:
            impatient = False
    return any(slave.link_new_state is not None for slave in bond.slaves)


def _inspect_up(bond: Bond, slave: Slave, impatient: bool) -> None:
    if not slave.is_up:
        slave.link_new_state = Link.FAIL
        slave.delay = _looks(bond, bond.params.downdelay)
        _inspect_fail(bond, slave, impatient)


def _inspect_fail(_bond: Bond, slave: Slave, _impatient: bool) -> None:
    if slave.is_up:
        slave.link_new_state = Link.UP
    elif slave.delay <= 0:
        slave.link_new_state = Link.DOWN
    else:
        slave.delay -= 1


def _inspect_down(bond: Bond, slave: Slave, impatient: bool) -> None:
    if slave.is_up:
        slave.link_new_state = Link.BACK
        slave.delay = _looks(bond, bond.params.updelay)
        _inspect_back(bond, slave, impatient)


def _inspect_back(_bond: Bond, slave: Slave, impatient: bool) -> None:
    if not slave.is_up:
        slave.link_new_state = Link.DOWN
    elif slave.delay <= 0 or impatient:
        slave.delay = 0
        slave.link_new_state = Link.UP
    else:
        slave.delay -= 1


_INSPECT = {Link.UP: _inspect_up, Link.FAIL: _inspect_fail, Link.DOWN: _inspect_down, Link.BACK: _inspect_back}


def _looks(bond: Bond, delay: int) -> int:
    """Milliseconds in looks."""
    return delay // bond.params.miimon


def bond_miimon_commit(bond: Bond) -> None:
    """Take the proposals over; choose another active slave if the current one went, or a better one came."""
    reselect = False
    for slave in bond.slaves:
        new, slave.link_new_state = slave.link_new_state, None
        if new is None or new is slave.link:
            continue
        slave.link = new
        if new is Link.UP:
            reselect |= _commit_up(bond, slave)
        elif new is Link.DOWN:
            reselect |= _commit_down(bond, slave)
    bond.update_slave_arr()
    if reselect and bond.mode.uses_primary:
        bond_select_active_slave(bond)
    bond.set_carrier()


def _commit_up(bond: Bond, slave: Slave) -> bool:
    """True if the active slave is to be chosen anew."""
    if bond.mode not in (Mode.ACTIVEBACKUP, Mode.AD):  # those two say later whether it is used
        slave.active = True
    bond.link_changed(slave)
    return bond.curr_active_slave is None or slave is bond.primary_slave


def _commit_down(bond: Bond, slave: Slave) -> bool:
    """True if the active slave is to be chosen anew."""
    slave.link_failure_count += 1
    if bond.mode in (Mode.ACTIVEBACKUP, Mode.AD):
        bond.set_slave_inactive(slave)
    bond.link_changed(slave)
    return slave is bond.curr_active_slave
