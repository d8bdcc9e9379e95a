"""guest/netpoll/direct.py beside the way that each message went before: the same frames, octet for octet, and the same counters.

Two rigs with the same device get the same seeded sequence of sends, batches, polls, links that go, rings that fill, locks that others have, crashes.
One sends directly where it can; the other never does. One takes a run's descriptors as they stand, and makes columns of its headers; the other writes each
descriptor anew, for frames that were made one by one.
"""

from __future__ import annotations

import random
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from guest.netpoll import MessageTooLong, Netpoll, netpoll_poll, netpoll_send_udp, netpoll_send_udp_batch, netpoll_setup
from guest.netpoll.core import NetpollInfo, netpoll_cleanup
from guest.netpoll.direct import DirectXmit
from guest.netpoll.frame import FrameV4, Message
from guest.netpoll.lanes import series
from guest.netpoll.layout.e1000 import TxSta
from guest.netpoll.lockdep import Checker, Rule
from guest.netpoll.netdevice import NetdevEvent, dev_close, dev_open
from guest.netpoll.send import FEW, NET_XMIT_SUCCESS
from guest.netpoll.skbuff import FrameRun, SkBuff
from guest.netpoll.tool.resolve import use
from guest.netpoll.txq import netpoll_queue
from harness.mutants.defect import Defect, each, seeded
from harness.nic.faults import Setting
from harness.nic.inprocess import Bar
from harness.tests.pmd_rig import DRIVERS, HERE, PEER, THERE, Rig

STEPS, TRIES = 400, 20
IDENT, IP_CHECK = 18, 24  # where they are in a frame
SIZES = (0, 1, 17, 18, 18, 18, 19, 100, 1471, 1472)


class Pair(Rig):
    """A rig with a second client on the device, whose drop routine queues. `directly`: messages that went so; `filled`: runs' descriptors
    that were written."""

    def __init__(self, model: str, direct: bool) -> None:
        super().__init__(model)
        self.direct, self.directly = direct, 0
        self.filled = 0
        fill_run = self.dev.fill_run

        def counted(slot: int, addresses: Sequence[int], sizes: array[int]) -> None:
            self.filled += len(sizes)
            fill_run(slot, addresses, sizes)

        self.dev.fill_run = counted  # type: ignore[method-assign]
        self.other = Netpoll(
            self.net, "other", drop=netpoll_queue, local_ip=HERE, remote_ip=THERE, remote_mac=PEER, local_port=1
        )
        netpoll_setup(self.other)
        self.clients = (self.np, self.other)
        self.npinfo.max_retries = self.npinfo.tries = TRIES
        self.told: list[int | str] = []

    @property
    def npinfo(self) -> NetpollInfo:
        assert isinstance(self.dev.npinfo, NetpollInfo)
        return self.dev.npinfo

    def send(self, client: int, message: Message) -> None:
        np = self.clients[client]
        if not self.direct:
            np.direct = None
        elif np.direct is not None and np.direct.__name__ == "xmit":
            np.direct = self._counted(np.direct)
        try:
            self.told.append(netpoll_send_udp(np, message))
        except MessageTooLong:
            self.told.append("too long")

    def batch(self, client: int, messages: list[bytes]) -> None:
        np = self.clients[client]
        send = netpoll_send_udp_batch
        if not self.direct:
            self.dev.tx.stamps[:] = [None] * self.dev.tx.count
            np.run, np.direct = partial(one_by_one, np), None
            send = singly if len(messages) < FEW else send
        try:
            self.told.append(send(np, messages))
        except MessageTooLong:
            self.told.append("too long")

    def near_the_end(self, client: int, size: int, field: int, until: int) -> None:
        """So many messages of that size, and the identification starts again from 0, or the IP checksum, which counts down, from 65534."""
        np = self.clients[client]
        assert isinstance(np.template, FrameV4)
        np.template.ident = 0
        check = int.from_bytes(np.template.build(bytes(size))[IP_CHECK : IP_CHECK + 2])
        np.template.ident = ((0xFFFF if field == IDENT else check) - until) & 0xFFFF

    def _counted(self, xmit: DirectXmit) -> DirectXmit:
        def counted(message: Message) -> bool:
            done = xmit(message)
            self.directly += done
            return done

        return counted

    def settle(self) -> None:
        """What is left to be done, by whom there is."""
        if self.net.context.crashed:
            netpoll_poll(self.np)
        else:
            self.serve()

    def seen(self) -> dict[str, object]:
        ring = self.dev.tx
        return {
            "frames": self.tape.sent,
            "counters": [asdict(np.stats) for np in self.clients],
            "device": dict(self.dev.stats),
            "said": self.told,
            "dropped": self.dropped,
            "came": self.got,
            "state": (self.dev.xoff, self.dev.carrier, self.dev.running, self.npinfo.tries, len(self.npinfo.txq)),
            "ring": (ring.next_to_use, ring.next_to_clean),
            "faults": self.slot.faults,
        }


