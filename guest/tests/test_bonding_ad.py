"""802.3ad as a system: two of ours over links that pass octets, then selection, recovery, farewell and hostile partners."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest.netpoll.bonding import lacpdu
from guest.netpoll.bonding.ad import AdSystem
from guest.netpoll.bonding.lacpdu import AGGREGATION, SYNCHRONIZATION, Lacpdu, Marker
from guest.netpoll.bonding.params import AdSelect, BondParams, LacpRate, Mode
from guest.netpoll.bonding.port import MuxState, Port, RxState

FLOWING = MuxState.COLLECTING_DISTRIBUTING
A, B = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")


def params(**options: object) -> BondParams:
    return BondParams(mode=Mode.AD, **options)  # type: ignore[arg-type]  # tests name options that exist


class Links:
    """Systems whose ports are joined by number through `wiring`: (system, port) -> (system, port)."""

    def __init__(self, *systems: AdSystem) -> None:
        self.now = 100.0
        self.systems = systems
        self.wiring: dict[tuple[AdSystem, int], tuple[AdSystem, int]] = {}
        self.sent: list[tuple[float, AdSystem, int]] = []

    def wire(self, a: AdSystem, port: int, b: AdSystem, other: int) -> None:
        self.wiring[a, port], self.wiring[b, other] = (b, other), (a, port)
        for system, number in ((a, port), (b, other)):
            self.link(system, number, True)

    def link(self, system: AdSystem, number: int, up: bool, speed: int = 1000, duplex: bool = True) -> None:
        system.handle_link_change(system.ports[number], up, speed, duplex, self.now)

    def cut(self, system: AdSystem, number: int) -> None:
        other, there = self.wiring.pop((system, number))
        del self.wiring[other, there]
        self.link(system, number, False)
        self.link(other, there, False)

    def deliver(self) -> None:
        busy = True
        while busy:
            busy = False
            for system in self.systems:
                for number, frame in system.drain():
                    busy = True
                    self.sent.append((self.now, system, number))
                    if (system, number) in self.wiring:
                        other, there = self.wiring[system, number]
                        other.rx_indication(other.ports[there], frame[14:], self.now)

    def run(self, seconds: float) -> None:
        """From deadline to deadline, as a bond's timers would."""
        end = self.now + seconds
        while self.now < end:
            self.deliver()
            due = [due for system in self.systems if (due := system.next_deadline()) is not None]
            self.now = min([end, *(max(at, self.now) for at in due)])
            for system in self.systems:
                system.settle(self.now)
            self.deliver()


def system(mac: bytes, ports: int = 2, **options: object) -> AdSystem:
    made = AdSystem(params(**options), mac)
    for number in range(1, ports + 1):
        made.bind_slave(number, mac[:5] + bytes((number,)), 1000, True)
    return made


def joined(ports: int = 2, **options: object) -> tuple[Links, AdSystem, AdSystem]:
    a, b = system(A, ports, **options), system(B, ports)
    links = Links(a, b)
    for number in range(1, ports + 1):
        links.wire(a, number, b, number)
    return links, a, b


def flowing(made: AdSystem) -> list[int]:
    return [number for number, port in made.ports.items() if port.mux_state is FLOWING]


def distributing(made: AdSystem) -> list[int]:
    return [number for number, port in made.ports.items() if port.usable]


def test_two_systems_form_one_aggregator() -> None:
    links, a, b = joined()
    links.run(3)
    for made, other in ((a, B), (b, A)):
        assert flowing(made) == distributing(made) == [1, 2]
        assert made.active is not None
        assert made.active.partner_system == other
        assert made.active.ports == [made.ports[1], made.ports[2]]
        assert all(port.rx_state is RxState.CURRENT for port in made.ports.values())


def test_nothing_flows_before_the_first_lacpdu_and_the_wait_while_time() -> None:
    links, a, b = joined()
    links.run(2.9)
    assert not flowing(a)
    assert not flowing(b)


