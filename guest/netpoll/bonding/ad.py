"""802.3ad: an Actor System with its ports, as one object that owns no device and no clock.

In: links going up and down, received PDUs, the time. Out: PDUs to send (drain()), which ports carry
frames, which aggregator is active, when to come back (next_deadline()). The one rule: bytes and times go
in and come out; whoever holds the devices moves them.

Theory of operation: whatever happens is put into the port's variables, then settle() runs every machine
of every port until nothing changes any more. A LACPDU leaves when a port needs one (NTT) and fewer than
three went in the last second. Ports are numbered from 1; each has an aggregator of the same number.

Left out: churn detection, the collector's maximum delay and the marker generator (a marker received is
answered), and independent control of the Mux, which Linux has since 6.9.
"""

from __future__ import annotations

from dataclasses import replace

from guest.netpoll.bonding import lacpdu
from guest.netpoll.bonding.aggregator import ad_agg_selection_logic, ad_port_selection_logic, leave
from guest.netpoll.bonding.lacpdu import Information, Lacpdu, Marker
from guest.netpoll.bonding.machines import (
    ad_mux_machine,
    ad_periodic_machine,
    ad_rx_machine,
    ad_tx_machine,
    begin,
)
from guest.netpoll.bonding.params import BondParams, LacpRate
from guest.netpoll.bonding.port import Aggregator, Port, RxState, port_key
from guest.netpoll.wire.errors import WireError

PORT_PRIORITY = 0xFF


class AdSystem:
    """One system, `system` being its MAC address. Not thread-safe: the bond's mode_lock is around it."""

    def __init__(self, params: BondParams, system: bytes) -> None:
        self.params = params
        self.system = params.ad_actor_system if any(params.ad_actor_system) else system
        self.ports: dict[int, Port] = {}
        self.aggregators: list[Aggregator] = []
        self.active: Aggregator | None = None
        self._outbox: list[tuple[int, bytes]] = []

    def bind_slave(self, number: int, source: bytes, speed: int, full_duplex: bool) -> Port:
        """bond_3ad_bind_slave(): a new port, without a link yet; `source` is its address on the wire."""
        state = lacpdu.AGGREGATION
        state |= lacpdu.ACTIVITY if self.params.lacp_active else 0
        state |= lacpdu.TIMEOUT if self.params.lacp_rate is LacpRate.FAST else 0
        key = port_key(self.params.ad_user_port_key, speed, full_duplex)
        actor = Information(self.params.ad_actor_sys_prio, self.system, key, PORT_PRIORITY, number, state)
        port = self.ports[number] = Port(actor, source, speed)
        self.aggregators.append(Aggregator(number))
        begin(port)
        return port

    def unbind_slave(self, port: Port, now: float) -> None:
        """bond_3ad_unbind_slave(): tell the partner that the link is on its own, and forget the port."""
        if port.enabled and port.lacp_enabled:
            off = lacpdu.SYNCHRONIZATION | lacpdu.COLLECTING | lacpdu.DISTRIBUTING | lacpdu.AGGREGATION
            port.actor_state(off=off)
            self._send(port, port.lacpdu())
        leave(port)
        del self.ports[port.number]
        self._retire(next(aggregator for aggregator in self.aggregators if aggregator.number == port.number))
        self.settle(now)

    def _retire(self, aggregator: Aggregator) -> None:
        """Remove an aggregator; ports of others that are in it move, as they are, to an empty one."""
        self.aggregators.remove(aggregator)
        if not aggregator.ports:
            return
        heir = next(other for other in self.aggregators if not other.ports)
        for port in aggregator.ports:
            port.aggregator = heir
        for name in ("ports", "is_active", "is_individual", "actor_key"):
            setattr(heir, name, getattr(aggregator, name))
        for name in ("partner_system", "partner_system_priority", "partner_key"):
            setattr(heir, name, getattr(aggregator, name))

    def set_system(self, system: bytes, now: float) -> None:
        """bond_3ad_update_ad_actor_settings(): the bond has another address, hence the system too."""
        if any(self.params.ad_actor_system) or system == self.system:
            return
        self.system = system
        for port in self.ports.values():
            port.actor = replace(port.actor, system=system)
            port.ntt = True
        self.settle(now)

    def handle_link_change(self, port: Port, up: bool, speed: int, full_duplex: bool, now: float) -> None:
        """bond_3ad_handle_link_change(): another speed or duplex starts the port anew."""
        port.enabled = up
        if up:
            key = port_key(self.params.ad_user_port_key, speed, full_duplex)
            port.speed = speed
            if key != port.actor.key:
                port.actor = replace(port.actor, key=key)
                begin(port)
        self.settle(now)

    def rx_indication(self, port: Port, data: bytes | bytearray | memoryview, now: float) -> None:
        """bond_3ad_rx_indication(): the octets after the Ethernet header; what is malformed is counted."""
        try:
            pdu = lacpdu.parse(data)
        except WireError:
            port.count("illegal_rx")
            return
        if isinstance(pdu, Marker):
            self._marker(port, pdu)
        elif pdu.actor.system == self.system:
            port.count("loopback_rx")
        elif port.enabled:
            port.count("lacpdu_rx")
            self._port_moved(port, pdu)
            ad_rx_machine(port, now, pdu)
            self.settle(now)

    def _marker(self, port: Port, marker: Marker) -> None:
        port.count("marker_resp_rx" if marker.response else "marker_rx")
        if not marker.response and port.enabled:
            self._send(port, replace(marker, response=True))

    def _port_moved(self, here: Port, pdu: Lacpdu) -> None:
        """port_moved (6.4.8): the cable of a disabled port was plugged in here; the old port starts anew."""
        for port in self.ports.values():
            moved = (port.partner.system, port.partner.port) == (pdu.actor.system, pdu.actor.port)
            if moved and port is not here and port.rx_state is RxState.PORT_DISABLED:
                begin(port)

    def _send(self, port: Port, pdu: Lacpdu | Marker) -> None:
        port.count("marker_resp_tx" if isinstance(pdu, Marker) else "lacpdu_tx")
        self._outbox.append((port.number, lacpdu.frame(pdu, port.source)))

    def settle(self, now: float) -> None:
        """bond_3ad_state_machine_handler(): run the machines of all ports until nothing changes."""
        before: list[object] | None = None
        after = self._round(now)
        while before != after:
            before, after = after, self._round(now)
        for port in self.ports.values():
            if ad_tx_machine(port, now):
                self._send(port, port.lacpdu())

    def _round(self, now: float) -> list[object]:
        """One round of all machines, then everything that a further round could change."""
        for port in self.ports.values():
            ad_rx_machine(port, now)
            ad_periodic_machine(port, now)
            ad_mux_machine(port, now)
        ad_port_selection_logic(self.ports.values(), self.aggregators)
        self.active = ad_agg_selection_logic(self.aggregators, self.params.ad_select)
        return [
            (port.rx_state, port.mux_state, port.selected, port.aggregator, port.actor, port.partner)
            for port in self.ports.values()
        ]

    def drain(self) -> list[tuple[int, bytes]]:
        """Frames to send now: (port number, the whole frame)."""
        frames, self._outbox = self._outbox, []
        return frames

    def next_deadline(self) -> float | None:
        """When settle() has something to do at the latest; None: never, as things stand."""
        return min((deadline for port in self.ports.values() for deadline in port.timers()), default=None)
