"""The state machines of a port, transition by transition, against the figures of IEEE 802.1AX-2014."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from guest.netpoll.bonding import machines
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
    PARTNER_ADMIN,
    Aggregator,
    MuxState,
    PeriodicState,
    Port,
    RxState,
    Selected,
    port_key,
)

NOW = 500.0
KEY = port_key(0, 1000, True)
US = Information(0xFFFF, bytes.fromhex("020000000001"), KEY, 0xFF, 1, ACTIVITY | AGGREGATION)
THEM = Information(0xFFFF, bytes.fromhex("020000000002"), KEY, 0xFF, 7, ACTIVITY | AGGREGATION)


def make(rx: RxState = RxState.CURRENT, *, enabled: bool = True, key: int = KEY) -> Port:
    port = Port(replace(US, key=key), bytes(6), 1000, enabled=enabled)
    machines.begin(port)
    port.rx_state = rx
    if rx is RxState.CURRENT:
        port.partner, port.selected = THEM, Selected.SELECTED
        port.actor_state(off=DEFAULTED)
    return port


def pdu(**changes: Any) -> Lacpdu:
    return Lacpdu(replace(THEM, **changes), US)


RX = [  # state, enabled, duplex, LACPDU?, timer ran out? -> state
    (RxState.PORT_DISABLED, False, True, False, False, RxState.PORT_DISABLED),
    (RxState.PORT_DISABLED, True, True, False, False, RxState.EXPIRED),
    (RxState.PORT_DISABLED, True, False, False, False, RxState.LACP_DISABLED),
    (RxState.PORT_DISABLED, False, True, True, False, RxState.PORT_DISABLED),
    (RxState.LACP_DISABLED, True, False, True, False, RxState.LACP_DISABLED),
    (RxState.LACP_DISABLED, False, False, False, False, RxState.PORT_DISABLED),
    (RxState.EXPIRED, True, True, False, False, RxState.EXPIRED),
    (RxState.EXPIRED, True, True, True, False, RxState.CURRENT),
    (RxState.EXPIRED, True, True, False, True, RxState.DEFAULTED),
    (RxState.EXPIRED, False, True, True, False, RxState.PORT_DISABLED),
    (RxState.DEFAULTED, True, True, False, False, RxState.DEFAULTED),
    (RxState.DEFAULTED, True, True, True, False, RxState.CURRENT),
    (RxState.CURRENT, True, True, False, False, RxState.CURRENT),
    (RxState.CURRENT, True, True, True, True, RxState.CURRENT),
    (RxState.CURRENT, True, True, False, True, RxState.EXPIRED),
    (RxState.CURRENT, False, True, False, False, RxState.PORT_DISABLED),
]


@pytest.mark.parametrize(("state", "enabled", "duplex", "has_pdu", "late", "expected"), RX)
def test_receive_machine(
    state: RxState, enabled: bool, duplex: bool, has_pdu: bool, late: bool, expected: RxState
) -> None:
    port = make(state, enabled=enabled, key=KEY if duplex else KEY & ~1)
    port.current_while = NOW - 1 if late else None
    machines.ad_rx_machine(port, NOW, pdu() if has_pdu else None)
    assert port.rx_state is expected


def test_current_starts_the_timeout_that_the_actor_asked_for() -> None:
    port = make()
    machines.ad_rx_machine(port, NOW, pdu())
    assert port.current_while == NOW + 90
    port.actor_state(on=TIMEOUT)
    machines.ad_rx_machine(port, NOW, pdu())
    assert port.current_while == NOW + 3


def test_expired_asks_for_fast_answers_and_gives_up_after_three_seconds() -> None:
    port = make()
    port.partner_state(on=SYNCHRONIZATION)
    port.current_while = NOW
    machines.ad_rx_machine(port, NOW)
    assert port.has(EXPIRED)
    assert port.partner_has(TIMEOUT)
    assert not port.partner_has(SYNCHRONIZATION)
    machines.ad_rx_machine(port, NOW + 3)
    assert port.rx_state is RxState.DEFAULTED
    assert port.partner == PARTNER_ADMIN
    assert port.has(DEFAULTED)
    assert not port.has(EXPIRED)
    assert port.selected is Selected.UNSELECTED


def test_port_disabled_keeps_the_partner_for_when_the_cable_comes_back() -> None:
    port = make()
    port.enabled = False
    machines.ad_rx_machine(port, NOW)
    assert port.partner == THEM
    assert port.selected is Selected.SELECTED


SELECTED_BY: list[tuple[dict[str, Any], bool]] = [  # what changed in the partner's actor information, still selected?
    ({}, True),
    ({"state": ACTIVITY | AGGREGATION | SYNCHRONIZATION | COLLECTING}, True),
    ({"state": ACTIVITY}, False),
    ({"key": 1}, False),
    ({"port": 8}, False),
    ({"port_priority": 1}, False),
    ({"system_priority": 1}, False),
    ({"system": bytes.fromhex("020000000003")}, False),
]


@pytest.mark.parametrize(("changes", "kept"), SELECTED_BY, ids=[str(row[0]) for row in SELECTED_BY])
def test_update_selected(changes: dict[str, Any], kept: bool) -> None:
    port = make()
    machines.ad_rx_machine(port, NOW, pdu(**changes))
    assert (port.selected is Selected.SELECTED) is kept


NTT_BY: list[tuple[dict[str, Any], bool]] = [  # what the partner believes of us wrongly, need to transmit?
    ({}, False),
    ({"state": US.state | COLLECTING | DISTRIBUTING | DEFAULTED | EXPIRED}, False),
    ({"state": US.state | SYNCHRONIZATION}, True),
    ({"state": US.state | TIMEOUT}, True),
    ({"state": AGGREGATION}, True),
    ({"state": ACTIVITY}, True),
    ({"key": 3}, True),
    ({"port": 2}, True),
    ({"system": bytes(6)}, True),
]


@pytest.mark.parametrize(("belief", "ntt"), NTT_BY, ids=[str(row[0]) for row in NTT_BY])
def test_update_ntt(belief: dict[str, Any], ntt: bool) -> None:
    port = make()
    machines.ad_rx_machine(port, NOW, Lacpdu(THEM, replace(US, **belief)))
    assert port.ntt is ntt


IN_SYNC = ACTIVITY | AGGREGATION | SYNCHRONIZATION
RECORDED: list[
    tuple[int, dict[str, Any], bool]
] = [  # partner's state, what it believes of us -> partner recorded as in sync?
    (IN_SYNC, {}, True),
    (IN_SYNC & ~SYNCHRONIZATION, {}, False),
    (IN_SYNC, {"port": 2}, False),
    (IN_SYNC, {"key": 1}, False),
    (IN_SYNC & ~AGGREGATION, {"port": 2}, True),  # an individual link need not match
    (IN_SYNC & ~ACTIVITY, {}, True),  # passive, but we are active and it knows
    (IN_SYNC & ~ACTIVITY, {"state": AGGREGATION}, False),  # nobody keeps LACP up
]


@pytest.mark.parametrize(("state", "belief", "sync"), RECORDED)
def test_record_pdu(state: int, belief: dict[str, Any], sync: bool) -> None:
    port = make()
    machines.ad_rx_machine(port, NOW, Lacpdu(replace(THEM, state=state), replace(US, **belief)))
    assert port.partner_has(SYNCHRONIZATION) is sync
    assert not port.has(DEFAULTED)


NO, FAST, SLOW = PeriodicState.NO_PERIODIC, PeriodicState.FAST_PERIODIC, PeriodicState.SLOW_PERIODIC
PERIODIC = [  # state, partner short?, timer ran out? -> state, need to transmit?
    (NO, True, False, FAST, False),
    (NO, False, False, SLOW, False),
    (FAST, True, False, FAST, False),
    (FAST, True, True, FAST, True),
    (FAST, False, False, SLOW, False),
    (SLOW, False, False, SLOW, False),
    (SLOW, False, True, SLOW, True),
    (SLOW, True, False, FAST, True),
]


@pytest.mark.parametrize(("state", "short", "late", "expected", "ntt"), PERIODIC)
def test_periodic_machine(state: PeriodicState, short: bool, late: bool, expected: PeriodicState, ntt: bool) -> None:
    port = make()
    port.periodic_state, port.periodic_timer = state, NOW if late else NOW + 0.5
    port.partner_state(on=TIMEOUT if short else 0)
    machines.ad_periodic_machine(port, NOW)
    assert (port.periodic_state, port.ntt) == (expected, ntt)


def both_passive(port: Port) -> None:
    port.actor_state(off=ACTIVITY)
    port.partner_state(off=ACTIVITY)


SILENCERS: list[tuple[str, Callable[[Port], object]]] = [
    ("no link", lambda port: setattr(port, "enabled", False)),
    ("half duplex", lambda port: setattr(port, "actor", replace(port.actor, key=KEY & ~1))),
    ("both passive", both_passive),
]


@pytest.mark.parametrize("silence", [row[1] for row in SILENCERS], ids=[row[0] for row in SILENCERS])
def test_no_periodic(silence: Callable[[Port], object]) -> None:
    port = make()
    port.periodic_state, port.periodic_timer = FAST, NOW
    silence(port)
    machines.ad_periodic_machine(port, NOW)
    assert port.periodic_timer is None
    assert (port.periodic_state, port.ntt) == (NO, False)


DETACHED, WAITING, ATTACHED = MuxState.DETACHED, MuxState.WAITING, MuxState.ATTACHED
FLOWING = MuxState.COLLECTING_DISTRIBUTING
YES, STANDBY, UNSELECTED = Selected.SELECTED, Selected.STANDBY, Selected.UNSELECTED
MUX = [  # state, selected, wait_while ran out?, partner in sync? -> state
    (DETACHED, UNSELECTED, False, False, DETACHED),
    (DETACHED, YES, False, False, WAITING),
    (DETACHED, STANDBY, False, False, WAITING),
    (WAITING, YES, False, True, WAITING),
    (WAITING, YES, True, False, ATTACHED),
    (WAITING, YES, True, True, FLOWING),
    (WAITING, STANDBY, True, True, WAITING),
    (WAITING, UNSELECTED, True, True, DETACHED),
    (ATTACHED, YES, False, False, ATTACHED),
    (ATTACHED, YES, False, True, FLOWING),
    (ATTACHED, STANDBY, False, True, WAITING),
    (ATTACHED, UNSELECTED, False, True, DETACHED),
    (FLOWING, YES, False, True, FLOWING),
    (FLOWING, YES, False, False, ATTACHED),
    (FLOWING, STANDBY, False, True, WAITING),
    (FLOWING, UNSELECTED, False, True, DETACHED),
]


@pytest.mark.parametrize(("state", "selected", "late", "sync", "expected"), MUX)
def test_mux_machine(state: MuxState, selected: Selected, late: bool, sync: bool, expected: MuxState) -> None:
    port = make()
    port.aggregator = Aggregator(1, [port])
    port.mux_state, port.selected = state, selected
    port.wait_while = NOW - 0.1 if late else NOW + 1
    port.partner_state(on=SYNCHRONIZATION if sync else 0)
    machines.ad_mux_machine(port, NOW)
    assert port.mux_state is expected


def test_mux_bits_on_the_way_up_and_down() -> None:
    port = make()
    port.aggregator = Aggregator(1, [port])
    shown = SYNCHRONIZATION | COLLECTING | DISTRIBUTING
    machines.ad_mux_machine(port, NOW)
    assert (port.mux_state, port.actor.state & shown, port.ntt) == (WAITING, 0, False)
    machines.ad_mux_machine(port, NOW + 2)
    assert (port.mux_state, port.actor.state & shown, port.ntt) == (ATTACHED, SYNCHRONIZATION, True)
    port.partner_state(on=SYNCHRONIZATION)
    machines.ad_mux_machine(port, NOW + 2)
    assert (port.mux_state, port.actor.state & shown) == (FLOWING, shown)
    port.ntt = False
    port.partner_state(off=SYNCHRONIZATION)
    machines.ad_mux_machine(port, NOW + 3)
    assert (port.mux_state, port.actor.state & shown, port.ntt) == (ATTACHED, SYNCHRONIZATION, True)
    port.selected = Selected.UNSELECTED
    machines.ad_mux_machine(port, NOW + 3)
    assert (port.mux_state, port.actor.state & shown) == (DETACHED, 0)


def test_ports_of_one_aggregator_attach_together() -> None:
    first, second = make(), make()
    aggregator = Aggregator(1, [first, second])
    first.aggregator = second.aggregator = aggregator
    machines.ad_mux_machine(first, NOW)
    machines.ad_mux_machine(second, NOW + 1.5)
    machines.ad_mux_machine(first, NOW + 2)
    assert first.mux_state is WAITING, "second has waited for half a second only"
    machines.ad_mux_machine(second, NOW + 3.5)
    machines.ad_mux_machine(first, NOW + 3.5)
    assert (first.mux_state, second.mux_state) == (ATTACHED, ATTACHED)


def test_a_port_without_a_link_holds_up_nobody() -> None:
    first, second = make(), make(enabled=False)
    first.aggregator = second.aggregator = Aggregator(1, [first, second])
    machines.ad_mux_machine(second, NOW + 1.9)
    machines.ad_mux_machine(first, NOW)
    machines.ad_mux_machine(first, NOW + 2)
    assert first.mux_state is ATTACHED


def test_at_most_three_lacpdus_in_a_second() -> None:
    port = make()
    sent = []
    port.periodic_state = FAST
    for tick in range(40):
        port.ntt = True
        if machines.ad_tx_machine(port, NOW + tick / 10):
            sent.append(tick)
    assert sent == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]
    port.ntt = True
    assert port.tx_allowed_at() == NOW + 4.0


@pytest.mark.parametrize("silence", [row[1] for row in SILENCERS], ids=[row[0] for row in SILENCERS])
def test_without_periodic_transmission_nothing_is_sent(silence: Callable[[Port], object]) -> None:
    port = make()
    machines.ad_periodic_machine(port, NOW)
    port.ntt = True
    silence(port)
    machines.ad_periodic_machine(port, NOW)
    assert not machines.ad_tx_machine(port, NOW)
    assert not port.ntt


@pytest.mark.parametrize(
    ("user", "speed", "duplex", "key"),
    [(0, 1000, True, 9), (0, 1000, False, 8), (0, 0, True, 1), (1, 100, True, 64 + 7), (1023, 10, True, 0xFFC5)],
)
def test_port_key_as_linux_makes_it(user: int, speed: int, duplex: bool, key: int) -> None:
    assert port_key(user, speed, duplex) == key
