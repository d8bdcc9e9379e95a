"""balance-tlb and balance-alb: transmit load balancing (bond_alb.c).

In: frames, and ticks of 100 ms. Out: a slave for each frame; its source address rewritten if that slave
is not the active one. The one rule: the active slave has the bond's address and receives everything;
each other slave sends from an address of its own, so that no switch sees one address on two ports.

tlb keys IPv4 and IPv6 unicast by bond_xmit_hash(), alb by the xor of the destination address's octets.
A key is bound to the least loaded slave when it first sends, and unbound every 10 seconds, its load being
remembered for the next choice. Everything else goes out on the active slave. With tlb_dynamic_lb=0 the
hash alone decides.

Left out: alb's receive load balancing (ARP replies that teach each neighbour the address of another
slave), so that alb here receives like tlb; resolving collisions of the slaves' addresses; and IPv6
neighbour discovery beyond its multicasts, which are never balanced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guest.netpoll.bonding.hash import bond_xmit_hash
from guest.netpoll.bonding.params import Mode
from guest.netpoll.bonding.queue_xmit import bond_dev_queue_xmit, bond_tx_none
from guest.netpoll.bonding.slave import Slave
from guest.netpoll.netdevice import NetdevTx
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.wire import ethernet

if TYPE_CHECKING:
    from guest.netpoll.bonding.bond import Bond

ALB_INTERVAL = 0.1  # seconds: ALB_TIMER_TICKS_PER_SEC is 10
REBALANCE_INTERVAL = 10  # seconds: BOND_TLB_REBALANCE_INTERVAL
TLB_HASH_TABLE_SIZE = 256
ETH_P_LOOPBACK = 0x9000
_IGMP = 2


@dataclass(slots=True)
class Client:
    """struct tlb_client_info: one key. Loads are octets, `load_history` a second's."""

    slave: Slave | None = None
    tx_bytes: int = 0
    load_history: int = 0


@dataclass(slots=True)
class TlbInfo:
    """struct alb_bond_info."""

    clients: list[Client] = field(default_factory=lambda: [Client() for _ in range(TLB_HASH_TABLE_SIZE)])
    unbalanced_load: int = 0
    ticks: int = 0


def bond_tlb_xmit(bond: Bond, skb: SkBuff) -> NetdevTx:
    """Mode 5."""
    slave = None
    frame = skb.data
    if len(frame) >= ethernet.HEADER_LEN and not frame[0] & 1 and _ethertype(frame) in _IP:
        slave = _choose(bond, skb, bond_xmit_hash(frame, bond.params.xmit_hash_policy) & 0xFF)
    return _do_alb_xmit(bond, skb, slave)


def bond_alb_xmit(bond: Bond, skb: SkBuff) -> NetdevTx:
    """Mode 6."""
    address = _alb_key(skb.data)
    slave = _choose(bond, skb, _simple_hash(address)) if address else None
    return _do_alb_xmit(bond, skb, slave)


_IP = (ethernet.ETH_P_IP, ethernet.ETH_P_IPV6)


def _ethertype(frame: bytes | bytearray | memoryview) -> int:
    return int.from_bytes(frame[12:14], "big")


def _alb_key(frame: bytes | bytearray | memoryview) -> bytes:
    """The destination address if the frame may be balanced, else nothing: bond_xmit_alb_slave_get()."""
    if len(frame) < ethernet.HEADER_LEN or bytes(frame[:6]) == ethernet.BROADCAST:
        return b""
    ethertype = _ethertype(frame)
    if ethertype == ethernet.ETH_P_IP and len(frame) >= 34:
        target = bytes(frame[30:34])
        return b"" if target == b"\xff" * 4 or frame[23] == _IGMP else target
    if ethertype == ethernet.ETH_P_IPV6 and len(frame) >= 54:
        return b"" if frame[0] & 1 or not any(frame[22:38]) else bytes(frame[38:54])
    return b""


def _simple_hash(address: bytes) -> int:
    value = 0
    for octet in address:
        value ^= octet
    return value


