"""Frames through a bond of two slaves, in any mode: received on either, sent to whichever the mode chooses.

In: mode and choices (an octet each), then what happens, each of a kind (an octet): a frame is received by a slave, or
given to the bond to send; a cable is pulled, mended or stalled; time passes. Held: nothing raises; what is received is passed on
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
from guest.tests.fuzz.frames import PEER_MAC, ipv4_frame, mixed_frames, udp_frame
from guest.tests.fuzz.octets import Octets, block
from guest.tests.fuzz.table import Target

RECEIVE, SEND, CABLE, TIME = range(4)
PULL, STALL = 2, 4  # a cable, in bits; neither: it is mended
TX_RING = 4  # descriptors of a slave
SECONDS = (0.05, 0.2, 1.0, 3.0)
SLAVES = 2
HASH_BITS = 32
POLICIES = (*XmitPolicy, XmitPolicy.LAYER2)


@dataclass
class World:
    """The bench with the bond at its left end, and what came out of either end since it was last looked at."""

    bench: Bench
    bond: Bond
    passed: list[SkBuff] = field(default_factory=list)
    sent: list[tuple[str, bytes]] = field(default_factory=list)


def run(data: bytes) -> None:
    octets = Octets(data)
    made = _world(tuple(Mode)[octets.u8() % 7], octets.u8())
    try:
        while octets:
            what = octets.u8()
            _happen(made, what & 3, what >> 2, octets)
    finally:
        for net in (made.bench.left, made.bench.right):
            for dev in list(net.devices.values())[::-1]:
                unregister_netdev(dev)


def _world(mode: Mode, choices: int) -> World:
    """`choices`: the hash policy, and whether balance-tlb and -alb choose by the hash alone."""
    bench = Bench(SLAVES, tx_ring=TX_RING)
    for dev in bench.r:
        dev_open(dev)
    made = World(bench, bench.bond(mode=mode, xmit_hash_policy=POLICIES[choices & 3], tlb_dynamic_lb=not choices & 4))
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
        (made.bench.cut if which & PULL else made.bench.mend)(which % SLAVES)
        made.bench.l[which % SLAVES].cable.set_hold(bool(which & STALL))
        made.bench.settle()
    else:
        made.bench.run(SECONDS[which % len(SECONDS)])


def _receive(made: World, which: int, data: bytes) -> None:
    active = made.bond.curr_active_slave
    is_active = active is not None and active.dev is made.bench.l[which]
    made.bench.l[which].hardware_receive(data)
    made.bench.settle()
    assert [skb.data for skb in made.passed] in ([], [data])
    assert all(skb.dev is made.bond and skb.users == 0 for skb in made.passed)
    if made.bond.mode is not Mode.AD and made.bond.curr_active_slave is active:
        assert bool(made.passed) == _is_heard(made.bond.mode, data, is_active=is_active)


def _is_heard(mode: Mode, data: bytes, *, is_active: bool) -> bool:
    """bond_should_deliver(): an inactive slave is for nothing, in balance-alb for unicast."""
    if is_active or mode in (Mode.ROUNDROBIN, Mode.XOR, Mode.BROADCAST):
        return True
    return mode is Mode.ALB and data != b"" and not data[0] & 1


def _send(made: World, data: bytes) -> None:
    for policy in XmitPolicy:
        assert 0 <= bond_xmit_hash(data, policy) < 1 << HASH_BITS
    skb = SkBuff(data, made.bond)
    taken = dev_hard_start_xmit(made.bond, skb) is NetdevTx.OK
    made.bench.settle()
    left = [
        (name, frame) for name, frame in made.sent if frame[12:14] != ETH_P_SLOW.to_bytes(2, "big") or frame == data
    ]
    if not taken:
        assert left == []
        assert (skb.data, skb.users, skb.dev) == (data, 1, made.bond), "refused, but not given back as it was"
        return
    if any(dev.cable.hold for dev in made.bench.l):
        return
    copies = len({name for name, _ in left}) if made.bond.mode is Mode.BROADCAST else 1
    assert len(left) == copies >= 1
    assert all(_same(made.bond.mode, frame, data) for _, frame in left)


def _same(mode: Mode, out: bytes, data: bytes) -> bool:
    if mode in (Mode.TLB, Mode.ALB):
        return out[:6] + out[12:] == data[:6] + data[12:]
    return out == data


def _each(kind: int, frames: list[bytes]) -> bytes:
    """The frames, received by either slave in turn, or sent."""
    return b"".join(bytes((kind | (at & 1) << 2,)) + block(data) for at, data in enumerate(frames))


MEND, WAIT = bytes((CABLE, CABLE | 1 << 2)), bytes((TIME | 2 << 2,))
PULL_ONE, STALL_BOTH = bytes((CABLE | PULL << 2,)), bytes((CABLE | STALL << 2, CABLE | (STALL | 1) << 2))


def encoded() -> Iterator[bytes]:
    frames = list(mixed_frames())
    flows = [udp_frame(port) for port in (6666, 6667, 6668)]
    for mode in range(7):
        full = _each(SEND, [frame for frame in flows for _ in range(TX_RING + 2)])
        yield bytes((mode, 4)) + STALL_BOTH + full + MEND + _each(SEND, flows)
        for policy in range(3):
            some = frames[policy::3]
            yield bytes((mode, policy)) + _each(RECEIVE, some)
            sent = _each(SEND, some[:3])
            yield bytes((mode, policy)) + sent + PULL_ONE + sent + WAIT + sent + MEND + WAIT + sent
    yield bytes((4, 0, RECEIVE)) + block(frame(Lacpdu(PARTNER_ADMIN, PARTNER_ADMIN), PEER_MAC)) + WAIT
    yield bytes((1, 2)) + _each(SEND, [b"", bytes(13)])
    quoted = b"\3\3" + bytes(6) + udp_frame(6666)[14:42]
    icmp = (b"", b"\x08", b"\x08\0\0\0\x12\x34\0\1", quoted)
    yield bytes((2, 1)) + _each(SEND, [*(ipv4_frame(data, protocol=1) for data in icmp), ipv4_frame(b"\0", protocol=6)])


TOKENS = (b"\x08\x00\x45", b"\x86\xdd\x60", b"\x88\x09\x01\x01", b"\x01\x80\xc2\x00\x00\x02", b"\xff" * 6)
TARGET = Target(run, encoded, TOKENS, max_len=900)
