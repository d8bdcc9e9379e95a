"""Frames through a bond of two slaves, in any mode: received on either, sent to whichever the mode chooses.

In: mode and hash policy (an octet each), then what happens, each of a kind (an octet): a frame is received by a slave, or
given to the bond to send; a cable is pulled or mended; time passes. Held: nothing raises; what is received is passed on
at most once, as it was, as the bond's; what the bond takes leaves once (a broadcast: once on every link), as it was but
for the source address of balance-tlb and -alb; what it refuses does not leave at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from guest.netpoll.bonding import Bond, Mode
from guest.netpoll.bonding.hash import bond_xmit_hash
from guest.netpoll.bonding.lacpdu import Lacpdu, frame
from guest.netpoll.bonding.params import XmitPolicy
from guest.netpoll.bonding.port import PARTNER_ADMIN
from guest.netpoll.bonding.queue_xmit import dev_hard_start_xmit
from guest.netpoll.netdevice import NetdevTx, dev_open, unregister_netdev
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.wire.ethernet import ETH_P_SLOW
from guest.tests.bonding_bench import Bench
from guest.tests.fuzz.frames import PEER_MAC, mixed_frames
from guest.tests.fuzz.octets import Octets, block
from guest.tests.fuzz.table import Target

RECEIVE, SEND, CABLE, TIME = range(4)
SECONDS = (0.05, 0.2, 1.0, 3.0)
SLAVES = 2
HASH_BITS = 32


@dataclass
class World:
    """The bench with the bond at its left end, and what came out of either end since it was last looked at."""

    bench: Bench
    bond: Bond
    passed: list[SkBuff] = field(default_factory=list)
    sent: list[tuple[str, bytes]] = field(default_factory=list)


def run(data: bytes) -> None:
    octets = Octets(data)
    mode, policy = tuple(Mode)[octets.u8() % 7], tuple(XmitPolicy)[octets.u8() % 3]
    made = _world(mode, policy)
    try:
        while octets:
            what = octets.u8()
            _happen(made, what & 3, what >> 2, octets)
    finally:
        for net in (made.bench.left, made.bench.right):
            for dev in list(net.devices.values())[::-1]:
                unregister_netdev(dev)


def _world(mode: Mode, policy: XmitPolicy) -> World:
    bench = Bench(SLAVES)
    for dev in bench.r:
        dev_open(dev)
    made = World(bench, bench.bond(mode=mode, xmit_hash_policy=policy))
    bench.left.ptype_all.append(made.passed.append)
    bench.right.ptype_all.append(lambda skb: made.sent.append((_name(skb), bytes(skb.data))))
    return made


def _name(skb: SkBuff) -> str:
    return skb.dev.name if skb.dev is not None else ""


def _happen(made: World, kind: int, which: int, octets: Octets) -> None:
    made.passed.clear()
    made.sent.clear()
    if kind == RECEIVE:
        _receive(made, which % SLAVES, octets.block())
    elif kind == SEND:
        _send(made, octets.block())
    elif kind == CABLE:
        (made.bench.cut if which & 2 else made.bench.mend)(which % SLAVES)
    else:
        made.bench.run(SECONDS[which % len(SECONDS)])


def _receive(made: World, which: int, data: bytes) -> None:
    made.bench.l[which].hardware_receive(data)
    made.bench.settle()
    assert [skb.data for skb in made.passed] in ([], [data])
    assert all(skb.dev is made.bond and skb.users == 0 for skb in made.passed)
    if made.bond.mode in (Mode.ROUNDROBIN, Mode.XOR, Mode.BROADCAST):
        assert made.passed, "the bond ate a frame"


def _send(made: World, data: bytes) -> None:
    for policy in XmitPolicy:
        assert 0 <= bond_xmit_hash(data, policy) < 1 << HASH_BITS
    skb = SkBuff(data)
    taken = dev_hard_start_xmit(made.bond, skb) is NetdevTx.OK
    made.bench.settle()
    left = [
        (name, frame) for name, frame in made.sent if frame[12:14] != ETH_P_SLOW.to_bytes(2, "big") or frame == data
    ]
    if not taken:
        assert left == []
        assert (skb.data, skb.users) == (data, 1), "refused, but not given back as it was"
        return
    copies = len({name for name, _ in left}) if made.bond.mode is Mode.BROADCAST else 1
    assert len(left) == copies >= 1
    assert all(_same(made.bond.mode, frame, data) for _, frame in left)


def _same(mode: Mode, out: bytes, data: bytes) -> bool:
    if mode in (Mode.TLB, Mode.ALB):
        return out[:6] + out[12:] == data[:6] + data[12:]
    return out == data


def encoded() -> Iterator[bytes]:
    frames = list(mixed_frames())
    pull, mend, wait = bytes((CABLE | 2 << 2,)), bytes((CABLE,)), bytes((TIME | 2 << 2,))
    for mode in range(7):
        for policy in range(3):
            some = frames[policy::3]
            received = b"".join(bytes((RECEIVE | (at & 1) << 2,)) + block(data) for at, data in enumerate(some))
            sent = b"".join(bytes((SEND,)) + block(data) for data in some)
            yield bytes((mode, policy)) + received[:300]
            yield bytes((mode, policy)) + sent[:200] + pull + wait + sent[:100] + mend + wait + sent[:100]
    yield bytes((4, 0, RECEIVE)) + block(frame(Lacpdu(PARTNER_ADMIN, PARTNER_ADMIN), PEER_MAC)) + wait
    yield bytes((1, 2, SEND)) + block(b"") + bytes((SEND,)) + block(b"\0" * 13)


TOKENS = (b"\x08\x00\x45", b"\x86\xdd\x60", b"\x88\x09\x01\x01", b"\x01\x80\xc2\x00\x00\x02", b"\xff" * 6)
TARGET = Target(run, encoded, TOKENS, max_len=500)
