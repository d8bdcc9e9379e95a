"""Whole frames into a device with several clients; each frame twice, since the second takes the short way of a known flow.

In: flags (an octet), then frames, each after its length. Held against `reference`, written from the RFCs: exactly the
clients that a frame is for have their hook called, with the right payload; a frame that is nobody's is passed on as
it was, unless trapped, when all are eaten; who asks for an address of ours while trapped gets the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address

from guest.netpoll import Context, Net, Netpoll, netpoll_poll, netpoll_send_udp, netpoll_set_trap, netpoll_setup
from guest.netpoll.clients.netconsole.client import source_of
from guest.netpoll.clients.sysrq import Peer
from guest.netpoll.core import NetpollInfo
from guest.netpoll.drivers.loopback import LoopbackDevice, wire_pair
from guest.netpoll.napi import do_irq
from guest.netpoll.netdevice import dev_open, unregister_netdev
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.txq import netpoll_queue
from guest.tests.fuzz import reference
from guest.tests.fuzz.frames import (
    LOCAL,
    LOCAL4,
    LOCAL6,
    OTHER,
    OUR_MAC,
    PEER,
    captured_frames,
    mixed_frames,
    near_misses,
    udp_frame,
)
from guest.tests.fuzz.octets import Octets, blocks
from guest.tests.fuzz.table import Target
from guest.tests.wired import FakeTime

TRAPPED, OLD_DRIVER, REPAIR, HELD, POLLED = 1, 2, 4, 8, 16  # flags
MAX_FRAMES = 12
ECHO_PORT = 7
log = logging.getLogger("netpoll")


@dataclass(frozen=True)
class Client:
    """A row of the table: where it listens, whom it hears (None: anybody), what its hook does besides noting."""

    local: str
    port: int
    remote: str | None
    does: str = ""


CLIENTS = (
    Client(LOCAL, 0, None),  # every port, every peer
    Client(LOCAL, 6666, PEER),
    Client(OTHER, 514, None, "raises"),
    Client(LOCAL, ECHO_PORT, PEER, "answers"),
    Client("fd00::1", 6666, None),
    Client("fd00::1", 0, "fd00::2"),
)
LOCALS = {ip_address(client.local).packed for client in CLIENTS}

Call = tuple[int, int, bytes]  # client, source port, payload


@dataclass
class World:
    """Two ends of a wire: ours with the clients, and the peer's, which notes what we sent."""

    ours: LoopbackDevice
    peer: LoopbackDevice
    time: FakeTime
    clients: list[Netpoll] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    passed: list[SkBuff] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    def hook(self, number: int, np: Netpoll, source: int, data: bytes) -> None:
        self.calls.append((number, source, data))
        assert np.rx_skb is not None
        frame = bytes(np.rx_skb.data)
        whole = reference.datagram(frame)
        assert whole is not None, "the frame that a hook sees is no datagram"
        assert source_of(np, source) == Peer(ip_address(whole.src), whole.source, frame[6:12])
        if CLIENTS[number].does == "answers":
            netpoll_send_udp(np, data[:100])
        if CLIENTS[number].does == "raises":
            raise RuntimeError("a hook that fails")


@contextmanager
def world(flags: int) -> Iterator[World]:
    time = FakeTime()
    net, peer_net = Net(Context(time.clock, time.delay)), Net(Context(time.clock, time.delay))
    ours, peer = wire_pair(net, peer_net=peer_net, napi=not flags & OLD_DRIVER)
    made = World(ours, peer, time)
    dev_open(peer)
    net.ptype_all.append(made.passed.append)
    peer_net.ptype_all.append(lambda skb: made.sent.append(bytes(skb.data)))
    for number in range(len(CLIENTS)):
        made.clients.append(_client(made, number))
    netpoll_setup(Netpoll(net, "sender", dev_name="wire0", local_ip=ip_address("10.0.0.4"), remote_ip=ip_address(PEER)))
    log.disabled = True  # of hooks that fail
    try:
        yield made
    finally:
        log.disabled = False
        unregister_netdev(ours)
        unregister_netdev(peer)


def _client(made: World, number: int) -> Netpoll:
    row = CLIENTS[number]
    local = ip_address(row.local)
    np = Netpoll(
        made.ours.net,
        f"client{number}",
        dev_name="wire0",
        local_ip=local,
        remote_ip=ip_address(row.remote or ("0.0.0.0" if local.version == 4 else "::")),
        local_port=row.port,
        drop=netpoll_queue,
        rx_hook=partial(made.hook, number),
    )
    netpoll_setup(np)
    assert isinstance(made.ours.npinfo, NetpollInfo)
    made.ours.npinfo.max_retries = made.ours.npinfo.tries = 3
    return np


def run(data: bytes) -> None:
    octets = Octets(data)
    flags = octets.u8()
    with world(flags) as made:
        if flags & TRAPPED:
            netpoll_set_trap(made.ours.net, 1)
        made.ours.cable.set_hold(bool(flags & HELD))
        while octets:
            frame = octets.block()
            if flags & REPAIR:
                frame = reference.repaired(frame)
            _receive(made, flags, frame)
            _receive(made, flags, frame)
        _let_go(made)


def _receive(made: World, flags: int, frame: bytes) -> None:
    made.calls.clear()
    made.passed.clear()
    made.sent.clear()
    made.ours.hardware_receive(frame)
    trapped = bool(flags & TRAPPED) or _polled(made, flags)
    _serve(made)
    wanted = calls_for(frame)
    assert made.calls == wanted, f"hooks called with {made.calls}, expected {wanted}"
    passed = [] if wanted or trapped else [frame]
    assert [skb.data for skb in made.passed] == passed, "passed on what is ours, or ate what is not"
    assert all(skb.users == 0 for skb in made.passed), "a frame was not freed"
    if not flags & HELD:
        _check_sent(made.sent, frame, trapped=trapped)


