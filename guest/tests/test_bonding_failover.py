"""The link monitor and the active slave: delays look by look, who takes over, and which address moves with the role."""

from __future__ import annotations

import pytest

from guest.netpoll.bonding import Bond, BondParams, FailOverMac, Link, Mode, PrimaryReselect, bond_create
from guest.netpoll.netdevice import dev_open
from guest.netpoll.wire import arp, ethernet
from guest.tests.bonding_bench import Bench

FIRST, SECOND = bytes.fromhex("020000000100"), bytes.fromhex("020000000101")


def active(bond: Bond) -> str | None:
    return bond.curr_active_slave.dev.name if bond.curr_active_slave else None


def links(bond: Bond) -> list[str]:
    return [slave.link.value for slave in bond.slaves]


def test_failover_comes_with_the_next_look() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP)
    bench.run(0.04)
    bench.cut(0)
    assert active(bond) == "l0"
    assert bench.run_until(lambda: active(bond) == "l1", 1) <= 0.1 + 1e-6
    assert bond.slaves[0].link_failure_count == 1
    assert bond.stats["failovers"] == 2, "the first slave's election counts"
    assert bond.carrier


def test_the_state_machine_of_a_link_with_both_delays() -> None:
    """UP -> FAIL (downdelay) -> DOWN -> BACK (updelay) -> UP, one look each 100 ms."""
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, downdelay=300, updelay=200)
    bench.run(1)
    bench.cut(0)
    seen = []
    for _ in range(5):
        bench.run(0.1)
        seen.append(bond.slaves[0].link)
    assert seen == [Link.FAIL, Link.FAIL, Link.FAIL, Link.DOWN, Link.DOWN]
    bench.mend(0)
    seen = []
    for _ in range(4):
        bench.run(0.1)
        seen.append(bond.slaves[0].link)
    assert seen == [Link.BACK, Link.BACK, Link.UP, Link.UP]
    assert active(bond) == "l1", "without a primary nobody is called back"


def test_a_short_break_within_downdelay_goes_unnoticed() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, downdelay=300)
    bench.run(1)
    bench.cut(0)
    bench.run(0.2)
    assert links(bond) == ["going down", "up"]
    bench.mend(0)
    bench.run(0.1)
    assert links(bond) == ["up", "up"]
    assert (active(bond), bond.slaves[0].link_failure_count) == ("l0", 0)


def test_a_flap_during_updelay_starts_over() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, updelay=300)
    bench.run(1)
    bench.cut(0)
    bench.run(0.2)
    bench.mend(0)
    bench.run(0.1)
    assert links(bond)[0] == "going back"
    bench.cut(0)
    bench.run(0.1)
    assert links(bond)[0] == "down"


def test_updelay_is_not_waited_for_without_any_active_slave() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, updelay=60_000)
    bench.run(1)
    bench.cut(0, 1)
    bench.run(0.2)
    assert (active(bond), bond.carrier, bond.xoff) == (None, False, True)
    bench.mend(1)
    bench.run(0.2)
    assert (active(bond), bond.carrier, bond.xoff) == ("l1", True, False)


def test_at_first_a_slave_waits_for_updelay_unless_it_is_the_only_choice() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, updelay=500)
    assert links(bond) == ["up", "going back"]
    bench.run(0.7)
    assert links(bond) == ["up", "up"]


def test_delays_are_rounded_down_to_looks() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, downdelay=199)
    bench.run(1)
    bench.cut(0)
    bench.run(0.1)
    assert links(bond)[0] == "going down"
    bench.run(0.1)
    assert links(bond)[0] == "down"


@pytest.mark.parametrize("mode", [Mode.ROUNDROBIN, Mode.XOR, Mode.BROADCAST, Mode.AD], ids=lambda mode: mode.value)
def test_carrier_of_the_bond_is_that_of_any_slave(mode: Mode) -> None:
    bench = Bench()
    bond = bench.bond(mode=mode)
    bench.cut(0)
    bench.run(0.3)
    assert bond.carrier
    bench.cut(1)
    bench.run(0.3)
    assert (bond.carrier, bond.xoff, bond.usable_slaves) == (False, True, ())
    bench.mend(0)
    bench.run(0.3)
    assert (bond.carrier, bond.xoff) == (True, False)


