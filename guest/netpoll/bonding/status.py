"""What a bond is doing, in the words of /proc/net/bonding/NAME.

In: a Bond. Out: the text, or for 802.3ad's ports the parts that a program asks for. The one rule: it
only reads, so it may be called at any time, also to record evidence in the middle of a failure.
"""

from __future__ import annotations

from collections.abc import Iterator

from guest.netpoll.bonding.bond import Bond
from guest.netpoll.bonding.lacpdu import Information, state_text
from guest.netpoll.bonding.port import Port
from guest.netpoll.bonding.slave import Slave
from guest.netpoll.wire.ethernet import format_mac


def proc_info(bond: Bond) -> str:
    """Lines as bond_info_seq_show() has them, where this bond has the thing."""
    return "\n".join([*_master(bond), *(line for slave in bond.slaves for line in _slave(slave))]) + "\n"


def _master(bond: Bond) -> Iterator[str]:
    yield f"Bonding Mode: {bond.mode.value}"
    if bond.mode.uses_primary:
        yield f"Primary Slave: {_name(bond.primary_slave)}"
        yield f"Currently Active Slave: {_name(bond.curr_active_slave)}"
    else:
        yield f"Transmit Hash Policy: {bond.params.xmit_hash_policy.value}"
    yield f"MII Status: {'up' if bond.carrier else 'down'}"
    yield f"MII Polling Interval (ms): {bond.params.miimon}"
    yield f"Up Delay (ms): {bond.params.updelay}"
    yield f"Down Delay (ms): {bond.params.downdelay}"
    if bond.ad is not None:
        yield from _ad(bond)


def _ad(bond: Bond) -> Iterator[str]:
    yield f"LACP rate: {bond.params.lacp_rate.value}"
    yield f"Min links: {bond.params.min_links}"
    active = bond.ad.active if bond.ad is not None else None
    if active is None:
        yield "bond has no active aggregator"
        return
    yield f"Active Aggregator ID: {active.number}"
    yield f"Number of ports: {len(active.active_ports)}"
    yield f"Actor Key: {active.actor_key}"
    yield f"Partner Key: {active.partner_key}"
    yield f"Partner Mac Address: {format_mac(active.partner_system)}"


def _name(slave: Slave | None) -> str:
    return slave.dev.name if slave is not None else "None"


def _slave(slave: Slave) -> Iterator[str]:
    yield ""
    yield f"Slave Interface: {slave.dev.name}"
    yield f"MII Status: {slave.link.value}"
    yield f"Speed: {slave.speed} Mbps" if slave.speed else "Speed: Unknown"
    yield f"Duplex: {'full' if slave.full_duplex else 'half'}"
    yield f"Link Failure Count: {slave.link_failure_count}"
    yield f"Permanent HW addr: {format_mac(slave.perm_hwaddr)}"
    if slave.port is not None:
        yield from _port(slave.port)


def _port(port: Port) -> Iterator[str]:
    yield f"Aggregator ID: {port.aggregator.number if port.aggregator else 'N/A'}"
    yield f"Receive, Periodic, Mux: {port.rx_state.name}, {port.periodic_state.name}, {port.mux_state.name}"
    for title, side in (("actor", port.actor), ("partner", port.partner)):
        yield f"details {title} lacp pdu:"
        yield from _information(side)


def _information(side: Information) -> Iterator[str]:
    yield f"    system priority: {side.system_priority}"
    yield f"    system mac address: {format_mac(side.system)}"
    yield f"    port key: {side.key}"
    yield f"    port priority: {side.port_priority}"
    yield f"    port number: {side.port}"
    yield f"    port state: {side.state} ({state_text(side.state)})"
