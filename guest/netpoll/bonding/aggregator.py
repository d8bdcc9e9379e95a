"""Selection: which aggregator a port joins, and which aggregator carries the bond (IEEE 802.1AX-2014 6.4.14; bond_3ad.c).

In: ports and aggregators. Out: Port.aggregator and Port.selected, Aggregator.is_active. The one rule: one
aggregator is active; its ports are SELECTED, all others STANDBY (the standard's word for a port that is
not given to the client), so that they never get past WAITING.

A port joins an aggregator whose ports have its own key, partner system, priority and key, if somebody
answers there and neither end is individual (half duplex, or not AGGREGATION); else it takes an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from guest.netpoll.bonding.lacpdu import AGGREGATION
from guest.netpoll.bonding.params import AdSelect
from guest.netpoll.bonding.port import Aggregator, MuxState, Port, Selected


def ad_port_selection_logic(ports: Iterable[Port], aggregators: Sequence[Aggregator]) -> bool:
    """Give each unselected port an aggregator, once it is detached from its old one; True if any got one."""
    changed = False
    for port in ports:
        if port.selected is Selected.UNSELECTED and port.mux_state is MuxState.DETACHED:
            leave(port)
            _join(port, _find(port, aggregators))
            changed = True
    return changed


def leave(port: Port) -> None:
    """Take the port out of its aggregator; an empty aggregator forgets whose it was."""
    aggregator, port.aggregator = port.aggregator, None
    if aggregator is not None:
        aggregator.ports.remove(port)
        if not aggregator.ports:
            aggregator.clear()


def is_individual(port: Port) -> bool:
    """A link that can only be alone: LACP does not run on it, or one end does not want to aggregate."""
    partner_wants = port.partner_has(AGGREGATION) or not any(port.partner.system)
    return not (port.lacp_enabled and port.has(AGGREGATION) and partner_wants)


def _find(port: Port, aggregators: Sequence[Aggregator]) -> Aggregator:
    """One that suits, else an empty one; there are as many aggregators as ports, so there is one."""
    if not is_individual(port):
        for aggregator in aggregators:
            if aggregator.ports and not aggregator.is_individual and _same_group(port, aggregator):
                return aggregator
    return next(aggregator for aggregator in aggregators if not aggregator.ports)


def _same_group(port: Port, aggregator: Aggregator) -> bool:
    partner = port.partner
    group = (aggregator.actor_key, aggregator.partner_system, aggregator.partner_system_priority)
    mine = (port.actor.key, partner.system, partner.system_priority)
    return aggregator.has_partner and group == mine and aggregator.partner_key == partner.key


def _join(port: Port, aggregator: Aggregator) -> None:
    if not aggregator.ports:
        aggregator.is_individual = is_individual(port)
        aggregator.actor_key = port.actor.key
        aggregator.partner_system = port.partner.system
        aggregator.partner_system_priority = port.partner.system_priority
        aggregator.partner_key = port.partner.key
    aggregator.ports.append(port)
    port.aggregator = aggregator
    port.selected = Selected.STANDBY


def ad_agg_selection_logic(aggregators: Sequence[Aggregator], policy: AdSelect) -> Aggregator | None:
    """Choose the active aggregator, mark it and its ports; None if no port has a link."""
    active = next((aggregator for aggregator in aggregators if aggregator.is_active), None)
    best = _choose(aggregators, active, policy)
    for aggregator in aggregators:
        aggregator.is_active = aggregator is best
        for port in aggregator.ports:
            if port.selected is not Selected.UNSELECTED:
                port.selected = Selected.SELECTED if aggregator is best else Selected.STANDBY
    return best


def _choose(aggregators: Sequence[Aggregator], active: Aggregator | None, policy: AdSelect) -> Aggregator | None:
    """The active one as long as it will do, else the first among the best."""
    candidates = [aggregator for aggregator in aggregators if aggregator.active_ports]
    if active in candidates:
        candidates.insert(0, active)  # on equal terms it stays
    best = max(candidates, key=lambda aggregator: _rank(aggregator, policy), default=None)
    if best is None or active is None or not active.active_ports:
        return best
    if (
        policy is AdSelect.STABLE
        and (active.has_partner or not best.has_partner)
        and (active.actor_key or not best.actor_key)
    ):
        return active
    return best


def _rank(aggregator: Aggregator, policy: AdSelect) -> tuple[bool, bool, int, int]:
    """ad_agg_selection_test(): can aggregate, is answered, ports (for `count`), bandwidth."""
    count = len(aggregator.active_ports) if policy is AdSelect.COUNT else 0
    return not aggregator.is_individual, aggregator.has_partner, count, aggregator.bandwidth