def singly(np: Netpoll, messages: Iterable[bytes]) -> int:
    """What becomes of FEW messages."""
    return [netpoll_send_udp(np, message) for message in messages].count(NET_XMIT_SUCCESS)


def one_by_one(np: Netpoll, messages: Sequence[bytes], headroom: int) -> FrameRun:
    """What FrameV4.build_run() makes, of frames that build() makes."""
    assert np.frame is not None
    frames = [np.frame(message) for message in messages]
    octets = bytearray().join(bytes(headroom) + frame for frame in frames)
    return FrameRun(octets, headroom, len(frames[0]), headroom + len(frames[0]), len(frames))


Step = Callable[[Pair], None]


def message(rng: random.Random) -> Message:
    octets = rng.randbytes(rng.choice(SIZES))
    if rng.random() < 0.05:
        octets = bytes([rng.choice((0, 255))]) * len(octets)  # sums of 0 and of -0
    kinds: tuple[Callable[[bytes], Message], ...] = (bytes, bytes, bytes, bytes, bytearray, memoryview)
    return rng.choice(kinds)(octets)


def singles(rng: random.Random) -> Step:
    client, count = rng.randrange(2), rng.choice((1, 5, 40, 300))
    alike = rng.random() < 0.5
    some = [message(rng)] * count if alike else [message(rng) for _ in range(count)]

    def step(pair: Pair) -> None:
        for each_message in some:
            pair.send(client, each_message)

    return step


def batch(rng: random.Random) -> Step:
    some = [bytes(message(rng)) for _ in range(rng.choice((1, 30)))] if rng.random() < 0.5 else [rng.randbytes(18)] * 64
    client = rng.randrange(2)
    return lambda pair: pair.batch(client, some)


def runs(rng: random.Random) -> Step:
    """Batches of one length and number, from wherever the ring is, for some laps or none; now and then one is too long. What is counted up or
    down in a run may be near its end."""
    size, count, client = rng.choice((*SIZES, 1473)), rng.choice((1, FEW - 1, FEW, 64, 64, 64, 600)), rng.randrange(2)
    batches = [[rng.randbytes(size) for _ in range(count)] for _ in range(rng.choice((1, 2, 30)))]
    odd = [rng.randbytes(18)] * rng.randrange(1, 9) if rng.random() < 0.3 else []
    until, ending = rng.randrange(count), rng.choice((0, IDENT, IP_CHECK))

    def step(pair: Pair) -> None:
        if ending:
            pair.near_the_end(client, size, ending, until)
        for some in (*batches, odd):
            pair.batch(client, some)
            pair.settle()

    return step


def someone_elses_lock(rng: random.Random) -> Step:
    mine, some = rng.random() < 0.5, message(rng)

    def step(pair: Pair) -> None:
        assert pair.dev.xmit_lock.acquire(False)
        pair.dev.xmit_lock_owner = threading.get_ident() if mine else -1
        pair.send(0, some)
        pair.send(1, some)
        pair.dev.xmit_lock_owner = 0
        pair.dev.xmit_lock.release()

    return step


def stuck(rng: random.Random) -> Step:
    """The NIC takes nothing for a while: rings fill, messages are dropped or queued, and then it goes on, or is reset."""
    some, seconds = [message(rng) for _ in range(3)], rng.choice((0.0, 0.01, 0.01, 8.0))

    def step(pair: Pair) -> None:
        pair.slot.chip.fault("no-dma", Setting())
        for number in range(pair.dev.tx.count + 5):
            pair.send(number & 1, some[number % 3])
        pair.clock.advance(seconds)
        pair.slot.chip.fault("no-dma", None)
        pair.settle()

    return step


