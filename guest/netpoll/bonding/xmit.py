"""Which slave a frame leaves on: one function for each mode (bond_main.c, bond_3ad.c).

In: a bond and an skb. Out: the skb on one slave (on each, for broadcast), and NetdevTx: BUSY if the
caller still has it. The one rule: they decide from what is known already - link monitor, LACP - and look
nothing up, so that they work with the machine stopped around them.

Names are those of the slides' kernel (bond_3ad_xmit_xor; today bond_3ad_xor_xmit), choices those of
Linux 6.x: the hash runs over the usable slaves (2.6.12 walked on from an unusable one).

Left out: IGMP's preference for the active slave, and packets_per_slave=0 (random).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from guest.netpoll.bonding.alb import bond_alb_xmit, bond_tlb_xmit
from guest.netpoll.bonding.hash import bond_xmit_hash
from guest.netpoll.bonding.params import Mode
from guest.netpoll.bonding.queue_xmit import bond_dev_queue_xmit, bond_queue_copy, bond_tx_none
from guest.netpoll.netdevice import NetdevTx
from guest.netpoll.skbuff import SkBuff, kfree_skb, skb_clone

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond


def bond_xmit_roundrobin(bond: Bond, skb: SkBuff) -> NetdevTx:
    """Mode 0: the slaves by turns, packets_per_slave each; an unusable one leaves its turn to the next."""
    count = len(bond.slaves)
    if not count:
        return bond_tx_none(bond)
    start = bond.rr_tx_counter // bond.params.packets_per_slave % count
    bond.rr_tx_counter += 1
    for slave in bond.slaves[start:] + bond.slaves[:start]:
        if slave.can_tx:
            return bond_dev_queue_xmit(bond, skb, slave)
    return bond_tx_none(bond)


def bond_xmit_activebackup(bond: Bond, skb: SkBuff) -> NetdevTx:
    """Mode 1: the active slave, without another look at it."""
    slave = bond.curr_active_slave
    return bond_tx_none(bond) if slave is None else bond_dev_queue_xmit(bond, skb, slave)


def _xmit_hash(bond: Bond, skb: SkBuff) -> NetdevTx:
    usable = bond.usable_slaves
    if not usable:
        return bond_tx_none(bond)
    number = bond_xmit_hash(skb.data, bond.params.xmit_hash_policy) % len(usable)
    return bond_dev_queue_xmit(bond, skb, usable[number])


def bond_xmit_xor(bond: Bond, skb: SkBuff) -> NetdevTx:
    """Mode 2: the flow's hash over the usable slaves."""
    return _xmit_hash(bond, skb)


def bond_3ad_xmit_xor(bond: Bond, skb: SkBuff) -> NetdevTx:
    """Mode 4: the flow's hash over the active aggregator's ports that distribute."""
    return _xmit_hash(bond, skb)


def bond_xmit_broadcast(bond: Bond, skb: SkBuff) -> NetdevTx:
    """Mode 3: a clone on each slave with a link. OK if one of them took it; the others' clones then wait for their own slaves."""
    clones = [(skb_clone(skb), slave) for slave in bond.slaves if slave.can_tx]
    left = [(clone, slave) for clone, slave in clones if bond_dev_queue_xmit(bond, clone, slave) is not NetdevTx.OK]
    if len(left) == len(clones):
        for clone, _ in left:
            kfree_skb(clone)
        return bond_tx_none(bond)
    for clone, slave in left:
        bond_queue_copy(bond, clone, slave)
    kfree_skb(skb)
    return NetdevTx.OK


BOND_XMIT: dict[Mode, Callable[[Bond, SkBuff], NetdevTx]] = {
    Mode.ROUNDROBIN: bond_xmit_roundrobin,
    Mode.ACTIVEBACKUP: bond_xmit_activebackup,
    Mode.XOR: bond_xmit_xor,
    Mode.BROADCAST: bond_xmit_broadcast,
    Mode.AD: bond_3ad_xmit_xor,
    Mode.TLB: bond_tlb_xmit,
    Mode.ALB: bond_alb_xmit,
}
