"""The device that misbehaves: each fault happens, is counted, follows the seed, and the stack above copes."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter

import pytest

from guest.netpoll import Context, Net, NetdevTx, netpoll_poll, netpoll_queue, netpoll_send_udp
from guest.netpoll.clients.sequence import Receiver, Stream, generate
from guest.netpoll.drivers.loopback import wire_pair
from guest.netpoll.loop import Loop
from guest.netpoll.middleware.fault import Fate, FaultDevice, Faults, draw, flip
from guest.netpoll.middleware.trace import TraceDevice
from guest.netpoll.napi import do_irq
from guest.netpoll.netdevice import NetDevice, dev_close
from guest.netpoll.skbuff import SkBuff
from guest.tests.own_namespace import KERNEL_IP, KERNEL_MAC, OUR_IP, own_namespace
from guest.tests.test_trace import Recorded, two_clients

STREAM = Stream(seed=4, count=400, min_length=20, max_length=80)


def carry(
    tx: Faults | None, rx: Faults | None = None, seed: int = 1, napi: bool = True
) -> tuple[Receiver, FaultDevice]:
    """Send STREAM over a faulty device (as sender with `tx`, as receiver with `rx`), until nothing more comes."""
    net = Net()
    wires = wire_pair(net, rx_ring=4096, napi=napi)
    faulty = FaultDevice(wires[0], seed=seed, tx=tx, rx=rx)
    with Loop(net) as loop, two_clients(net) as (a, b, got_a, got_b):
        for payload in generate(STREAM):
            netpoll_send_udp(a if rx is None else b, payload)
            loop.run_once(0)
        loop.run_until(lambda: not net.context.timers, 5, "the last late frame")
        while loop.run_once(0):
            pass
        receiver = Receiver(STREAM)
        for data in got_b if rx is None else got_a:
            receiver.receive(data)
    return receiver, faulty


def test_without_faults_it_is_invisible() -> None:
    receiver, faulty = carry(Faults())
    assert receiver.summary().perfect
    assert not +faulty.counts


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "netif_rx"])
@pytest.mark.parametrize("way", ["tx", "rx"])
class TestEachFault:
    def run(self, way: str, napi: bool, faults: Faults) -> tuple[Receiver, Counter[str]]:
        receiver, faulty = carry(faults if way == "tx" else None, faults if way == "rx" else None, napi=napi)
        return receiver, Counter({key.removeprefix(f"{way}_"): n for key, n in (+faulty.counts).items()})

    def test_drop(self, way: str, napi: bool) -> None:
        receiver, counts = self.run(way, napi, Faults(drop=0.1))
        assert 10 < counts["drop"] < 100
        assert counts == {"drop": STREAM.count - receiver.received}

    def test_duplicate(self, way: str, napi: bool) -> None:
        receiver, counts = self.run(way, napi, Faults(duplicate=0.1))
        summary = receiver.summary()
        assert counts == {"duplicate": summary.duplicate_count}
        assert summary.complete
        assert summary.late_count == 0

    def test_corrupt(self, way: str, napi: bool) -> None:
        """The bit is anywhere in the frame; what checksums do not cover is only padding, of which there is none here."""
        receiver, counts = self.run(way, napi, Faults(corrupt=0.1))
        summary = receiver.summary()
        assert 10 < counts["corrupt"] < 100
        assert summary.bad_count == 0, "a damaged payload passed the UDP checksum"
        # A flipped bit in the MAC source, the IP identification's checksum pair or the like is refused or harmless.
        assert 0 < summary.missing_count <= counts["corrupt"]

    def test_reorder(self, way: str, napi: bool) -> None:
        receiver, counts = self.run(way, napi, Faults(reorder=0.1))
        summary = receiver.summary()
        assert summary.complete
        assert 10 < summary.late_count <= counts["reorder"]
        assert set(counts) == {"reorder"}

    def test_delay(self, way: str, napi: bool) -> None:
        receiver, counts = self.run(way, napi, Faults(delay=0.1, delay_seconds=(0.001, 0.01)))
        summary = receiver.summary()
        assert summary.complete
        assert 0 < summary.late_count <= counts["delay"]
        assert set(counts) == {"delay"}

    def test_everything_at_once(self, way: str, napi: bool) -> None:
        receiver, counts = self.run(way, napi, Faults(0.1, 0.1, 0.1, 0.1, 0.1))
        assert set(counts) >= {"drop", "corrupt", "duplicate", "reorder", "delay"}
        assert receiver.summary().bad_count == 0


def test_the_seed_decides() -> None:
    faults = Faults(drop=0.2)
    missing = [list(carry(faults, seed=seed)[0].missing()) for seed in (1, 1, 2)]
    assert missing[0] == missing[1] != missing[2]


def test_one_probability_does_not_shift_another() -> None:
    alone = [draw(Faults(drop=0.3), rng).drop for rng in [random.Random(5)] for _ in range(50)]
    both = [draw(Faults(drop=0.3, delay=0.5), rng).drop for rng in [random.Random(5)] for _ in range(50)]
    assert alone == both
    assert any(alone)


def test_certain_and_impossible() -> None:
    rng = random.Random(0)
    certain = draw(Faults(1, 1, 1, 1, 1, (2, 2)), rng)
    assert (certain.drop, certain.duplicate, certain.swap, certain.hold) == (True, True, True, 2)
    assert certain.bit is not None
    assert draw(Faults(), rng) == Fate(False, False, False, None, None)


@pytest.mark.parametrize("where", [0.0, 0.49, 0.999999])
def test_flip_changes_one_bit(where: float) -> None:
    data = bytes(range(40))
    differing = [a ^ b for a, b in zip(data, flip(data, where), strict=True) if a != b]
    assert [value.bit_count() for value in differing] == [1]


@pytest.mark.parametrize(
    "wrong", [{"drop": 1.1}, {"delay": -0.1}, {"delay_seconds": (2.0, 1.0)}, {"delay_seconds": (-1.0, 1.0)}], ids=str
)
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Faults(**wrong)  # type: ignore[arg-type]  # delay_seconds is a pair


def test_a_stalled_queue_stays_stopped_and_frames_wait() -> None:
    net = Net()
    faulty = FaultDevice(wire_pair(net)[0], seed=0)
    with Loop(net) as loop, two_clients(net) as (a, _b, _, got_b):
        a.drop = netpoll_queue
        faulty.npinfo.max_retries = faulty.npinfo.tries = 5  # type: ignore[union-attr]  # a NetpollInfo
        faulty.stall_tx(after=2)
        for number in range(5):
            netpoll_send_udp(a, b"%d" % number)
        while loop.run_once(0):
            pass
        assert got_b == [b"0", b"1"]
        assert (a.stats.queued, faulty.counts["stalls"], faulty.xoff) == (3, 1, True)
        assert a.stats.polled > 0, "the retry loop must have polled, as with a real stopped queue"
        faulty.resume_tx()
        loop.run_until(lambda: len(got_b) == 5, 5, "the queued frames")
        assert got_b == [b"0", b"1", b"2", b"3", b"4"]


def test_a_stall_ends_by_itself_and_the_retry_loop_gets_through() -> None:
    """50 polls of 50 us: a stall of 1 ms is over before the retries are, without any interrupt or process context."""
    net = Net()
    faulty = FaultDevice(wire_pair(net)[0], seed=0)
    with two_clients(net) as (a, b, _, got_b):
        net.context.crash()
        faulty.stall_tx(seconds=0.001)
        assert faulty.xoff
        netpoll_send_udp(a, b"through")
        netpoll_poll(b)
    assert got_b == [b"through"]
    assert a.stats.retried > 0
    assert a.stats.dropped == 0


def test_withheld_interrupts_do_not_come_but_polling_works() -> None:
    net = Net()
    faulty = FaultDevice(wire_pair(net)[0], seed=0)
    with Loop(net) as loop, two_clients(net) as (a, b, got_a, _):
        faulty.withhold_interrupts()
        netpoll_send_udp(b, b"unheard")
        while loop.run_once(0):
            pass
        do_irq(faulty)
        assert got_a == []
        netpoll_poll(a)
        assert got_a == [b"unheard"]
        netpoll_send_udp(b, b"later")
        while loop.run_once(0):
            pass
        assert got_a == [b"unheard"]
        faulty.allow_interrupts()
        loop.run_until(lambda: got_a == [b"unheard", b"later"], 5, "the pending interrupt")


def test_time_is_the_contexts() -> None:
    """With a clock that stands still, a late frame waits for ever; when it moves, an interrupt is enough."""
    now = [0.0]
    net = Net(Context(clock=lambda: now[0]))
    faulty = FaultDevice(wire_pair(net)[0], seed=0, rx=Faults(delay=1, delay_seconds=(5, 5)))
    with two_clients(net) as (a, b, got_a, _):
        netpoll_send_udp(b, b"late")
        do_irq(faulty)
        assert got_a == []
        now[0] = 4.9
        do_irq(faulty)
        assert got_a == []
        now[0] = 5.0
        do_irq(faulty)
        assert got_a == [b"late"]
        assert a.stats.received == 1


def test_late_frames_come_by_polling_after_a_crash() -> None:
    now = [0.0]
    net = Net(Context(clock=lambda: now[0]))
    FaultDevice(wire_pair(net)[0], seed=0, rx=Faults(delay=1, delay_seconds=(5, 5)))
    with two_clients(net) as (a, b, got_a, _):
        net.context.crash()
        netpoll_send_udp(b, b"late")
        netpoll_poll(a)
        now[0] = 5.0
        netpoll_poll(a)
        assert got_a == [b"late"]


def refuse_first(dev: NetDevice, times: int) -> None:
    """Have a driver refuse each frame so many times before it takes it."""
    real, left = dev.hard_start_xmit, [times]

    def busy(skb: SkBuff) -> NetdevTx:
        left[0] = left[0] - 1 if left[0] else times
        return real(skb) if left[0] == times else NetdevTx.BUSY

    if times:
        dev.hard_start_xmit = busy  # type: ignore[method-assign]  # a slow driver


def test_a_busy_driver_does_not_change_a_frames_fate() -> None:
    """The frame that the driver refuses keeps what was drawn for it: nothing is counted twice, no draw is lost."""
    results = []
    for refusals in (0, 2):
        net = Net()
        wires = wire_pair(net, tx_ring=4096, rx_ring=4096)
        refuse_first(wires[0], refusals)
        faulty = FaultDevice(wires[0], seed=3, tx=Faults(drop=0.3, corrupt=0.2))
        with Loop(net), two_clients(net) as (a, _b, _, _):
            for number in range(100):
                netpoll_send_udp(a, b"%d" % number)
            assert (a.stats.retried > 0) == (refusals > 0)
            results.append((+faulty.counts, a.stats.sent, list(wires[1].rx_ring)))
    assert results[0][:2] == results[1][:2]
    assert results[0][2] == results[1][2]


def test_a_stopped_device_loses_what_waited() -> None:
    net = Net()
    faulty = FaultDevice(wire_pair(net)[0], seed=0, tx=Faults(delay=1, delay_seconds=(60, 60)))
    with two_clients(net) as (a, _b, _, _):
        netpoll_send_udp(a, b"never")
        dev_close(faulty)
    assert faulty.counts["tx_lost"] == 1


def test_a_tracer_inside_sees_the_faults_and_one_outside_does_not() -> None:
    net, outside, inside = Net(), Recorded(), Recorded()
    below = TraceDevice(wire_pair(net)[0], inside, inside.clock)
    TraceDevice(FaultDevice(below, seed=0, tx=Faults(drop=1)), outside, outside.clock)
    with Loop(net), two_clients(net) as (a, _b, _, _):
        netpoll_send_udp(a, b"gone")
    assert len(outside.frames) == 1
    assert inside.frames == []


def test_refused_frames_stay_the_callers() -> None:
    net = Net()
    faulty = FaultDevice(wire_pair(net)[0], seed=0, tx=Faults(corrupt=1))
    with two_clients(net):
        faulty.inner.cable.set_hold(True)  # type: ignore[attr-defined]  # a LoopbackDevice
        frames = [SkBuff(b"%060d" % number, faulty) for number in range(65)]
        statuses = [faulty.hard_start_xmit(skb) for skb in frames]
        assert statuses == [NetdevTx.OK] * 64 + [NetdevTx.BUSY]
        assert (frames[64].data, frames[64].dev, frames[64].users) == (b"%060d" % 64, faulty, 1)
        assert {skb.users for skb in frames[:64]} == {0}
        faulty.inner.cable.set_hold(False)  # type: ignore[attr-defined]  # as above


ON_A_VETH = f"""
import json, select, socket
from guest.netpoll import Net, Netpoll, netpoll_parse_options, netpoll_send_udp, netpoll_setup
from guest.netpoll.clients.sequence import Receiver, Stream, generate
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.loop import Loop
from guest.netpoll.middleware.fault import FaultDevice, Faults
from guest.netpoll.netdevice import register_netdev