def unplugged(rng: random.Random) -> Step:
    some = message(rng)

    def step(pair: Pair) -> None:
        pair.slot.chip.plug(False)
        pair.settle()
        for _ in range(3):
            pair.send(0, some)
            pair.send(1, some)
        pair.slot.chip.plug(True)
        for _ in range(200):
            pair.clock.advance(0.05)
            pair.settle()

    return step


def down_and_up(rng: random.Random) -> Step:
    some = message(rng)

    def step(pair: Pair) -> None:
        dev_close(pair.dev)
        pair.send(0, some)
        dev_open(pair.dev)
        pair.until(lambda: pair.dev.carrier, "carrier")

    return step


def new_address(rng: random.Random) -> Step:
    address = b"\x02" + rng.randbytes(5)

    def step(pair: Pair) -> None:
        pair.dev.set_mac_address(address)  # type: ignore[attr-defined]
        pair.net.call_netdevice_notifiers(NetdevEvent.CHANGEADDR, pair.dev)

    return step


def too_long(rng: random.Random) -> Step:
    size = 1473 + rng.randrange(100)
    return lambda pair: pair.send(0, bytes(size))


def held_back(rng: random.Random) -> Step:
    """As pmd_speed does it: frames that hard_start_xmit() takes without a doorbell; that of the next is for them, too."""
    some, count = message(rng), rng.randrange(1, 5)

    def step(pair: Pair) -> None:
        assert pair.np.frame is not None
        pair.dev.xmit_more = True
        for _ in range(count):
            if not pair.dev.xoff:
                pair.dev.hard_start_xmit(SkBuff(pair.np.frame(some)))
        pair.dev.xmit_more = False

    return step


def time_passes(rng: random.Random) -> Step:
    seconds = rng.choice((0.001, 0.1, 2.0))
    return lambda pair: pair.clock.advance(seconds)


MAKERS: tuple[Callable[[random.Random], Step], ...] = (
    *[singles] * 12, *[lambda _: Pair.settle] * 6, *[lambda _: lambda pair: netpoll_poll(pair.np)] * 4, *[time_passes] * 3, *[batch] * 3, *[runs] * 2,
    someone_elses_lock, stuck, unplugged, down_and_up, new_address, too_long, held_back,
)  # fmt: skip
AFTER_A_CRASH = tuple(maker for maker in MAKERS if maker not in (down_and_up, new_address))


def compare(model: str, seed: int, steps: int = STEPS) -> int:
    """How many messages went directly. AssertionError at the first step after which the two differ."""
    rng = random.Random(seed)
    direct, slow = (Pair(model, direct) for direct in (True, False))
    crash_at = rng.randrange(steps) if seed % 2 else steps
    for number in range(steps):
        if number == crash_at:
            direct.crash()
            slow.crash()
        step = rng.choice(AFTER_A_CRASH if number >= crash_at else MAKERS)(rng)
        for pair in (direct, slow):
            step(pair)
        assert direct.seen() == slow.seen(), f"step {number} of seed {seed}"
        for pair in (direct, slow):
            pair.tape.sent.clear()
    assert slow.directly == 0
    assert slow.filled - direct.filled > 1000, "hardly a descriptor of a run has served again"
    direct.close()
    slow.close()
    return direct.directly


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", DRIVERS)
def test_the_same_frames_and_counters_as_through_hard_start_xmit(model: str, seed: int) -> None:
    assert compare(model, seed) > 1000, "it was not the direct way that was compared"


# -- seeded defects of the direct way: the comparison sees each


def _sticky(sound: Any) -> Any:
    class Sticky(list[Any]):
        """Stamps that nobody takes away."""

        def __setitem__(self, at: Any, value: Any) -> None:
            if value is not None and not isinstance(at, slice):
                super().__setitem__(at, value)

    def init(self: Any, *args: Any, **keys: Any) -> None:
        sound(self, *args, **keys)
        self.stamps = Sticky(self.stamps)

    return init


def _always_room(_sound: Any) -> Any:
    def make_room(self: Any) -> bool:
        self.tx.room = self.tx.next_to_use + 64
        return True

    return make_room


def _never_odd(sound: Any) -> Any:
    return lambda self, size: (*sound(self, size)[:-1], False)


def _tail_first(sound: Any) -> Any:
    def make(np: Any, dev: Any, npinfo: Any, tx: Any, template: Any) -> Any:
        inner = sound(np, dev, npinfo, tx, template)

        def xmit(message: Message) -> bool:
            if not dev.xoff and tx.ring.next_to_use < tx.ring.room:
                tx.index[tx.at] = tx.ring.next_to_use + 1 & tx.wrap
            return bool(inner(message))

        return xmit

    return make


