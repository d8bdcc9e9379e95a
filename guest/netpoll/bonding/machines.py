"""The state machines of a port: Receive, Periodic Transmission, Mux and Transmit (IEEE 802.1AX-2014 6.4.12 to 6.4.16).

In: a port, the time, a received LACPDU. Out: the port's variables; ad_tx_machine() says whether to send.
The one rule: one function per machine, made of a table of transitions and a table of what is done on entry,
named as the figures name them; each runs until nothing changes, so the order of calls does not matter.

Coupled control only (figure 6-21), as the kernel had it alone until 6.9. Left out: churn detection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from guest.netpoll.bonding.lacpdu import (
    ACTIVITY,
    AGGREGATION,
    COLLECTING,
    DEFAULTED,
    DISTRIBUTING,
    EXPIRED,
    SYNCHRONIZATION,
    TIMEOUT,
    Information,
    Lacpdu,
)
from guest.netpoll.bonding.port import (
    AGGREGATE_WAIT_TIME,
    FAST_PERIODIC_TIME,
    LONG_TIMEOUT_TIME,
    PARTNER_ADMIN,
    SHORT_TIMEOUT_TIME,
    SLOW_PERIODIC_TIME,
    MuxState,
    PeriodicState,
    Port,
    RxState,
    Selected,
    expired,
)

_NTT_BITS = ACTIVITY | TIMEOUT | SYNCHRONIZATION | AGGREGATION


def begin(port: Port) -> None:
    """BEGIN: (re)initialize all machines, as at power on or when speed or duplex changed."""
    _enter_rx(port, RxState.INITIALIZE, 0.0, None)
    _enter_rx(port, RxState.PORT_DISABLED, 0.0, None)
    _enter_periodic(port, PeriodicState.NO_PERIODIC, 0.0)
    _enter_mux(port, MuxState.DETACHED, 0.0)
    port.ntt = False


# Receive machine (figure 6-18)


def ad_rx_machine(port: Port, now: float, pdu: Lacpdu | None = None) -> None:
    """Run the Receive machine: `pdu` has just come, or a timer or variable may have changed."""
    while (state := _next_rx(port, now, pdu)) is not None:
        _enter_rx(port, state, now, pdu)
        pdu = None


def _next_rx(port: Port, now: float, pdu: Lacpdu | None) -> RxState | None:
    state = port.rx_state
    if not port.enabled:
        return None if state is RxState.PORT_DISABLED else RxState.PORT_DISABLED
    if state is RxState.PORT_DISABLED:
        return RxState.EXPIRED if port.lacp_enabled else RxState.LACP_DISABLED
    if state is RxState.LACP_DISABLED:
        return None
    if pdu is not None:
        return RxState.CURRENT
    return _ON_TIMEOUT.get(state) if expired(port.current_while, now) else None


_ON_TIMEOUT = {RxState.EXPIRED: RxState.DEFAULTED, RxState.CURRENT: RxState.EXPIRED}


def _enter_rx(port: Port, state: RxState, now: float, pdu: Lacpdu | None) -> None:
    port.rx_state = state
    port.current_while = None
    if state is RxState.CURRENT:
        assert pdu is not None, "only a LACPDU leads to CURRENT"
        _rx_current(port, now, pdu)
    else:
        _RX_ENTRY[state](port, now)


def _rx_initialize(port: Port, _now: float) -> None:
    port.selected = Selected.UNSELECTED
    record_default(port)
    port.actor_state(off=EXPIRED)


def _rx_port_disabled(port: Port, _now: float) -> None:
    port.matched = False
    port.partner_state(off=SYNCHRONIZATION)


def _rx_expired(port: Port, now: float) -> None:
    port.matched = False
    port.partner_state(off=SYNCHRONIZATION, on=TIMEOUT)
    port.current_while = now + SHORT_TIMEOUT_TIME
    port.actor_state(on=EXPIRED)


def _rx_lacp_disabled(port: Port, _now: float) -> None:
    port.selected = Selected.UNSELECTED
    record_default(port)
    port.partner_state(off=AGGREGATION)
    port.matched = True
    port.actor_state(off=EXPIRED)


def _rx_defaulted(port: Port, _now: float) -> None:
    update_selected(port, PARTNER_ADMIN)
    record_default(port)
    port.matched = True
    port.actor_state(off=EXPIRED)


def _rx_current(port: Port, now: float, pdu: Lacpdu) -> None:
    update_selected(port, pdu.actor)
    update_ntt(port, pdu)
    record_pdu(port, pdu)
    port.current_while = now + (SHORT_TIMEOUT_TIME if port.has(TIMEOUT) else LONG_TIMEOUT_TIME)
    port.actor_state(off=EXPIRED)


_RX_ENTRY: dict[RxState, Callable[[Port, float], None]] = {
    RxState.INITIALIZE: _rx_initialize,
    RxState.PORT_DISABLED: _rx_port_disabled,
    RxState.EXPIRED: _rx_expired,
    RxState.LACP_DISABLED: _rx_lacp_disabled,
    RxState.DEFAULTED: _rx_defaulted,
}


# Functions of 6.4.9


def _identity(side: Information) -> Information:
    """Everything that must not change while a port stays selected: all but the state, of it AGGREGATION."""
    return replace(side, state=side.state & AGGREGATION)


def update_selected(port: Port, partner: Information) -> None:
    """update_Selected, update_Default_Selected: another partner than before unselects the port."""
    if _identity(partner) != _identity(port.partner):
        port.selected = Selected.UNSELECTED


def update_ntt(port: Port, pdu: Lacpdu) -> None:
    """update_NTT: the partner has a wrong idea of us."""
    seen, ours = pdu.partner, port.actor
    if replace(seen, state=seen.state & _NTT_BITS) != replace(ours, state=ours.state & _NTT_BITS):
        port.ntt = True


def record_pdu(port: Port, pdu: Lacpdu) -> None:
    """recordPDU: the sender is our partner; in sync if it also means us, and LACP is kept up."""
    individual = not pdu.actor.state & AGGREGATION
    port.matched = individual or _identity(pdu.partner) == _identity(port.actor)
    kept_up = pdu.actor.state & ACTIVITY or (port.has(ACTIVITY) and pdu.partner.state & ACTIVITY)
    port.partner = pdu.actor
    if not (port.matched and kept_up):
        port.partner_state(off=SYNCHRONIZATION)
    port.actor_state(off=DEFAULTED)


def record_default(port: Port) -> None:
    """recordDefault: nobody is there; the administrative values stand in.

    Not in sync, as in bond_3ad.c: a port without a partner carries frames by Port.usable instead.
    """
    port.partner = PARTNER_ADMIN
    port.actor_state(on=DEFAULTED)


# Periodic Transmission machine (figure 6-19)


def ad_periodic_machine(port: Port, now: float) -> None:
    """Run the Periodic Transmission machine: sets NTT at the pace that the partner asks for."""
    while (state := _next_periodic(port, now)) is not None:
        _enter_periodic(port, state, now)


def _next_periodic(port: Port, now: float) -> PeriodicState | None:
    state = port.periodic_state
    active = port.has(ACTIVITY) or port.partner_has(ACTIVITY)
    if not (port.enabled and port.lacp_enabled and active):
        return None if state is PeriodicState.NO_PERIODIC else PeriodicState.NO_PERIODIC
    short = port.partner_has(TIMEOUT)
    if state is PeriodicState.NO_PERIODIC:
        return PeriodicState.FAST_PERIODIC
    if state is PeriodicState.PERIODIC_TX:
        return PeriodicState.FAST_PERIODIC if short else PeriodicState.SLOW_PERIODIC
    if expired(port.periodic_timer, now):
        return PeriodicState.PERIODIC_TX
    if state is PeriodicState.FAST_PERIODIC:
        return None if short else PeriodicState.SLOW_PERIODIC
    return PeriodicState.PERIODIC_TX if short else None


_PERIOD = {PeriodicState.FAST_PERIODIC: FAST_PERIODIC_TIME, PeriodicState.SLOW_PERIODIC: SLOW_PERIODIC_TIME}


def _enter_periodic(port: Port, state: PeriodicState, now: float) -> None:
    port.periodic_state = state
    period = _PERIOD.get(state)
    port.periodic_timer = None if period is None else now + period
    if state is PeriodicState.PERIODIC_TX:
        port.ntt = True


# Mux machine (figure 6-21)


def ad_mux_machine(port: Port, now: float) -> None:
    """Run the Mux machine: attach to the aggregator, then collect and distribute when both ends agree."""
    while (state := _next_mux(port, now)) is not None:
        _enter_mux(port, state, now)


def _next_mux(port: Port, now: float) -> MuxState | None:
    selected = port.selected is Selected.SELECTED
    state = port.mux_state
    if state is MuxState.DETACHED:
        return None if port.selected is Selected.UNSELECTED else MuxState.WAITING
    if state is MuxState.WAITING:
        return _next_waiting(port, now)
    partner_sync = port.partner_has(SYNCHRONIZATION)
    if state is MuxState.ATTACHED:
        if not selected:
            return MuxState.DETACHED
        return MuxState.COLLECTING_DISTRIBUTING if partner_sync else None
    return None if selected and partner_sync else MuxState.ATTACHED


def _next_waiting(port: Port, now: float) -> MuxState | None:
    """WAITING: until wait_while has run out for every port that waits for the same aggregator."""
    if port.selected is Selected.UNSELECTED:
        return MuxState.DETACHED
    if expired(port.wait_while, now):
        port.wait_while = None
        port.ready_n = True
    return MuxState.ATTACHED if port.selected is Selected.SELECTED and _ready(port) else None


def _ready(port: Port) -> bool:
    """Ready: every port that waits for this aggregator, and has a link, is Ready_N."""
    if port.aggregator is None or not port.ready_n:
        return False
    waiting = [other for other in port.aggregator.ports if other.mux_state is MuxState.WAITING]
    return all(other.ready_n for other in waiting if other.enabled)


def _enter_mux(port: Port, state: MuxState, now: float) -> None:
    port.mux_state = state
    on, off, ntt = _MUX_ENTRY[state]
    port.actor_state(on=on, off=off)
    port.ntt = port.ntt or ntt
    port.ready_n = False
    port.wait_while = now + AGGREGATE_WAIT_TIME if state is MuxState.WAITING else None


_FLOWING = COLLECTING | DISTRIBUTING
_MUX_ENTRY: dict[MuxState, tuple[int, int, bool]] = {  # bits set, bits cleared, need to transmit
    MuxState.DETACHED: (0, SYNCHRONIZATION | _FLOWING, True),
    MuxState.WAITING: (0, 0, False),
    MuxState.ATTACHED: (SYNCHRONIZATION, _FLOWING, True),
    MuxState.COLLECTING_DISTRIBUTING: (_FLOWING, 0, True),
}


# Transmit machine (6.4.16)


def ad_tx_machine(port: Port, now: float) -> bool:
    """True if a LACPDU is to be sent now: one is needed, and fewer than MAX_TX went in the last second.

    With the Periodic machine in NO_PERIODIC nothing is sent and NTT is forgotten (6.4.16): two passive ends keep silent.
    """
    port.ntt = port.ntt and port.periodic_state is not PeriodicState.NO_PERIODIC
    allowed_at = port.tx_allowed_at()
    if allowed_at is None or now < allowed_at:
        return False
    port.tx_times.append(now)
    port.ntt = False
    return True
