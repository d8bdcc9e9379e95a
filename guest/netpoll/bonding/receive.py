"""What a slave received: LACP's, the bond's, or nobody's (bond_main.c: bond_handle_frame()).

In: a slave's device and an skb. Out: True, and the skb is the bond's, or False, and whoever asked frees
it. The one rule: nothing is sent from here; what LACP answers leaves in process context.

A slave with an address of its own (balance-alb) whose hardware passes everything on brings frames to the bond's address, too, where a
switch floods: they stay PACKET_OTHERHOST, which nobody above takes, since the slave that has that address brings them as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.netpoll.bonding.lacpdu import SLOW_MULTICAST
from guest.netpoll.bonding.params import Mode
from guest.netpoll.bonding.slave import Slave
from guest.netpoll.netdevice import NetDevice
from guest.netpoll.skbuff import PACKET_HOST, SkBuff
from guest.netpoll.wire.ethernet import ETH_P_SLOW, HEADER_LEN

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond

LOCK_PATIENCE = 0.05  # seconds for a lock whose CPU may have died with it


def bond_handle_frame(bond: Bond, dev: NetDevice, skb: SkBuff) -> bool:
    """LACP for us, nothing from an inactive slave, all else as the bond's own. Any context.

    To the slave's own address it is PACKET_HOST, though its driver may have read another since.
    """
    slave = bond.by_dev.get(dev)
    if slave is None or not bond.running:
        return False
    data = skb.data
    if slave.port is not None and skb.protocol == ETH_P_SLOW and data[:6] == SLOW_MULTICAST:
        bond_3ad_lacpdu_recv(bond, slave, skb)
        return False
    if slave.inactive and not (bond.mode is Mode.ALB and data and not data[0] & 1):
        bond.stats["rx_inactive"] += 1
        return False
    skb.dev = bond
    if data[:6] == slave.hwaddr:
        skb.pkt_type = PACKET_HOST
    return True


def bond_3ad_lacpdu_recv(bond: Bond, slave: Slave, skb: SkBuff) -> None:
    """A slow protocol frame to the state machines of the slave's port."""
    if bond.ad is None or slave.port is None or not bond.mode_lock.acquire(timeout=LOCK_PATIENCE):
        return
    try:
        bond.ad.rx_indication(slave.port, skb.data[HEADER_LEN:], bond.ctx.clock())
        bond.follow_ad()
    finally:
        bond.mode_lock.release()
    bond.ctx.schedule_work(bond.work)