def _choose(bond: Bond, skb: SkBuff, key: int) -> Slave | None:
    """tlb_choose_channel(), or without tlb_dynamic_lb the usable slave that the hash names."""
    if not bond.params.tlb_dynamic_lb:
        usable = bond.usable_slaves
        return usable[bond_xmit_hash(skb.data, bond.params.xmit_hash_policy) % len(usable)] if usable else None
    client = bond.tlb.clients[key]
    if client.slave is None:
        client.slave = _least_loaded(bond)
        if client.slave is None:
            return None
        client.slave.load += client.load_history
    client.tx_bytes += len(skb)
    return client.slave


def _least_loaded(bond: Bond) -> Slave | None:
    """tlb_get_least_loaded_slave(): the widest gap between speed and load, in bits a second."""
    candidates = [slave for slave in bond.slaves if slave.can_tx]
    return max(candidates, key=lambda slave: (slave.speed << 20) - (slave.load << 3), default=None)


def _do_alb_xmit(bond: Bond, skb: SkBuff, slave: Slave | None) -> NetdevTx:
    """bond_do_alb_xmit(): on `slave`, or on the active one; a bound slave that went is unbound."""
    active = bond.curr_active_slave
    if slave is None:
        slave = active
        bond.tlb.unbalanced_load += len(skb)
    elif not slave.can_tx:
        tlb_clear_slave(bond, slave, save_load=False)
        return bond_tx_none(bond)
    if slave is None or not slave.can_tx:
        return bond_tx_none(bond)
    before = skb.data
    if slave is not active:
        skb.data = b"".join((before[:6], slave.hwaddr, before[12:]))
    status = bond_dev_queue_xmit(bond, skb, slave)
    if status is not NetdevTx.OK:
        skb.data = before
    return status


def tlb_clear_slave(bond: Bond, slave: Slave, save_load: bool) -> None:
    """Unbind all keys of `slave`; with `save_load` remember how much each sent a second."""
    for client in bond.tlb.clients:
        if client.slave is slave:
            client.slave = None
            if save_load:
                client.load_history = 1 + client.tx_bytes // REBALANCE_INTERVAL
                client.tx_bytes = 0
    slave.load = 0


def bond_alb_monitor(bond: Bond) -> None:
    """Every 100 ms: learning packets each lp_interval, keys unbound each 10 seconds."""
    tlb = bond.tlb
    tlb.ticks += 1
    if tlb.ticks % (bond.params.lp_interval * 10) == 0:
        for slave in bond.slaves:
            send_learning_packet(bond, slave, slave.hwaddr)
    if tlb.ticks % (REBALANCE_INTERVAL * 10) == 0:
        for slave in bond.slaves:
            tlb_clear_slave(bond, slave, save_load=True)
            if slave is bond.curr_active_slave:
                slave.load = tlb.unbalanced_load // REBALANCE_INTERVAL
                tlb.unbalanced_load = 0


def send_learning_packet(bond: Bond, slave: Slave, addr: bytes) -> None:
    """alb_send_lp_vid(): a loopback frame from and to `addr`, by which a switch learns its port."""
    if slave.is_up:
        head = addr + addr + ETH_P_LOOPBACK.to_bytes(2, "big")
        bond.send_control(slave, head.ljust(ethernet.ETH_ZLEN, b"\0"))


def bond_alb_init_slave(bond: Bond, slave: Slave) -> None:
    """A newcomer goes on sending from its own address; in tlb its hardware listens to the bond's."""
    if bond.mode is Mode.TLB:
        slave.set_mac_address(bond.dev_addr)
        slave.hwaddr = slave.perm_hwaddr


def set_slave_address(bond: Bond, slave: Slave, addr: bytes) -> None:
    """alb_set_slave_mac_addr(): in tlb only the source address changes, the hardware keeps the bond's."""
    if bond.mode is Mode.TLB:
        slave.hwaddr = addr
    else:
        slave.set_mac_address(addr)


def bond_alb_handle_active_change(bond: Bond, old: Slave | None, new: Slave | None) -> None:
    """The new active slave takes the bond's address, and gives its own to who had that."""
    if new is None:
        return
    holder = old or next((slave for slave in bond.slaves if slave.hwaddr == bond.dev_addr), None)
    if holder is not None and holder is not new:
        tlb_clear_slave(bond, holder, save_load=True)
        set_slave_address(bond, holder, new.hwaddr)
        send_learning_packet(bond, holder, holder.hwaddr)
    tlb_clear_slave(bond, new, save_load=True)
    set_slave_address(bond, new, bond.dev_addr)
    send_learning_packet(bond, new, bond.dev_addr)
