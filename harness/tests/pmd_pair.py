"""guest/netpoll/direct.py beside the way that each message went before: two rigs with the same device, and the steps they both take.

In: a NIC's model and a seed. Out: sends, batches, polls, links that go, rings that fill, locks that others have, crashes, in the order that the seed gives;
`compare` holds frames and counters of both against each other after each. Rule: one rig sends directly where it can, takes a run's descriptors as
they stand, and makes columns of its headers; the other never does, and writes each descriptor anew for frames that were made one by one.
"""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial

from guest.netpoll import MessageTooLong, Netpoll, netpoll_poll, netpoll_send_udp, netpoll_send_udp_batch, netpoll_setup
from guest.netpoll.core import NetpollInfo
from guest.netpoll.direct import DirectXmit
from guest.netpoll.frame import FrameV4, Message
from guest.netpoll.netdevice import NetdevEvent, dev_close, dev_open
from guest.netpoll.send import FEW, NET_XMIT_SUCCESS
from guest.netpoll.skbuff import FrameRun, SkBuff
from guest.netpoll.txq import netpoll_queue
from harness.nic.faults import Setting
from harness.tests.pmd_rig import HERE, PEER, THERE, Rig

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
        pair.dev.set_mac_address(address)
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