def _made_once(sound: Any) -> Any:
    made: dict[int, Any] = {}
    return lambda np, dev, npinfo: made.setdefault(id(np), sound(np, dev, npinfo))


def _done_stays(_sound: Any) -> Any:
    def clean_tx(self: Any) -> None:
        ring = self.tx
        while ring.in_flight() and self._tx_status[ring.next_to_clean & ring.mask] & TxSta.DD:
            ring.next_to_clean += 1

    return clean_tx


def _deaf(sound: Any) -> Any:
    class Deaf:
        """Does not hear each tenth ring."""

        def __init__(self, real: Any) -> None:
            self.real, self.due = real, each(10)

        def __setitem__(self, at: int, value: int) -> None:
            if not self.due():
                self.real[at] = value

    return lambda store, *rest: sound(Deaf(store), *rest)


def _queue_overtaken(sound: Any) -> Any:
    """It does not see that something is queued."""

    def make(np: Any, dev: Any, _npinfo: Any, tx: Any, template: Any) -> Any:
        return sound(np, dev, SimpleNamespace(txq=(), tries=0, max_retries=0), tx, template)

    return make


def _anywhere(sound: Any) -> Any:
    """A run's stamp does not say which slot it began with."""
    return lambda self, _slot, stride, size: sound(self, 0, stride, size)


def _any_length(sound: Any) -> Any:
    return lambda self, slot, _stride, _size: sound(self, slot, 0, 0)


def _runs_only(sound: Any) -> Any:
    class RunsOnly(list[Any]):
        """Stamps of runs that no single message takes away."""

        def __setitem__(self, at: Any, value: Any) -> None:
            before = None if isinstance(at, slice) else self[at]
            if before is None or before[0] is not None:
                super().__setitem__(at, value)

    def init(self: Any, *args: Any, **keys: Any) -> None:
        sound(self, *args, **keys)
        self.stamps = RunsOnly(self.stamps)

    return init


def _counts_on(_sound: Any) -> Any:
    return lambda values, count: series(values[0], (1 << 48) - 1, count)


def _even_runs(sound: Any) -> Any:
    return lambda messages, base: sound(
        [b"\0" + message if len(message) & 1 else message for message in messages], base
    )


PMD, DIRECT = "guest.netpoll.drivers.pmd", "guest.netpoll.direct"
DEFECTS = (
    ("e1000", Defect("stamps stay when others use the slot", f"{PMD}.ring.Ring.__init__", _sticky, "", "")),
    ("tg3", Defect("a full ring is written over", f"{PMD}.device.PollModeDevice.make_room", _always_room, "", "")),
    ("virtio-net", Defect("odd lengths are summed as even ones", "guest.netpoll.frame.FrameV4.shape", _never_odd, "", "")),
    ("tg3", Defect("the tail is written before the frame", f"{DIRECT}._make", _tail_first, "", "")),
    ("e1000", Defect("a new address is not noticed", "guest.netpoll.core.direct_xmit", _made_once, "", "")),
    ("e1000", Defect("a descriptor says done before it is", f"{PMD}.e1000.E1000.clean_tx", _done_stays, "", "")),
    ("tg3", Defect("a run's stamp does not say where it began", f"{PMD}.device.PollModeDevice._lay", _anywhere, "", "")),
    ("e1000", Defect("a run's stamp does not say how long it is", f"{PMD}.device.PollModeDevice._lay", _any_length, "", "")),
    ("virtio-net", Defect("a run's stamps stay when one message takes a slot", f"{PMD}.ring.Ring.__init__", _runs_only, "", "")),
    ("tg3", Defect("a run counts on beyond 16 bits", "guest.netpoll.frame.column", _counts_on, "", "")),
    ("e1000", Defect("a run of an odd length is summed as an even one", "guest.netpoll.frame.checksums", _even_runs, "", "")),
    ("virtio-net", Defect("each tenth bell is not rung", f"{PMD}.virtio_net.Bell", _deaf, "", "")),
    ("virtio-net", Defect("tries are not restored, what is queued is overtaken", f"{DIRECT}._make", _queue_overtaken, "", "")),
)  # fmt: skip


