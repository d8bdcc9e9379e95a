"""How a device becomes a slave, and how it leaves (bond_main.c: bond_enslave(), bond_release()).

In: a bond and a device. Out: the device as a slave, up; or on its own again, down, with the address that
it came with. The one rule: a device that cannot be taken is refused before anything is changed, and one
that vanished is let go of without being touched.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from guest.netpoll.bonding import alb
from guest.netpoll.bonding.active import bond_select_active_slave
from guest.netpoll.bonding.ad import AdSystem
from guest.netpoll.bonding.params import FailOverMac, Mode
from guest.netpoll.bonding.slave import Link, Slave
from guest.netpoll.bonding.slave_netpoll import bond_netpoll_setup, slave_disable_netpoll
from guest.netpoll.netdevice import IFF_MASTER, IFF_SLAVE, NetdevError, NetDevice, dev_close, dev_open

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond


def bond_enslave(bond: Bond, dev: NetDevice, speed: int, full_duplex: bool) -> Slave:
    """Make `dev` a slave; raises NetdevError, `dev` then being as it was."""
    _check(bond, dev)
    was_running = dev.running
    dev_open(dev)
    try:
        slave = _prepare(bond, dev, speed, full_duplex)
    except NetdevError:
        if not was_running:
            dev_close(dev)
        raise
    with bond.mode_lock:
        dev.master = bond
        dev.flags |= IFF_SLAVE
        bond.slaves.append(slave)
        bond.by_dev[dev] = slave
        _set_first_link(bond, slave)
        _set_first_role(bond, slave)
    bond_netpoll_setup(bond)
    bond.follow_mtu()
    bond.set_carrier()
    bond.rearm()
    return slave


def _prepare(bond: Bond, dev: NetDevice, speed: int, full_duplex: bool) -> Slave:
    """What may still fail now that the device is up, so that its type and address are known."""
    if dev.type != bond.type:
        raise NetdevError(errno.EINVAL, f"{bond.name}: cannot enslave {dev.name}: it is no Ethernet device")
    slave = Slave(dev, 1 + max((slave.number for slave in bond.slaves), default=0), speed, full_duplex)
    if not any(bond.dev_addr):
        bond.set_dev_addr(slave.perm_hwaddr)
    _set_address(bond, slave)
    return slave


def _check(bond: Bond, dev: NetDevice) -> None:
    """Raise NetdevError for a device that cannot be a slave of this bond."""
    reasons = (
        (dev is bond or bool(dev.flags & IFF_MASTER), errno.EPERM, "is a bond itself"),
        (dev.master is not None, errno.EBUSY, f"is a slave of {dev.master.name if dev.master else ''} already"),
        (dev.npinfo is not None, errno.EBUSY, "has netpoll clients of its own"),
        (dev.net is not bond.net, errno.EXDEV, "belongs to another Net"),
        (not dev.present, errno.ENODEV, "is gone"),
    )
    for wrong, code, why in reasons:
        if wrong:
            raise NetdevError(code, f"{bond.name}: cannot enslave {dev.name}: it {why}")


def _set_address(bond: Bond, slave: Slave) -> None:
    """Every slave gets the bond's address, unless its own is what tells it apart."""
    if bond.mode.is_lb:
        alb.bond_alb_init_slave(bond, slave)
    elif bond.params.fail_over_mac is FailOverMac.NONE:
        slave.set_mac_address(bond.dev_addr)


def _set_first_link(bond: Bond, slave: Slave) -> None:
    miimon = bond.params.miimon
    if miimon and not slave.is_up:
        slave.link = Link.DOWN
    elif miimon and bond.params.updelay:
        slave.link, slave.delay = Link.BACK, bond.params.updelay // miimon
    else:
        slave.link = Link.UP


def _set_first_role(bond: Bond, slave: Slave) -> None:
    if slave.dev.name == bond.params.primary:
        bond.primary_slave, bond.force_primary = slave, True
    if bond.mode.uses_primary:
        bond.set_slave_inactive(slave)
        bond_select_active_slave(bond)
    elif bond.mode is Mode.AD:
        bond.set_slave_inactive(slave)
        bond.ad = bond.ad or AdSystem(bond.params, bond.dev_addr)
        slave.port = bond.ad.bind_slave(slave.number, slave.perm_hwaddr, slave.speed, slave.full_duplex)
        bond.link_changed(slave)
    else:
        slave.set_active()
    bond.update_slave_arr()


def bond_release(bond: Bond, dev: NetDevice) -> None:
    """Let `dev` go; raises NetdevError if it is no slave of this bond."""
    slave = bond.by_dev.get(dev)
    if slave is None:
        raise NetdevError(errno.EINVAL, f"{bond.name}: {dev.name} is no slave of this bond")
    with bond.mode_lock:
        _forget(bond, slave)
    slave_disable_netpoll(slave)
    dev.master = None
    dev.flags &= ~IFF_SLAVE
    if dev.present:
        slave.set_mac_address(slave.perm_hwaddr)
        dev_close(dev)
    bond_netpoll_setup(bond)
    bond.follow_mtu()
    bond.rearm()


def _forget(bond: Bond, slave: Slave) -> None:
    """Out of every table; LACP says farewell first, while the device is still a slave."""
    if bond.ad is not None and slave.port is not None:
        bond.ad.unbind_slave(slave.port, bond.ctx.clock())
        bond.transmit()
    bond.slaves.remove(slave)
    del bond.by_dev[slave.dev]
    alb.tlb_clear_slave(bond, slave, save_load=False)
    slave.link = Link.DOWN
    if slave is bond.primary_slave:
        bond.primary_slave = None
    if slave is bond.curr_active_slave:
        bond_select_active_slave(bond)
    bond.follow_ad()
    bond.update_slave_arr()
    bond.set_carrier()
