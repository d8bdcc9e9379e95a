"""From the bond to a slave: bond_dev_queue_xmit(), and what becomes of a frame that the slave does not take.

In: an skb and the slave that a mode chose. Out: NetdevTx, which is the slave's own answer. The one rule:
BUSY gives the skb back, its device being the bond again.

With netpoll on the bond the slave is sent to through netpoll_send_skb() (the slides' nesting), on a
Netpoll of its own for each slave, as Linux has it since 2.6.36. That one's drop routine hands the frame
back. So the bond's own retry loop goes on with it, polls all slaves, and may find another slave chosen
meanwhile; the client's drop routine is called once, for a frame that still belongs to the bond, and
netpoll_queue() holds it for whichever slave is there later. In the slides' kernel the bond reported
success always, a slave's failure was hidden, and a queued frame was tied to the slave that had failed.

Only a copy of a frame that has left by another slave (broadcast) stays with its slave, as in Linux: nobody sends it again from above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.netpoll.bonding.slave import Slave
from guest.netpoll.context import smp_processor_id
from guest.netpoll.netdevice import NetDevice, NetdevTx
from guest.netpoll.skbuff import SkBuff, kfree_skb
from guest.netpoll.txq import netpoll_queue

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond

NET_XMIT_SUCCESS = 0
LOCK_PATIENCE = 0.05  # seconds for a lock whose CPU may have died with it


def bond_dev_queue_xmit(bond: Bond, skb: SkBuff, slave: Slave) -> NetdevTx:
    """Send `skb` on `slave`: nested netpoll_send_skb() if netpoll sends, else straight to its driver."""
    skb.dev = slave.dev
    slave.dev.xmit_more = bond.xmit_more
    if bond.netpoll is not None and slave.np is not None:
        sent = slave.np.send_skb(skb) == NET_XMIT_SUCCESS
    else:
        sent = dev_hard_start_xmit(slave.dev, skb) is NetdevTx.OK
    if sent:
        bond.stats["tx_packets"] += 1
        return NetdevTx.OK
    skb.dev = bond
    bond.stats["tx_slave_busy"] += 1
    return NetdevTx.BUSY


def bond_queue_copy(bond: Bond, clone: SkBuff, slave: Slave) -> None:
    """__netpoll_send_skb()'s end: the slave's npinfo->txq has it, and the next send or the worker sends it. Without netpoll it is freed."""
    if bond.netpoll is None or slave.np is None:
        bond.stats["tx_dropped"] += 1
        kfree_skb(clone)
        return
    clone.dev, clone.np = slave.dev, slave.np
    netpoll_queue(clone)


def dev_hard_start_xmit(dev: NetDevice, skb: SkBuff) -> NetdevTx:
    """The driver's hard_start_xmit under xmit_lock; refused if its queue is stopped or the lock cannot be had."""
    if dev.xmit_lock_owner == smp_processor_id() or not dev.running:
        return NetdevTx.LOCKED
    if not dev.xmit_lock.acquire(timeout=LOCK_PATIENCE):
        return NetdevTx.LOCKED
    dev.xmit_lock_owner = smp_processor_id()
    try:
        return NetdevTx.BUSY if dev.xoff else dev.hard_start_xmit(skb)
    finally:
        dev.xmit_lock_owner = 0
        dev.xmit_lock.release()


def bond_tx_none(bond: Bond) -> NetdevTx:
    """No slave to send on: the caller keeps the frame (the kernel freed it and reported success)."""
    bond.stats["tx_no_slave"] += 1
    return NetdevTx.BUSY