@pytest.mark.parametrize(("model", "defect"), DEFECTS, ids=[defect.name for _, defect in DEFECTS])
def test_a_defect_of_the_direct_way_is_seen(model: str, defect: Defect) -> None:
    with seeded(defect), pytest.raises(AssertionError, match=r"step \d+ of seed"):
        [compare(model, seed) for seed in range(6)]


# -- what a comparison in one thread cannot show


@pytest.fixture(params=DRIVERS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(str(request.param), direct=True)
    yield made
    assert made.slot.faults == []
    made.close()


def test_a_direct_message_makes_no_sk_buff_and_calls_no_driver(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so it leaves when there is no memory for either, without the pool."""
    pair.np.pool.alloc = lambda *_: pytest.fail("an sk_buff")
    monkeypatch.setattr(pair.dev, "hard_start_xmit", lambda _: pytest.fail("hard_start_xmit"))
    for number in range(100):
        pair.send(0, b"%d" % number)
    assert pair.payloads() == [b"%d" % number for number in range(100)]
    assert pair.np.pool.used == 0


def test_two_cpus_send_at_once_and_each_message_leaves_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever meets the other's lock waits for it on the way that there was. The model does one thing at a time, as QEMU's do."""
    bus, write, delay = threading.RLock(), Bar._write, pair.net.context.delay

    def one_at_a_time(bar: Bar, offset: int, width: int, value: int) -> None:
        with bus:
            write(bar, offset, width, value)

    def while_nobody_writes(seconds: float) -> None:
        with bus:
            delay(seconds)

    monkeypatch.setattr(Bar, "_write", one_at_a_time)
    monkeypatch.setattr(pair.net.context, "delay", while_nobody_writes)
    some = [[b"%d %d" % (client, number) for number in range(1000)] for client in (0, 1)]
    pair.npinfo.max_retries = pair.npinfo.tries = 20000
    went: list[int] = []

    def sender(client: int) -> None:
        went.extend(netpoll_send_udp(pair.clients[client], each) for each in some[client])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        cpus = [threading.Thread(target=sender, args=(client,)) for client in (0, 1)]
        for cpu in cpus:
            cpu.start()
        for cpu in cpus:
            cpu.join(60)
    finally:
        sys.setswitchinterval(before)
    pair.serve()
    assert sorted(pair.payloads()) == sorted(some[0] + some[1])
    for client in (0, 1):
        mine = [each for each in pair.payloads() if each.startswith(b"%d " % client)]
        assert mine == some[client], "in order"
    assert went == [0] * 2000
    assert not pair.dev.xmit_lock_owner


def test_the_checker_asks_of_a_direct_message_what_it_asks_of_hard_start_xmit(pair: Pair) -> None:
    checker = Checker(pair.net.context)
    checker.watch(pair.dev)
    assert netpoll_send_udp(pair.np, b"checked") == 0
    assert checker.violations == []
    with pair.net.context.local_irq_save():
        assert netpoll_send_udp(pair.np, b"in an improper context") == 0
    assert [found.rule for found in checker.violations] == [Rule.IRQS_OFF]
    checker.close()
    with pair.net.context.local_irq_save():
        assert netpoll_send_udp(pair.np, b"nobody looks") == 0
    assert len(checker.violations) == 1
    assert pair.payloads() == [b"checked", b"in an improper context", b"nobody looks"]


def test_a_peer_that_was_resolved_anew_gets_what_is_sent_directly(pair: Pair) -> None:
    """A client whose ends have changed, as netdump's do when its server answers from another port, sends nothing to the old ones."""
    mac = bytes.fromhex("020000000099")
    pair.np.remote_port = 4711
    use(pair.np, mac)
    assert netpoll_send_udp(pair.np, b"one") == 0
    assert netpoll_send_udp_batch(pair.np, [b"two"] * 3) == 3
    assert [(frame[:6], int.from_bytes(frame[36:38])) for frame in pair.tape.sent] == [(mac, 4711)] * 4


def test_nothing_is_sent_directly_for_a_client_that_is_gone_or_with_the_old_rule(pair: Pair) -> None:
    assert pair.np.direct is not None
    netpoll_cleanup(pair.np)
    assert pair.np.direct is None
    assert netpoll_send_udp(pair.np, b"too late") != 0
    pair.net.era_recursion = True
    netpoll_setup(pair.np)
    assert pair.np.direct is None, "poll_owner is not looked at there"
    assert netpoll_send_udp(pair.np, b"as in 2.6.12") == 0
    assert pair.payloads() == [b"as in 2.6.12"]
