"""Which slave each mode takes, frame by frame, and what is done to the frame on the way."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from guest.netpoll.bonding import Bond, Mode, XmitPolicy
from guest.netpoll.bonding.hash import bond_xmit_hash
from guest.netpoll.bonding.queue_xmit import dev_hard_start_xmit
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.netdevice import NetdevTx, dev_open
from guest.netpoll.skbuff import PACKET_HOST, PACKET_OTHERHOST, SkBuff
from guest.tests.bonding_bench import Bench

PEER = bytes.fromhex("0200000002ff")
OK, BUSY = NetdevTx.OK, NetdevTx.BUSY


class Wires(Bench):
    """A bond on the left; on the right bare devices, and `got`: what came, by cable."""

    def __init__(self, cables: int = 3, **options: Any) -> None:
        super().__init__(cables)
        self.bonded = self.bond(**options)
        self.got: list[tuple[int, bytes]] = []
        for dev in self.r:
            dev_open(dev)
        self.right.ptype_all.append(self._note)
        self.settle()
        self.got.clear()

    def _note(self, skb: SkBuff) -> None:
        assert skb.dev is not None
        if int.from_bytes(skb.data[12:14], "big") not in (0x8809, 0x9000, 0x0806):
            self.got.append((int(skb.dev.name[1:]), bytes(skb.data)))

    def send(self, frame: bytes) -> NetdevTx:
        status = dev_hard_start_xmit(self.bonded, SkBuff(frame, self.bonded, int.from_bytes(frame[12:14], "big")))
        self.settle()
        return status

    def cables(self) -> list[int]:
        """Where what was sent has come out since the last call."""
        out = [number for number, _ in self.got]
        self.got.clear()
        return out


def udp(bond: Bond, number: int = 0, destination: bytes = PEER) -> bytes:
    ends = Endpoints(bond.dev_addr, destination, IPv4Address("10.0.0.1"), IPv4Address(f"10.0.{number}.2"), 6665, 6666)
    return bytes(make_frame(ends).build(b"text"))


def test_balance_rr_takes_turns() -> None:
    wires = Wires(mode=Mode.ROUNDROBIN)
    for _ in range(6):
        wires.send(udp(wires.bonded))
    assert wires.cables() == [0, 1, 2, 0, 1, 2]


def test_balance_rr_with_packets_per_slave() -> None:
    wires = Wires(mode=Mode.ROUNDROBIN, packets_per_slave=2)
    for _ in range(8):
        wires.send(udp(wires.bonded))
    assert wires.cables() == [0, 0, 1, 1, 2, 2, 0, 0]


def test_balance_rr_gives_an_unusable_slaves_turn_to_the_next() -> None:
    wires = Wires(mode=Mode.ROUNDROBIN)
    wires.cut(1)
    for _ in range(6):
        wires.send(udp(wires.bonded))
    assert wires.cables() == [0, 2, 2, 0, 2, 2], "the carrier counts at once, before the link monitor looks"


def test_active_backup_sends_on_the_active_slave_alone() -> None:
    wires = Wires(mode=Mode.ACTIVEBACKUP)
    wires.send(udp(wires.bonded))
    wires.cut(0)
    wires.run(0.3)
    wires.send(udp(wires.bonded))
    assert wires.cables() == [0, 1]


def test_active_backup_does_not_look_again_at_the_active_slave() -> None:
    wires = Wires(mode=Mode.ACTIVEBACKUP)
    wires.cut(0)
    assert wires.send(udp(wires.bonded)) is BUSY, "l0 is still the active one; the frame is the caller's"
    assert wires.bonded.xoff
    wires.run(0.3)
    assert wires.send(udp(wires.bonded)) is OK
    assert wires.cables() == [1]


@pytest.mark.parametrize("policy", list(XmitPolicy), ids=lambda policy: policy.value)
def test_balance_xor_follows_the_hash(policy: XmitPolicy) -> None:
    wires = Wires(mode=Mode.XOR, xmit_hash_policy=policy)
    frames = [udp(wires.bonded, number) for number in range(40)]
    for frame in frames:
        wires.send(frame)
    assert wires.cables() == [bond_xmit_hash(frame, policy) % 3 for frame in frames]


def test_balance_xor_hashes_over_what_is_left() -> None:
    wires = Wires(mode=Mode.XOR, xmit_hash_policy=XmitPolicy.LAYER34)
    wires.cut(0)
    frames = [udp(wires.bonded, number) for number in range(20)]
    for frame in frames:
        wires.send(frame)
    assert wires.cables() == [1 + bond_xmit_hash(frame, XmitPolicy.LAYER34) % 2 for frame in frames]


def test_broadcast_sends_on_all_that_have_a_link() -> None:
    wires = Wires(mode=Mode.BROADCAST)
    frame = udp(wires.bonded)
    wires.send(frame)
    assert wires.got == [(0, frame), (1, frame), (2, frame)]
    wires.got.clear()
    wires.cut(1)
    wires.send(frame)
    assert wires.cables() == [0, 2]


def test_broadcast_is_ok_if_one_slave_took_it() -> None:
    wires = Wires(mode=Mode.BROADCAST)
    wires.l[0].cable.set_hold(True)
    while not wires.l[0].xoff:
        dev_hard_start_xmit(wires.l[0], SkBuff(udp(wires.bonded), wires.l[0]))
    assert wires.send(udp(wires.bonded)) is OK
    assert wires.cables() == [1, 2]


def test_broadcast_frees_the_clone_that_was_refused() -> None:
    wires = Wires(2, mode=Mode.BROADCAST)
    refused: list[SkBuff] = []

    def full(skb: SkBuff) -> NetdevTx:
        refused.append(skb)
        return BUSY

    wires.l[0].hard_start_xmit = full  # type: ignore[method-assign]
    skb = SkBuff(udp(wires.bonded), wires.bonded)
    assert dev_hard_start_xmit(wires.bonded, skb) is OK
    assert [clone.users for clone in refused] == [0]
    assert skb.users == 0


def test_802_3ad_sends_in_the_active_aggregator_only() -> None:
    wires = Wires(mode=Mode.AD, xmit_hash_policy=XmitPolicy.LAYER34)
    for number in range(20):
        wires.send(udp(wires.bonded, number))
    assert set(wires.cables()) == {0}, "nobody answers: one port serves"


def test_802_3ad_spreads_over_the_aggregators_ports() -> None:
    bench = Bench(2)
    left = bench.bond(mode=Mode.AD, xmit_hash_policy=XmitPolicy.LAYER34)
    bench.bond(False, mode=Mode.AD)
    bench.run(4)
    sent_before = [len(dev.tx_done) for dev in bench.l]
    frames = [udp(left, number) for number in range(20)]
    for frame in frames:
        assert dev_hard_start_xmit(left, SkBuff(frame, left)) is OK
    expected = [bond_xmit_hash(frame, XmitPolicy.LAYER34) % 2 for frame in frames]
    sent = [len(dev.tx_done) - before for dev, before in zip(bench.l, sent_before, strict=True)]
    assert sent == [expected.count(0), expected.count(1)]
    assert min(sent) > 0


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_without_a_usable_slave_the_frame_stays_the_callers(mode: Mode) -> None:
    wires = Wires(mode=mode)
    wires.cut(0, 1, 2)
    wires.run(0.3)
    frame = udp(wires.bonded)
    skb = SkBuff(frame, wires.bonded)
    wires.bonded.xoff = False  # whoever did not look
    assert dev_hard_start_xmit(wires.bonded, skb) is BUSY
    assert (skb.users, skb.dev, bytes(skb.data)) == (1, wires.bonded, frame)
    assert wires.bonded.xoff


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_a_full_slave_is_reported_and_noticed_when_it_has_room(mode: Mode) -> None:
    wires = Wires(1, mode=mode)
    wires.l[0].cable.set_hold(True)
    frame = udp(wires.bonded)
    statuses: list[NetdevTx] = []
    while len(statuses) < 100 and not wires.bonded.xoff:
        statuses.append(wires.send(frame))
    assert set(statuses[:-1]) == {OK}
    assert statuses[-1] is BUSY, "the slave's BUSY is not hidden"
    wires.l[0].cable.set_hold(False)
    wires.run(0.2)
    assert not wires.bonded.xoff, "the monitor woke the queue"
    assert wires.send(frame) is OK


def test_tlb_keeps_a_flow_on_a_slave_and_shares_flows_out_by_load() -> None:
    wires = Wires(2, mode=Mode.TLB, xmit_hash_policy=XmitPolicy.LAYER34)
    frames = {number: udp(wires.bonded, number) for number in range(8)}
    where: dict[int, set[int]] = {number: set() for number in frames}
    for _ in range(5):
        for number, frame in frames.items():
            wires.send(frame)
            where[number] |= set(wires.cables())
    assert all(len(cables) == 1 for cables in where.values())


def test_tlb_rebalances_by_the_load_of_the_last_ten_seconds() -> None:
    wires = Wires(2, mode=Mode.TLB, xmit_hash_policy=XmitPolicy.LAYER34)
    heavy = [udp(wires.bonded, number) for number in range(2)]
    keys = {bond_xmit_hash(frame, XmitPolicy.LAYER34) & 0xFF for frame in heavy}
    assert len(keys) == 2
    for frame in heavy * 200:
        wires.send(frame)
    assert set(wires.cables()) == {0}, "nothing is known of the load yet"
    wires.run(10.5)
    for frame in heavy:
        wires.send(frame)
    assert wires.cables() == [0, 1], "the first flow counts now, so the second goes where there is room"


def test_tlb_counts_what_the_active_slave_sends_unbalanced() -> None:
    wires = Wires(2, mode=Mode.TLB, xmit_hash_policy=XmitPolicy.LAYER34)
    for _ in range(400):
        wires.send(PEER + wires.bonded.dev_addr + bytes.fromhex("88b5") + bytes(200))
    wires.cables()
    wires.run(10.5)
    wires.send(udp(wires.bonded))
    assert wires.cables() == [1], "the active slave is the busy one"


def test_tlb_binds_a_flow_anew_when_its_slave_went() -> None:
    wires = Wires(2, mode=Mode.TLB, xmit_hash_policy=XmitPolicy.LAYER34)
    frame = udp(wires.bonded)
    wires.bonded.tlb.clients[bond_xmit_hash(frame, XmitPolicy.LAYER34) & 0xFF].slave = wires.bonded.slaves[1]
    wires.send(frame)
    wires.cut(1)
    wires.run(0.3)
    assert wires.send(frame) is OK
    assert wires.cables() == [1, 0]


def test_tlb_gives_a_refused_frame_back_as_it_was() -> None:
    wires = Wires(2, mode=Mode.TLB, tlb_dynamic_lb=False, xmit_hash_policy=XmitPolicy.LAYER34)
    frame = next(
        frame for number in range(99) if bond_xmit_hash(frame := udp(wires.bonded, number), XmitPolicy.LAYER34) % 2 == 1
    )
    wires.l[1].xoff = True
    skb = SkBuff(frame, wires.bonded, 0x0800)
    assert dev_hard_start_xmit(wires.bonded, skb) is BUSY
    assert bytes(skb.data) == frame


def test_tlb_sends_broadcasts_and_what_is_not_ip_on_the_active_slave() -> None:
    wires = Wires(3, mode=Mode.TLB)
    wires.send(udp(wires.bonded, destination=b"\xff" * 6))
    wires.send(PEER + wires.bonded.dev_addr + bytes.fromhex("88b5") + bytes(46))
    assert wires.cables() == [0, 0]


@pytest.mark.parametrize("mode", [Mode.TLB, Mode.ALB], ids=lambda mode: mode.value)
def test_other_slaves_send_from_their_own_address(mode: Mode) -> None:
    wires = Wires(3, mode=mode, tlb_dynamic_lb=False, xmit_hash_policy=XmitPolicy.LAYER34)
    frames = [udp(wires.bonded, number) for number in range(30)]
    for frame in frames:
        wires.send(frame)
    sources = {(number, frame[6:12]) for number, frame in wires.got}
    assert sources == {
        (0, wires.bonded.dev_addr),
        (1, bytes.fromhex("020000000101")),
        (2, bytes.fromhex("020000000102")),
    }
    assert all(got[:6] + got[12:] == sent[:6] + sent[12:] for (_, got), sent in zip(wires.got, frames, strict=True))


@pytest.mark.parametrize("mode", [Mode.TLB, Mode.ALB], ids=lambda mode: mode.value)
def test_at_a_failover_the_bonds_address_moves_and_switches_learn_it(mode: Mode) -> None:
    wires = Wires(2, mode=mode)
    learned: list[tuple[str, bytes]] = []
    wires.right.ptype_all.append(
        lambda skb: (
            learned.append((skb.dev.name, bytes(skb.data[6:12])))  # type: ignore[union-attr]
            if bytes(skb.data[12:14]) == b"\x90\x00"
            else None
        )
    )
    wires.bonded.tlb.clients[7].slave = wires.bonded.slaves[1]
    wires.cut(0)
    wires.run(0.15)
    assert wires.bonded.tlb.clients[7].slave is None, "the new active slave's flows are shared out anew, too"
    assert [slave.hwaddr for slave in wires.bonded.slaves] == [
        bytes.fromhex("020000000101"),
        bytes.fromhex("020000000100"),
    ]
    assert ("r1", wires.bonded.dev_addr) in learned


@pytest.mark.parametrize("mode", [Mode.TLB, Mode.ALB], ids=lambda mode: mode.value)
def test_when_the_primary_takes_over_both_addresses_are_announced(mode: Mode) -> None:
    wires = Wires(2, mode=mode, primary="l0")
    wires.cut(0)
    wires.run(0.3)
    for number in range(8):
        wires.send(udp(wires.bonded, number))
    learned: list[tuple[str, bytes]] = []
    wires.right.ptype_all.append(
        lambda skb: (
            learned.append((skb.dev.name if skb.dev else "", bytes(skb.data[6:12])))
            if bytes(skb.data[12:14]) == b"\x90\x00"
            else None
        )
    )
    wires.mend(0)
    wires.run(0.15)
    assert {("r1", bytes.fromhex("020000000101")), ("r0", bytes.fromhex("020000000100"))} <= set(learned)
    assert not [client for client in wires.bonded.tlb.clients if client.slave is not None], "flows are bound anew"


def test_alb_keys_by_the_destination_address() -> None:
    wires = Wires(2, mode=Mode.ALB)
    first, second = udp(wires.bonded, 1), udp(wires.bonded, 2)
    for frame in (first, first, second, first):
        wires.send(frame)
    clients = [client for client in wires.bonded.tlb.clients if client.slave is not None]
    assert len(clients) == 2
    assert sum(client.tx_bytes for client in clients) == 3 * len(first) + len(second)


def udp6(bond: Bond, target: str, destination: bytes = PEER) -> bytes:
    return bytes(
        make_frame(
            Endpoints(bond.dev_addr, destination, IPv6Address("fd00::1"), IPv6Address(target), 6665, 6666)
        ).build(b"text")
    )


def test_alb_keys_ipv6_by_the_destination_too_but_not_what_is_for_many_or_from_nobody() -> None:
    """Neighbour discovery's multicasts and duplicate address detection stay on the active slave."""
    wires = Wires(2, mode=Mode.ALB)
    nobody = bytearray(udp6(wires.bonded, "fd00::9"))
    nobody[22:38] = bytes(16)
    for frame in (udp6(wires.bonded, "ff02::1", b"\x33\x33\0\0\0\1"), bytes(nobody)):
        wires.send(frame)
    assert wires.cables() == [0, 0]
    assert not [client for client in wires.bonded.tlb.clients if client.slave is not None]
    for target in ("fd00::2", "fd00::3", "fd00::2"):
        wires.send(udp6(wires.bonded, target))
    assert len([client for client in wires.bonded.tlb.clients if client.slave is not None]) == 2