def _polled(made: World, flags: int) -> bool:
    """Let netpoll poll for the frame; True if all that it finds is trapped (NAPI: netpoll_rx() with rx_drop)."""
    if flags & POLLED:
        netpoll_poll(made.clients[0])
    return bool(flags & POLLED) and not flags & OLD_DRIVER


def _serve(made: World) -> None:
    """Interrupts of both ends, until none is pending."""
    while any(end.irq_pending for end in (made.ours, made.peer)):
        do_irq(made.ours)
        do_irq(made.peer)


def _let_go(made: World) -> None:
    """The wire takes frames again: whatever was queued leaves, and every frame is accounted for."""
    made.ours.cable.set_hold(False)
    for _ in range(4):
        _serve(made)
        made.ours.ctx.run_work()
        made.time.delay(1.0)
        made.ours.ctx.run_timers()
    for np in made.clients:
        stats = np.stats
        assert stats.queued == stats.late, f"{np.name}: {stats.queued} queued, {stats.late} of them sent"
        assert stats.dropped == stats.queued + stats.lost, f"{np.name}: {stats}"


def calls_for(frame: bytes) -> list[Call]:
    """By the reference: whose hook is called."""
    found = reference.datagram(frame)
    if found is None or not (frame[:6] == OUR_MAC or frame[0] & 1):
        return []
    return [
        (number, found.source, found.payload)
        for number, row in enumerate(CLIENTS)
        if found.dst == ip_address(row.local).packed
        and row.port in (0, found.dest)
        and (row.remote is None or ip_address(row.remote).packed == found.src)
    ]


def _check_sent(sent: list[bytes], frame: bytes, *, trapped: bool) -> None:
    """Exactly the answers that `frame` calls for."""
    echoes = [payload for number, _, payload in calls_for(frame) if CLIENTS[number].does == "answers"]
    got = [reply.payload for reply in map(reference.datagram, sent) if reply is not None]
    assert got == [payload[:100] for payload in echoes]
    answers = [reply for reply in sent if reference.datagram(reply) is None]
    wanted = [answer for answer in (_arp_answer(frame), _neighbour_answer(frame)) if trapped and answer]
    assert answers == wanted, f"answered {[reply.hex() for reply in answers]}, not {[reply.hex() for reply in wanted]}"


def _arp_answer(frame: bytes) -> bytes:
    """RFC 826: to who asked, from the address asked for; b"" if nobody is to answer."""
    hardware, rest, tpa = frame[14:16], frame[16:22], frame[38:42]
    asks = frame[12:14] == b"\x08\x06" and hardware in (b"\0\1", b"\0\6") and rest == bytes.fromhex("080006040001")
    if not asks or tpa not in LOCALS:
        return b""
    sha, spa = frame[22:28], frame[28:32]
    return sha + OUR_MAC + bytes.fromhex("0806000108000604 0002") + OUR_MAC + tpa + sha + spa


def _neighbour_answer(frame: bytes) -> bytes:
    """RFC 4861 7.2.4; b"" if nobody is to answer."""
    found = reference.solicitation(frame)
    for_us = frame[:6] == OUR_MAC or (frame and frame[0] & 1)
    if found is None or not for_us or found[1] not in LOCALS:
        return b""
    src, target, lladdr = found
    probe = src == bytes(16)
    dst = bytes.fromhex("ff020000000000000000000000000001") if probe else src
    mac = bytes.fromhex("333300000001") if probe else lladdr or frame[6:12]
    flags = bytes.fromhex("20000000" if probe else "60000000")
    message = b"\x88\0\0\0" + flags + target + b"\x02\x01" + OUR_MAC
    head = mac + OUR_MAC + b"\x86\xdd" + b"\x60\0\0\0" + len(message).to_bytes(2, "big") + b"\x3a\xff" + target + dst
    return reference.repaired(head + message)


def encoded() -> Iterator[bytes]:
    frames = list(mixed_frames())
    for flags in (0, REPAIR, TRAPPED | REPAIR, OLD_DRIVER, POLLED | REPAIR, TRAPPED | HELD):
        yield bytes((flags,)) + blocks(frames[:MAX_FRAMES])
        yield bytes((flags,)) + blocks(frames[MAX_FRAMES:])
    for flags, frame in zip((0, REPAIR, TRAPPED) * len(frames), frames, strict=False):
        yield bytes((flags,)) + blocks([frame])
    yield bytes((HELD,)) + blocks([udp_frame(ECHO_PORT, b"queued")] * MAX_FRAMES)
    missed = list(near_misses())
    for at in range(0, len(missed), 6):
        some = [udp_frame(6666), *missed[at : at + 6]]  # of a flow that is known by then
        yield b"\0" + blocks(some)
        yield bytes((TRAPPED,)) + blocks(some)
    for frame in captured_frames(2):
        yield bytes((REPAIR,)) + blocks([OUR_MAC + frame[6:30] + LOCAL4 + frame[34:]])


TOKENS = (
    b"\x08\x00\x45\x00",
    b"\x08\x06",
    b"\x86\xdd\x60",
    b"\x81\x00",
    b"\x1a\x0a",
    LOCAL4,
    LOCAL6,
    OUR_MAC,
    b"\xff" * 6,
)
TARGET = Target(run, encoded, TOKENS, max_len=600)