def test_without_miimon_links_are_taken_to_be_up() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, miimon=0)
    bench.cut(0)
    bench.run(5)
    assert (links(bond), active(bond), bond.next_deadline()) == (["up", "up"], "l0", None)


RESELECT = [
    (PrimaryReselect.ALWAYS, 1000, "l1"),
    (PrimaryReselect.BETTER, 1000, "l0"),
    (PrimaryReselect.BETTER, 10000, "l1"),
    (PrimaryReselect.FAILURE, 10000, "l0"),
]


@pytest.mark.parametrize(("policy", "speed", "expected"), RESELECT)
def test_primary_that_comes_back(policy: PrimaryReselect, speed: int, expected: str) -> None:
    bench = Bench()
    params = BondParams(mode=Mode.ACTIVEBACKUP, primary="l1", primary_reselect=policy)
    bond = bond_create(bench.left, "bond0", params)
    bond.enslave(bench.l[0], speed=1000)
    bond.enslave(bench.l[1], speed=speed)
    assert active(bond) == "l1", "at enslaving the primary is chosen whatever the policy"
    bench.cut(1)
    bench.run(0.3)
    assert active(bond) == "l0"
    bench.mend(1)
    bench.run(0.3)
    assert active(bond) == expected


def test_primary_takes_over_under_failure_when_the_current_one_fails() -> None:
    bench = Bench(3)
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, primary="l2", primary_reselect=PrimaryReselect.FAILURE)
    bench.cut(2)
    bench.run(0.3)
    bench.mend(2)
    bench.run(0.3)
    assert active(bond) == "l0"
    bench.cut(0)
    bench.run(0.3)
    assert active(bond) == "l2", "not l1, which comes first"


MACS = [  # policy -> addresses of bond, l0, l1 before and after the failover
    (FailOverMac.NONE, (FIRST, FIRST, FIRST), (FIRST, FIRST, FIRST)),
    (FailOverMac.ACTIVE, (FIRST, FIRST, SECOND), (SECOND, FIRST, SECOND)),
    (FailOverMac.FOLLOW, (FIRST, FIRST, SECOND), (FIRST, SECOND, FIRST)),
]


@pytest.mark.parametrize(("policy", "before", "after"), MACS, ids=[row[0].value for row in MACS])
def test_addresses_at_a_failover(policy: FailOverMac, before: tuple[bytes, ...], after: tuple[bytes, ...]) -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, fail_over_mac=policy)
    assert (bond.dev_addr, bench.l[0].dev_addr, bench.l[1].dev_addr) == before
    bench.cut(0)
    bench.run(0.3)
    assert (bond.dev_addr, bench.l[0].dev_addr, bench.l[1].dev_addr) == after


def test_neighbours_are_told_by_a_gratuitous_arp_on_the_new_slave() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP)
    got: list[tuple[str, bytes]] = []
    bench.right.ptype_all.append(lambda skb: got.append((skb.dev.name if skb.dev else "", bytes(skb.data))))
    for dev in bench.r:
        dev_open(dev)
    bench.cut(0)
    bench.run(0.3)
    [(where, frame)] = got
    packet = arp.parse(frame[14:])
    assert where == "r1"
    assert ethernet.parse(frame).dst == ethernet.BROADCAST
    assert packet == arp.Packet(arp.ARPOP_REQUEST, bond.dev_addr, b"\x0a\0\0\1", bytes(6), b"\x0a\0\0\1")


def test_inactive_slaves_receive_nothing_unless_told_to() -> None:
    for told, expected in ((False, 0), (True, 1)):
        bench = Bench()
        bond = bench.bond(mode=Mode.ACTIVEBACKUP, all_slaves_active=told)
        got: list[bytes] = []
        bench.left.ptype_all.append(lambda skb, got=got: got.append(bytes(skb.data)))  # type: ignore[misc]
        frame = bond.dev_addr + bytes.fromhex("0200000002ff88b5") + bytes(46)
        bench.l[1].hardware_receive(frame)
        bench.settle()
        assert len(got) == expected
        bench.l[0].hardware_receive(frame)
        bench.settle()
        assert len(got) == expected + 1