@pytest.mark.parametrize(("load", "cable"), [(112_000_000, 1), (119_000_000, 0)], ids=["a wide gap", "a narrow gap"])
def test_a_flow_goes_where_speed_less_load_is_most(load: int, cable: int) -> None:
    """1000 Mbit/s with `load` octets a second on it, against 100 idle: tlb's 2^20 bits a Mbit, 8 bits an octet."""
    wires = Wires(2, mode=Mode.TLB)
    first, second = wires.bonded.slaves
    first.speed, second.speed = 100, 1000
    second.load = load
    wires.send(udp(wires.bonded))
    assert wires.cables() == [cable]


def test_alb_inactive_slave_takes_unicast_but_no_broadcast() -> None:
    bench = Bench(2)
    bond = bench.bond(mode=Mode.ALB)
    got: list[bytes] = []
    bench.left.ptype_all.append(lambda skb: got.append(bytes(skb.data)))
    bench.l[1].hardware_receive(bench.l[1].dev_addr + PEER + bytes.fromhex("88b5") + b"unicast".ljust(46))
    bench.l[1].hardware_receive(b"\xff" * 6 + PEER + bytes.fromhex("88b5") + b"broadcast".ljust(46))
    bench.settle()
    assert [frame[14:21] for frame in got] == [b"unicast"]
    assert bond.stats["rx_inactive"] == 1


def test_alb_what_a_switch_floods_is_taken_from_the_slave_that_has_the_address() -> None:
    """The other slave's hardware passes it on, too (virtio-net does without a filter): for PACKET_OTHERHOST nobody is there."""
    bench = Bench(2)
    bond = bench.bond(mode=Mode.ALB)
    kinds: list[int] = []
    bench.left.ptype_all.append(lambda skb: kinds.append(skb.pkt_type))
    frame = bond.dev_addr + PEER + bytes.fromhex("88b5") + b"flooded".ljust(46)
    for dev in bench.l:
        dev.hardware_receive(frame)
        bench.settle()
    assert kinds == [PACKET_HOST, PACKET_OTHERHOST]
