"""The bonding device: how slaves come and go, what they lend it (address, MTU, carrier), and what it refuses."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from guest.netpoll.bonding import Bond, BondParams, LacpRate, Mode, bond_create, proc_info
from guest.netpoll.bonding.queue_xmit import dev_hard_start_xmit
from guest.netpoll.context import Context
from guest.netpoll.drivers.loopback import LoopbackDevice
from guest.netpoll.netdevice import (
    IFF_MASTER,
    IFF_SLAVE,
    Net,
    NetdevError,
    NetdevEvent,
    NetDevice,
    dev_close,
    dev_open,
    netif_device_detach,
    register_netdev,
    unregister_netdev,
)
from guest.netpoll.send import netpoll_send_udp
from guest.netpoll.skbuff import SkBuff
from guest.tests.bonding_bench import Bench

FIRST = bytes.fromhex("020000000100")
SECOND = bytes.fromhex("020000000101")


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_the_bond_takes_the_first_slaves_address(mode: Mode) -> None:
    bench = Bench()
    bond = bench.bond(mode=mode)
    assert bond.dev_addr == FIRST
    own = mode in (Mode.TLB, Mode.ALB)  # there a slave sends from its own address
    assert [slave.hwaddr for slave in bond.slaves] == [FIRST, SECOND if own else FIRST]
    assert bench.l[1].dev_addr == (SECOND if mode is Mode.ALB else FIRST)


def test_a_given_address_goes_to_all_slaves() -> None:
    bench = Bench()
    given = bytes.fromhex("0200000000aa")
    bond = bench.bond(mode=Mode.ACTIVEBACKUP, dev_addr=given)
    assert {bond.dev_addr, bench.l[0].dev_addr, bench.l[1].dev_addr} == {given}


def test_slaves_are_marked_and_up_and_give_the_bond_its_carrier() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.XOR)
    assert bond.flags & IFF_MASTER
    assert all(dev.master is bond and dev.flags & IFF_SLAVE and dev.running for dev in bench.l)
    assert bond.carrier
    assert not bond.xoff


def test_a_bond_without_slaves_has_no_carrier_and_takes_no_frame() -> None:
    net = Net()
    bond = bond_create(net, "bond0", "balance-rr")
    assert (bond.running, bond.carrier, bond.xoff) == (True, False, True)
    assert bond.operstate == "down"


def test_release_restores_the_device() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP)
    bond.release(bench.l[1])
    dev = bench.l[1]
    assert (dev.master, dev.flags & IFF_SLAVE, dev.running, dev.dev_addr) == (None, 0, False, SECOND)
    assert [slave.dev for slave in bond.slaves] == [bench.l[0]]


def test_releasing_the_active_slave_hands_over_and_the_last_takes_the_carrier_along() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP)
    bond.release(bench.l[0])
    assert bond.curr_active_slave is bond.slaves[0]
    assert bond.carrier
    bond.release(bench.l[1])
    assert not bond.slaves
    assert not bond.curr_active_slave
    assert not bond.carrier


def test_a_slave_can_come_back() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.AD)
    bond.release(bench.l[0])
    slave = bond.enslave(bench.l[0])
    assert [other.number for other in bond.slaves] == [2, 3]
    assert bond.by_dev[bench.l[0]] is slave


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_a_slave_that_vanishes_is_let_go_of(mode: Mode) -> None:
    bench = Bench()
    bond = bench.bond(mode=mode)
    netif_device_detach(bench.l[0])
    bench.settle()
    assert [slave.dev for slave in bond.slaves] == [bench.l[1]]
    assert bond.carrier
    bench.run(5)
    unregister_netdev(bench.l[1])
    assert not bond.carrier


def test_unregistering_the_bond_frees_its_slaves_and_its_place_in_the_chain() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.AD)
    unregister_netdev(bond)
    assert all(dev.master is None and not dev.running for dev in bench.l)
    assert "bond0" not in bench.left.devices
    bench.run(2)
    again = bench.bond(mode=Mode.AD)
    assert again.carrier


class Refuser(LoopbackDevice):
    """A device whose hardware keeps its address."""

    def set_mac_address(self, addr: bytes) -> None:
        raise NetdevError(errno.EOPNOTSUPP, f"{self.name}: {addr.hex()} refused")


class Taker(LoopbackDevice):
    """A device whose hardware takes another address."""

    hardware_addr = b""

    def set_mac_address(self, addr: bytes) -> None:
        self.hardware_addr = addr


def test_hardware_is_told_the_address() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.XOR)
    dev = Taker(bench.left, "taker", SECOND, bench.l[0].cable)
    bond.enslave(dev)
    assert dev.hardware_addr == dev.dev_addr == FIRST


def test_a_slave_that_refuses_the_address_is_not_taken() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.XOR)
    dev = Refuser(bench.left, "refuser", SECOND, bench.l[0].cable)
    with pytest.raises(NetdevError, match="refused"):
        bond.enslave(dev)
    assert (dev.running, dev.master, len(bond.slaves)) == (False, None, 2)


def not_ethernet(bench: Bench, _bond: Bond) -> NetDevice:
    dev = LoopbackDevice(bench.left, "ib0", SECOND, bench.l[0].cable)
    dev.type = 32
    return dev


def vanished(bench: Bench, _bond: Bond) -> NetDevice:
    dev = LoopbackDevice(bench.left, "gone", SECOND, bench.l[0].cable)
    dev.present = False
    return dev


REFUSED: list[tuple[str, Callable[[Bench, Bond], NetDevice], int, str]] = [
    ("slave already", lambda bench, _: bench.l[0], errno.EBUSY, "is a slave of bond0 already"),
    ("itself", lambda _, bond: bond, errno.EPERM, "is a bond itself"),
    ("another bond", lambda bench, _: Bond(bench.left, "bond1"), errno.EPERM, "is a bond itself"),
    ("another Net", lambda bench, _: bench.r[0], errno.EXDEV, "another Net"),
    ("no Ethernet", not_ethernet, errno.EINVAL, "no Ethernet device"),
    ("vanished", vanished, errno.ENODEV, "is gone"),
]


@pytest.mark.parametrize(("make", "code", "why"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_enslaved(make: Callable[[Bench, Bond], NetDevice], code: int, why: str) -> None:
    bench = Bench()
    bond = bench.bond()
    dev = make(bench, bond)
    with pytest.raises(NetdevError, match=why) as caught:
        bond.enslave(dev)
    assert caught.value.errno == code
    assert len(bond.slaves) == 2


def test_the_first_slave_gives_an_open_bond_its_carrier() -> None:
    bench = Bench()
    bond = bond_create(bench.left, "bond0", "balance-rr")
    assert (bond.carrier, bond.xoff) == (False, True)
    bond.enslave(bench.l[0])
    assert (bond.carrier, bond.xoff) == (True, False)


def test_releasing_what_is_no_slave() -> None:
    bench = Bench()
    bond = bench.bond()
    with pytest.raises(NetdevError, match="r0 is no slave of this bond"):
        bond.release(bench.r[0])


def test_a_failed_creation_leaves_nothing_behind() -> None:
    bench = Bench()
    with pytest.raises(NetdevError):
        bond_create(bench.left, "bond0", "balance-rr", [bench.l[0], bench.r[0]])
    assert "bond0" not in bench.left.devices
    assert (bench.l[0].master, bench.l[0].running) == (None, False)
    assert not bench.left.netdev_chain


def test_mtu_is_the_smallest_of_the_slaves_and_follows_them() -> None:
    bench = Bench()
    bench.l[1].mtu = 1400
    bond = bench.bond()
    assert bond.mtu == 1400
    bench.l[0].mtu = 1000
    bench.left.call_netdevice_notifiers(NetdevEvent.CHANGEMTU, bench.l[0])
    assert bond.mtu == 1000


def test_closing_and_opening_the_bond_stops_and_starts_its_monitors() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.ACTIVEBACKUP)
    dev_close(bond)
    assert bond.next_deadline() is None
    bench.cut(0)
    bench.run(1)
    assert bond.slaves[0].link.value == "up", "nobody looked"
    dev_open(bond)
    bench.run(0.2)
    assert bond.slaves[0].link.value == "down"
    assert bond.curr_active_slave is bond.slaves[1]


def test_a_closed_bond_receives_nothing() -> None:
    bench = Bench()
    left, right = bench.bond(mode=Mode.XOR), bench.bond(False, mode=Mode.XOR)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    dev_close(right)
    netpoll_send_udp(client, b"lost")
    bench.settle()
    dev_open(right)
    netpoll_send_udp(client, b"heard")
    bench.settle()
    assert got == [b"heard"]


def test_min_links_of_802_3ad() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.AD, min_links=2)
    other = bench.bond(False, mode=Mode.AD)
    bench.run(4)
    assert bond.carrier
    bench.cut(1)
    bench.run(1)
    assert not bond.carrier
    assert other.carrier, "there one link is enough"


def test_frames_to_the_bonds_address_are_its_own_whatever_the_slaves_hardware_calls_itself() -> None:
    bench = Bench()
    left, right = bench.bond(mode=Mode.XOR), bench.bond(False, mode=Mode.XOR)
    got: list[bytes] = []
    client = bench.client(left, right)
    bench.client(right, left, got)
    for dev in bench.r:
        dev.dev_addr = bytes.fromhex("0200000000ee")  # the driver read its address again
    assert netpoll_send_udp(client, b"text") == 0
    bench.settle()
    assert got == [b"text"]


def test_lacp_keeps_its_own_time_under_a_slow_link_monitor() -> None:
    bench = Bench()
    bonds = bench.bond(mode=Mode.AD, miimon=600_000), bench.bond(False, mode=Mode.AD, miimon=600_000)
    bench.run(4)
    assert [len(bond.usable_slaves) for bond in bonds] == [2, 2]


def test_lacp_starts_at_once_on_a_slave_of_an_open_bond() -> None:
    bench = Bench(1)
    left, right = (
        bond_create(net, "bond0", BondParams(mode=Mode.AD, miimon=600_000)) for net in (bench.left, bench.right)
    )
    bench.settle()
    left.enslave(bench.l[0])
    right.enslave(bench.r[0])
    bench.run(4)
    assert left.ad is not None
    assert left.ad.active is not None
    assert left.ad.active.has_partner


def test_a_lacpdu_that_found_no_room_is_sent_later() -> None:
    bench = Bench(1, tx_ring=8)
    left = bench.bond(mode=Mode.AD)
    heard: list[bytes] = []
    dev_open(bench.r[0])
    bench.right.ptype_all.append(lambda skb: heard.append(bytes(skb.data[12:14])))
    bench.l[0].cable.set_hold(True)
    while not bench.l[0].xoff:
        dev_hard_start_xmit(bench.l[0], SkBuff(bytes(60), bench.l[0]))
    bench.run_until(lambda: left.stats["control_dropped"] == 3, 3)
    bench.l[0].cable.set_hold(False)
    bench.run_until(lambda: b"\x88\x09" in heard, 1.1)


def test_a_port_that_lost_its_partner_no_longer_receives() -> None:
    bench = Bench()
    left = bench.bond(mode=Mode.AD, lacp_rate=LacpRate.FAST)
    right = bench.bond(False, mode=Mode.AD)
    bench.run(4)
    got: list[bytes] = []
    bench.left.ptype_all.append(lambda skb: got.append(bytes(skb.data)))
    frame = left.dev_addr + right.dev_addr + bytes.fromhex("88b5") + bytes(46)
    bench.l[1].hardware_receive(frame)
    bench.settle()
    assert got == [frame]
    dev_close(right)
    bench.run(3.5)
    bench.l[1].hardware_receive(frame)
    bench.settle()
    assert got == [frame]
    assert left.stats["rx_inactive"] == 1


def test_proc_info_tells_mode_links_and_partner() -> None:
    bench = Bench()
    bond = bench.bond(mode=Mode.AD)
    bench.bond(False, mode=Mode.AD)
    bench.run(4)
    bench.cut(1)
    bench.run(0.3)
    text = proc_info(bond)
    for line in (
        "Bonding Mode: 802.3ad",
        "MII Status: up",
        "Min links: 0",
        "Number of ports: 1",
        "Partner Mac Address: 02:00:00:00:02:00",
        "Slave Interface: l1",
        "Link Failure Count: 1",
        "    port state: 61 (activity+aggregation+synchronization+collecting+distributing)",
    ):
        assert line in text.splitlines()


def test_proc_info_of_an_empty_bond() -> None:
    net = Net(Context())
    bond = Bond(net, "bond7", BondParams(mode=Mode.ACTIVEBACKUP, primary="eth0"))
    register_netdev(bond)
    assert "Currently Active Slave: None" in proc_info(bond)