stream = Stream(seed=1, count=500, min_length=20, max_length=100)
kernel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
kernel.bind(("{KERNEL_IP}", 6666))
net = Net()
faulty = FaultDevice(AfPacketDevice(net, "ours"), seed=2, tx=Faults(drop=0.1, corrupt=0.1, duplicate=0.1, reorder=0.1))
register_netdev(faulty)
receiver = Receiver(stream)

def read_all():
    while select.select([kernel], [], [], 0)[0]:
        receiver.receive(kernel.recv(2048))

with Loop(net) as loop:
    np = Netpoll(net)
    netpoll_parse_options(np, "@{OUR_IP}/ours,@{KERNEL_IP}/{KERNEL_MAC}")
    netpoll_setup(np)
    for payload in generate(stream):
        netpoll_send_udp(np, payload)
        loop.run_once(0)
        read_all()
    loop.run_until(lambda: not net.context.timers, 5, "the last swapped frame")
read_all()
print(json.dumps([receiver.summary().to_dict(), dict(faulty.counts)]))
"""


@pytest.mark.netns
def test_around_a_real_interface() -> None:
    """AF_PACKET on a veth inside, the kernel's own UDP at the other end: damaged frames are dropped by its checksums."""
    with own_namespace() as ns:
        done = ns.run([sys.executable, "-c", ON_A_VETH])
    assert done.returncode == 0, done.stderr
    summary, counts = json.loads(done.stdout)
    assert summary["bad_count"] == 0
    assert counts["tx_drop"] <= summary["missing_count"] <= counts["tx_drop"] + counts["tx_corrupt"]
    assert 0 < summary["duplicate_count"] <= counts["tx_duplicate"]
    assert 0 < summary["late_count"] <= counts["tx_reorder"]