@pytest.mark.parametrize(("rate", "interval"), [(LacpRate.SLOW, 30), (LacpRate.FAST, 1)], ids=["slow", "fast"])
def test_the_partner_is_kept_up_to_date_at_its_own_rate(rate: LacpRate, interval: int) -> None:
    links, a, b = joined(lacp_rate=rate)
    links.run(10)
    links.sent.clear()
    links.run(90)
    from_b = [at for at, who, number in links.sent if who is b and number == 1]
    assert [round(later - at) for at, later in pairwise(from_b)] == [interval] * (len(from_b) - 1)
    assert len(from_b) in (90 // interval, 90 // interval + 1)
    assert flowing(a) == [1, 2]


def test_a_passive_system_answers_an_active_one() -> None:
    a, b = system(A), system(B, lacp_active=False)
    links = Links(a, b)
    links.wire(a, 1, b, 1)
    links.wire(a, 2, b, 2)
    links.run(3)
    assert flowing(a) == flowing(b) == [1, 2]


def test_two_passive_systems_never_speak() -> None:
    a, b = system(A, lacp_active=False), system(B, lacp_active=False)
    links = Links(a, b)
    links.wire(a, 1, b, 1)
    links.run(100)
    assert not links.sent
    assert not flowing(a)


def test_a_lost_partner_expires_and_the_port_goes_on_alone() -> None:
    links, a, b = joined(lacp_rate=LacpRate.FAST)
    links.run(5)
    links.wiring.clear()  # link stays up, LACPDUs no longer arrive
    links.run(2.5)
    assert flowing(a) == [1, 2]
    links.run(1)
    assert {port.rx_state for port in a.ports.values()} == {RxState.EXPIRED}
    assert not flowing(a), "the partner is no longer taken to be in sync"
    links.run(3)
    assert {port.rx_state for port in a.ports.values()} == {RxState.DEFAULTED}
    assert len(distributing(a)) == 1, "without a partner one port serves, as in Linux"
    del b


def test_a_cut_link_leaves_the_other_flowing_and_comes_back() -> None:
    links, a, b = joined()
    links.run(3)
    links.cut(a, 1)
    links.run(1)
    assert distributing(a) == distributing(b) == [2]
    links.wire(a, 1, b, 1)
    links.run(3)
    assert distributing(a) == distributing(b) == [1, 2]


def test_a_partner_that_restarts_is_taken_anew() -> None:
    links, a, b = joined()
    links.run(3)
    fresh = system(B)
    links.systems = (a, fresh)
    links.wiring.clear()
    links.wire(a, 1, fresh, 1)
    links.wire(a, 2, fresh, 2)
    links.run(4)
    assert flowing(a) == flowing(fresh) == [1, 2]
    del b


def test_cables_to_two_partners_make_two_aggregators_of_which_one_is_active() -> None:
    a, b, c = system(A, 3), system(B, 2), system(bytes.fromhex("0200000000cc"), 1)
    links = Links(a, b, c)
    links.wire(a, 1, c, 1)
    links.wire(a, 2, b, 1)
    links.wire(a, 3, b, 2)
    links.run(5)
    groups = sorted([port.number for port in aggregator.ports] for aggregator in a.aggregators if aggregator.ports)
    assert groups == [[1], [2, 3]]
    assert sum(aggregator.is_active for aggregator in a.aggregators) == 1
    assert flowing(a) in ([1], [2, 3])
    assert [flowing(c) != [], flowing(b) != []].count(True) == 1, "the standby side is told that it is not in sync"


SELECT = [  # policy; both aggregators up, then a link of the bigger one goes -> flowing ports
    (AdSelect.STABLE, [1, 2, 3], [2, 3]),
    (AdSelect.BANDWIDTH, [1, 2, 3], [4, 5]),
    (AdSelect.COUNT, [1, 2, 3], [4, 5]),
]


@pytest.mark.parametrize(("policy", "before", "after"), SELECT, ids=[row[0].value for row in SELECT])
def test_ad_select(policy: AdSelect, before: list[int], after: list[int]) -> None:
    a, b, c = system(A, 5, ad_select=policy), system(B, 3), system(bytes.fromhex("0200000000cc"), 2)
    links = Links(a, b, c)
    for number in (1, 2, 3):
        links.wire(a, number, b, number)
    links.wire(a, 4, c, 1)
    links.wire(a, 5, c, 2)
    links.run(6)
    assert flowing(a) == before
    links.cut(a, 1)
    links.run(6)
    expected = after if policy is not AdSelect.STABLE else [2, 3]
    if policy is not AdSelect.STABLE:
        assert flowing(a) == [2, 3], "two against two: the active one stays"
        links.cut(a, 2)
        links.run(6)
    assert flowing(a) == expected


@pytest.mark.parametrize("policy", [AdSelect.BANDWIDTH, AdSelect.COUNT], ids=lambda policy: policy.value)
def test_on_equal_terms_the_active_aggregator_stays(policy: AdSelect) -> None:
    a, b, c = system(A, 4, ad_select=policy), system(B, 2), system(bytes.fromhex("0200000000cc"), 2)
    links = Links(a, b, c)
    links.wire(a, 3, b, 1)
    links.wire(a, 4, b, 2)
    links.run(4)
    assert flowing(a) == [3, 4]
    links.wire(a, 1, c, 1)
    links.wire(a, 2, c, 2)
    links.run(6)
    assert flowing(a) == [3, 4], "though the others come first"


def test_ports_of_different_speed_do_not_aggregate() -> None:
    links, a, b = joined()
    links.link(a, 2, True, speed=100)
    links.run(5)
    assert len(flowing(a)) == 1
    assert a.ports[1].aggregator is not a.ports[2].aggregator
    del b


def test_half_duplex_speaks_no_lacp_and_stays_alone() -> None:
    links, a, b = joined()
    links.link(a, 2, True, duplex=False)
    links.run(5)
    assert a.ports[2].rx_state is RxState.LACP_DISABLED
    assert flowing(a) == [1]
    assert a.ports[2].aggregator is not None
    assert a.ports[2].aggregator.is_individual
    del b


def test_a_partner_that_does_not_aggregate_gets_one_link() -> None:
    links, a, b = joined()
    for port in b.ports.values():
        port.actor_state(off=AGGREGATION)
    links.run(6)
    assert len(flowing(a)) == 1


def test_a_single_link_that_the_partner_does_not_aggregate_stays_out() -> None:
    links, a, b = joined(3)
    b.ports[2].actor_state(off=AGGREGATION)
    links.run(6)
    assert flowing(a) == [1, 3]
    assert a.ports[2].aggregator is not a.ports[1].aggregator


def test_release_tells_the_partner_and_leaves_the_rest_flowing() -> None:
    links, a, b = joined(3)
    links.run(3)
    a.unbind_slave(a.ports[1], links.now)
    (number, frame), *_ = a.drain()
    farewell = lacpdu.parse(frame[14:])
    assert isinstance(farewell, Lacpdu)
    assert number == 1
    assert not farewell.actor.state & (AGGREGATION | SYNCHRONIZATION)
    b.rx_indication(b.ports[1], frame[14:], links.now)
    del links.wiring[b, 1]
    links.run(3)
    assert distributing(a) == distributing(b) == [2, 3], "the aggregator of port 1 had all ports; they moved"
    assert len(a.aggregators) == 2


def test_own_lacpdus_come_back_over_a_loop_and_are_ignored() -> None:
    a = system(A)
    links = Links(a)
    links.wire(a, 1, a, 2)
    links.run(10)
    assert not flowing(a)
    assert a.ports[1].counts["loopback_rx"] > 0


def test_marker_is_answered_at_once() -> None:
    links, a, _ = joined()
    a.drain()
    marker = Marker(False, bytes(range(14)))
    a.rx_indication(a.ports[2], lacpdu.emit(marker), links.now)
    [(number, frame)] = a.drain()
    assert (number, lacpdu.parse(frame[14:])) == (2, replace(marker, response=True))
    a.rx_indication(a.ports[2], lacpdu.emit(replace(marker, response=True)), links.now)
    assert not a.drain()
    assert a.ports[2].counts["marker_resp_rx"] == 1


def test_a_cable_moved_to_another_port_frees_the_old_one() -> None:
    links, a, b = joined(3)
    links.cut(a, 3)
    links.run(3)
    assert flowing(a) == [1, 2]
    links.cut(a, 2)
    links.wire(a, 3, b, 2)
    links.run(4)
    assert flowing(a) == [1, 3]
    assert not any(a.ports[2].partner.system), "port_moved: begun anew"


def test_a_new_address_of_the_system_is_announced() -> None:
    links, a, b = joined()
    links.run(3)
    a.set_system(bytes.fromhex("0200000000ac"), links.now)
    links.run(4)
    assert b.active is not None
    assert b.active.partner_system == bytes.fromhex("0200000000ac")
    assert flowing(a) == flowing(b) == [1, 2]


def test_configured_system_wins_over_the_bonds_address() -> None:
    made = AdSystem(params(ad_actor_system=B, ad_actor_sys_prio=7, ad_user_port_key=3), A)
    port = made.bind_slave(1, A, 1000, True)
    made.set_system(bytes(6), 0.0)
    assert (port.actor.system, port.actor.system_priority, port.actor.key) == (B, 7, 3 << 6 | 9)


@pytest.mark.parametrize("octets", [b"", b"\1", b"\1\1" + bytes(108), b"\7" + bytes(109)], ids=len)
def test_what_is_malformed_is_counted(octets: bytes) -> None:
    links, a, _ = joined()
    a.rx_indication(a.ports[1], octets, links.now)
    assert a.ports[1].counts["illegal_rx"] == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_whatever_comes_the_machines_settle_and_keep_their_invariants(seed: int) -> None:
    """Links go up and down, LACPDUs are lost, altered and invented; afterwards a healthy partner is joined again."""
    rng = random.Random(seed)
    links, a, b = joined(3)
    for _ in range(30):
        number = rng.randint(1, 3)
        action = rng.randrange(5)
        if action == 0:
            links.link(a, number, rng.random() < 0.5, rng.choice((100, 1000)), rng.random() < 0.8)
        elif action == 1:
            a.rx_indication(a.ports[number], rng.randbytes(rng.choice((110, 124))), links.now)
        elif action == 2:
            pdu = b.ports[number].lacpdu()
            twisted = replace(pdu, actor=replace(pdu.actor, state=rng.randrange(256), key=rng.randrange(4)))
            a.rx_indication(a.ports[number], lacpdu.emit(twisted), links.now)
        elif action == 3:
            b.drain()
        links.run(rng.random() * 40)
        check(a)
    for number in (1, 2, 3):
        links.link(a, number, True)
        links.link(b, number, True)
    links.run(130)
    assert flowing(a) == flowing(b) == [1, 2, 3], f"seed {seed}"


def check(made: AdSystem) -> None:
    active = [aggregator for aggregator in made.aggregators if aggregator.is_active]
    assert len(active) <= 1
    for aggregator in made.aggregators:
        assert all(port.aggregator is aggregator for port in aggregator.ports)
        assert len({(port.actor.key, port.partner.system) for port in attached(aggregator.ports)}) <= 1
    for port in made.ports.values():
        assert port.mux_state is not FLOWING or (port.aggregator is not None and port.aggregator.is_active)
        assert not port.usable or port.enabled


def attached(ports: list[Port]) -> list[Port]:
    return [port for port in ports if port.mux_state in (MuxState.ATTACHED, FLOWING)]
