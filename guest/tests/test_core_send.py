"""netpoll_send_udp() and netpoll_send_skb(): retries, polling, the drop routine, batches."""

from __future__ import annotations

import itertools
import random

import pytest

from guest.netpoll import (
    MessageTooLong,
    Net,
    Netpoll,
    SetupError,
    netpoll_send_skb,
    netpoll_send_udp,
    netpoll_send_udp_batch,
    netpoll_setup,
)
from guest.netpoll.netdevice import (
    NETIF_F_GSO_UDP_L4,
    NetDevice,
    NetdevTx,
    netif_device_detach,
    register_netdev,
)
from guest.netpoll.send import NET_XMIT_DROP, NET_XMIT_SUCCESS, _runs
from guest.netpoll.skbuff import DropReason, SkBuff
from guest.netpoll.wire import udp
from guest.tests.wired import RECEIVER, SENDER, fill, wired


def test_a_message_arrives() -> None:
    wire = wired()
    assert netpoll_send_udp(wire.tx, b"hello") == NET_XMIT_SUCCESS
    wire.interrupts()
    assert wire.got == [(6665, b"hello")]
    assert wire.tx.stats.sent == 1


@pytest.mark.parametrize("message", [b"", b"x", bytes(1472)], ids=["empty", "odd", "all the MTU holds"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_message_sizes_and_types(message: bytes, kind: type) -> None:
    wire = wired()
    netpoll_send_udp(wire.tx, kind(message))
    wire.interrupts()
    assert wire.payloads() == [message]


def test_more_than_the_mtu_holds_is_an_error_that_says_so() -> None:
    wire = wired()
    with pytest.raises(MessageTooLong, match="1473 octets of payload, but wire0 carries at most 1472"):
        netpoll_send_udp(wire.tx, bytes(1473))
    assert wire.tx.stats.sent == wire.tx.stats.dropped == 0


def test_sending_before_setup_is_an_error() -> None:
    wire = wired()
    with pytest.raises(SetupError, match="has not been called"):
        netpoll_send_udp(Netpoll(wire.net, "early"), b"x")


def test_a_full_ring_is_polled_free() -> None:
    """The ring holds 4; nobody serves interrupts; all 50 arrive all the same, without one delay."""
    wire = wired(tx_ring=4)
    for n in range(50):
        assert netpoll_send_udp(wire.tx, b"%d" % n) == NET_XMIT_SUCCESS
    wire.interrupts()
    assert wire.payloads() == [b"%d" % n for n in range(50)]
    assert wire.a.stats["tx_stopped"] == 12
    assert wire.tx.stats.polled == wire.tx.stats.retried == 12
    assert wire.time.delays == 0


# -- when polling fails -------------------------------------------------------------------------------


def test_a_queue_that_never_wakes_costs_one_second_then_the_drop_routine() -> None:
    """2.6.12 spun for ever, 2.6.13 leaked the skb; neither called the drop routine."""
    dropped: list[SkBuff] = []
    wire = wired(drop=dropped.append)
    fill(wire)
    assert netpoll_send_udp(wire.tx, b"too much") == NET_XMIT_DROP
    assert wire.time.now == pytest.approx(20000 * 50e-6, abs=1e-3)
    assert [skb.drop_reason for skb in dropped] == [DropReason.RETRIES]
    assert bytes(dropped[0].data).endswith(b"too much")
    assert dropped[0].np is wire.tx
    assert dropped[0].users == 1  # the drop routine's
    assert wire.tx.stats.dropped == 1


def test_the_second_is_spent_once_until_a_success() -> None:
    wire = wired()
    fill(wire)
    netpoll_send_udp(wire.tx, b"first")
    before, polls = wire.time.now, wire.tx.stats.polled
    for _ in range(10):
        assert netpoll_send_udp(wire.tx, b"next") == NET_XMIT_DROP
    assert wire.time.now - before <= 10 * 51e-6
    assert wire.tx.stats.polled - polls == 10  # each looks once more
    wire.a.cable.set_hold(False)
    assert netpoll_send_udp(wire.tx, b"again") == NET_XMIT_SUCCESS
    assert wire.info().tries == wire.info().max_retries


def test_without_a_drop_routine_the_frame_is_freed_and_counted() -> None:
    wire = wired()
    fill(wire)
    wire.info().max_retries = wire.info().tries = 3
    netpoll_send_udp(wire.tx, b"x")
    assert (wire.tx.stats.dropped, wire.tx.stats.lost, wire.tx.stats.polled) == (1, 1, 3)


def test_a_queue_that_wakes_in_time_delivers() -> None:
    wire = wired()
    fill(wire)
    wire.time.at(0.3, lambda: wire.a.cable.set_hold(False))
    assert netpoll_send_udp(wire.tx, b"last words") == NET_XMIT_SUCCESS
    wire.interrupts()
    assert wire.payloads()[-1] == b"last words"
    assert 0.3 <= wire.time.now < 0.301


def test_link_down_and_up_again_while_sending() -> None:
    wire = wired()
    wire.a.cable.set_link(False)
    wire.interrupts()
    wire.time.at(0.5, lambda: wire.a.cable.set_link(True))
    assert netpoll_send_udp(wire.tx, b"over the new link") == NET_XMIT_SUCCESS
    wire.interrupts()
    assert wire.payloads() == [b"over the new link"]


def test_a_coarse_delay_does_not_stretch_the_bound() -> None:
    """Where delay(50 us) takes 1 ms, 20000 retries would be 20 s: the clock bounds them too."""
    wire = wired()
    fill(wire)
    wire.net.context.delay = lambda _: wire.time.delay(1e-3)
    netpoll_send_udp(wire.tx, b"x")
    assert wire.time.now == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize("status", [NetdevTx.LOCKED, NetdevTx.BUSY], ids=["locked", "busy"])
def test_a_driver_that_refuses_is_retried(status: NetdevTx) -> None:
    wire = wired()
    real, refusals = wire.a.hard_start_xmit, [status] * 3

    def refuse(skb: SkBuff) -> NetdevTx:
        return refusals.pop() if refusals else real(skb)

    wire.a.hard_start_xmit = refuse  # type: ignore[method-assign]  # a driver with a bad moment
    assert netpoll_send_udp(wire.tx, b"x") == NET_XMIT_SUCCESS
    assert (wire.tx.stats.retried, wire.tx.stats.polled, wire.time.delays) == (1, 3, 3)


# -- devices that go ----------------------------------------------------------------------------------


def test_a_device_that_is_down_drops_at_once() -> None:
    dropped: list[SkBuff] = []
    wire = wired(drop=dropped.append)
    wire.a.running = False
    assert netpoll_send_udp(wire.tx, b"x") == NET_XMIT_DROP
    assert dropped[0].drop_reason is DropReason.NOT_RUNNING
    assert wire.time.now == 0


def test_a_device_that_vanishes_during_the_retries_ends_them() -> None:
    dropped: list[SkBuff] = []
    wire = wired(drop=dropped.append)
    fill(wire)
    wire.time.at(0.1, lambda: netif_device_detach(wire.a))
    assert netpoll_send_udp(wire.tx, b"x") == NET_XMIT_DROP
    assert dropped[0].drop_reason is DropReason.NOT_RUNNING
    assert wire.time.now == pytest.approx(0.1, abs=1e-3)


def test_a_device_that_is_unregistered_leaves_its_client_counting_drops() -> None:
    dropped: list[SkBuff] = []
    wire = wired(drop=dropped.append)
    netif_device_detach(wire.a)
    wire.net.context.run_work()
    assert wire.tx.dev is None
    assert "wire0" not in wire.net.devices
    assert netpoll_send_udp(wire.tx, b"x") == NET_XMIT_DROP
    assert [skb.drop_reason for skb in dropped] == [DropReason.NOT_RUNNING]


# -- frames of one's own ------------------------------------------------------------------------------


def test_send_skb_takes_any_frame() -> None:
    wire = wired()
    frame = bytearray(wire.tx.frame(b"data")) if wire.tx.frame else bytearray()
    frame[34:36] = (99).to_bytes(2, "big")  # another source port
    frame[40:42] = bytes(2)  # no checksum
    skb = SkBuff(bytes(frame), wire.a, 0x800)
    assert netpoll_send_skb(wire.tx, skb) == NET_XMIT_SUCCESS
    wire.interrupts()
    assert wire.got == [(99, b"data")]


def test_send_skb_beyond_the_mtu_is_a_counted_drop_of_the_driver() -> None:
    wire = wired()
    netpoll_send_skb(wire.tx, SkBuff(bytes(1519), wire.a, 0x800))
    wire.interrupts()
    assert wire.a.stats["tx_errors"] == 1
    assert wire.b.stats["rx_missed_errors"] == 0
    assert wire.got == []


def test_a_batch_rings_the_doorbell_once() -> None:
    wire = wired(tx_ring=64)
    rings: list[int] = []
    real = wire.a.doorbell
    wire.a.doorbell = lambda: rings.append(len(wire.a.tx_ring)) or real()  # type: ignore[func-returns-value, method-assign]
    messages = [b"%d" % n for n in range(20)]
    assert netpoll_send_udp_batch(wire.tx, messages) == 20
    assert rings == [20]
    netpoll_send_udp(wire.tx, b"alone")
    assert len(wire.b.rx_ring) == 21  # nobody has to ring for what comes after a batch
    wire.interrupts()
    assert wire.payloads() == [*messages, b"alone"]


def test_a_batch_longer_than_the_ring() -> None:
    wire = wired(tx_ring=4)
    messages = [b"%d" % n for n in range(20)]
    assert netpoll_send_udp_batch(wire.tx, iter(messages)) == 20
    wire.interrupts()
    assert wire.payloads() == messages


def test_runs_are_of_one_length_as_long_as_the_device_cuts_and_the_whole_is_the_batch() -> None:
    """What a device with NETIF_F_GSO_UDP_L4 gets as one frame: linux/udp.h UDP_MAX_SEGMENTS, and 64 KiB."""
    chance = random.Random(4711)
    batch = [bytes(size) for size in (7, 7, 9, 0, 0, 5, 2000, 5)] + [bytes(100)] * 130 + [bytes(1236)] * 60
    batch += [bytes(chance.choice((1, 2))) for _ in range(100)]
    runs = list(_runs(iter(batch), 1472))
    assert [msg for run in runs for msg in run] == batch
    assert [len(run) for run in runs[:7]] == [2, 1, 1, 1, 1, 1, 1]
    assert [len(run) for run in runs[7:12]] == [64, 64, 2, 52, 8]  # 53 x 1236 is one octet too many
    for run, following in itertools.pairwise(runs):
        assert len({len(msg) for msg in run}) == 1
        if len(run) < 52 and 0 < len(run[0]) <= 1472:
            assert len(following[0]) != len(run[0]), "a run goes on as long as it can"


class Cutter(NetDevice):
    """A device that takes a run as one frame, or as its `refuses` says, and notes what it was given."""

    refuses = False

    def __init__(self, net: Net) -> None:
        super().__init__(net, "cutter", bytes.fromhex("020000000001"))
        self.features = NETIF_F_GSO_UDP_L4
        self.given: list[tuple[int, bytes]] = []
        register_netdev(self)

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        if skb.gso_size and self.refuses:
            return NetdevTx.BUSY
        self.given.append((skb.gso_size, bytes(skb.data)))
        skb.users = 0
        return NetdevTx.OK


@pytest.mark.parametrize("refuses", [False, True], ids=["taken", "refused"])
def test_a_device_that_cuts_gets_runs_and_one_that_refuses_each_message(refuses: bool) -> None:
    net = Net()
    dev = Cutter(net)
    dev.refuses = refuses
    np = Netpoll(net, dev_name="cutter", local_ip=SENDER.ip, remote_ip=RECEIVER.ip)
    netpoll_setup(np)
    assert netpoll_send_udp_batch(np, [b"ab", b"cd", b"efg", b"hi"]) == 4
    assert (np.stats.sent, np.stats.dropped) == (4, 0)
    payloads = [(size, frame[42:]) for size, frame in dev.given]
    two = [(0, b"ab"), (0, b"cd")] if refuses else [(2, b"abcd")]
    assert payloads == [*two, (0, b"efg"), (0, b"hi")]
    idents = [int.from_bytes(frame[18:20], "big") for _, frame in dev.given]
    assert idents == ([3, 4, 5, 6] if refuses else [1, 3, 4])  # a run uses one for each datagram that it becomes


def test_udp_checksum_is_computed() -> None:
    """2.6.12 left it 0."""
    wire = wired()
    netpoll_send_udp(wire.tx, b"hello")
    segment = wire.b.rx_ring[0][34:]
    assert udp.parse(segment).checksum != 0
    udp.verify(segment, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))


def test_both_clients_of_one_device_send() -> None:
    wire = wired()
    other = Netpoll(wire.net, "other", dev_name="wire0", remote_ip=wire.tx.remote_ip, local_port=7)
    other.remote_mac = wire.tx.remote_mac
    netpoll_setup(other)
    netpoll_send_udp(wire.tx, b"one")
    netpoll_send_udp(other, b"two")
    wire.interrupts()
    assert wire.got == [(6665, b"one"), (7, b"two")]
