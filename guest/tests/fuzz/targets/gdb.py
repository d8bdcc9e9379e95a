"""Datagrams of debuggers into a session of the stub, as they come, with time and identifications.

In: datagrams, each of a peer, an identification's step and seconds since the last (an octet each) and its length. Held: nothing
raises; each answer is a sign or one whole packet within the packet size; only one peer is answered at a time; the counts add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from guest.netpoll.clients.gdb.packet import Decoder, Packet, Sign, decode, encode, frame
from guest.netpoll.clients.gdb.session import MAX_REFUSED, Session
from guest.netpoll.clients.gdb.target import PACKET_SIZE
from guest.netpoll.clients.sysrq import Peer
from guest.netpoll.clients.vmcore.core import Vmcore
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.tests.core_files import TEXT, small_kernel
from guest.tests.fuzz.octets import Octets, block
from guest.tests.fuzz.table import Target

PEERS = [Peer(IPv4Address("10.0.0.1"), 40000 + at, bytes(6)) for at in range(3)]
IDLE = 60.0
VMCORE = Vmcore(BytesSource(small_kernel()))


def run(data: bytes) -> None:
    octets = Octets(data)
    told: list[str] = []
    session = Session(VMCORE, told.append, idle=IDLE)
    ident, now, answered = 1, 0.0, 0
    while octets:
        peer, step, seconds = PEERS[octets.u8() % 3], octets.u8(), octets.u8()
        ident, now = (ident + step) & 0xFFFF, now + seconds / 4
        datagram = octets.block()
        before = session.attached
        replies = session.receive(peer, datagram, ident if step < 200 else None, now)
        assert not replies or session.attached in (peer, None)
        assert not (replies and before not in (peer, None)) or seconds / 4 >= IDLE or now >= IDLE
        answered += sum(map(_check_reply, replies))
        _check_codec(datagram)
    counts = session.close()
    assert counts["packets"] + counts["resent"] >= answered - counts["packets"]
    assert counts["attached"] >= counts["detached"] + counts["replaced"]
    assert len(told) <= counts["attached"] + counts["detached"] + counts["replaced"] + MAX_REFUSED


def _check_reply(reply: bytes) -> bool:
    """One sign or one packet; True for a packet."""
    [event] = Decoder().feed(reply)
    assert event in (Sign.ACK, Sign.NAK) or isinstance(event, Packet)
    assert len(reply) <= PACKET_SIZE + 4
    return isinstance(event, Packet)


def _check_codec(datagram: bytes) -> None:
    plain = decode(datagram)
    if plain is not None:
        assert decode(encode(plain)) == plain
    pieces = Decoder()
    assert [event for octet in datagram for event in pieces.feed(bytes((octet,)))] == Decoder().feed(datagram)


REQUESTS = (
    b"qSupported:x", b"?", b"Hg2", b"g", b"p10", b"m%x,20" % TEXT, b"m0,4", b"qXfer:features:read:target.xml:0,100", b"k",
    b"qXfer:threads:read::0,fff", b"qfThreadInfo", b"qThreadExtraInfo,1", b"qRcmd,4b", b"T1", b"D", b"vCont?", b"X1,0:}]",
)  # fmt: skip


def _datagram(data: bytes, *, peer: int = 0, step: int = 1, seconds: int = 0) -> bytes:
    return bytes((peer, step, seconds)) + block(data)


def encoded() -> Iterator[bytes]:
    asked = [frame(request) for request in REQUESTS]
    yield b"".join(_datagram(request) + _datagram(b"+") for request in asked)
    yield b"".join(_datagram(request) + _datagram(request, step=0) + _datagram(b"-", seconds=8) for request in asked)
    yield b"".join(_datagram(request, step=255) for request in asked)
    yield b"".join(_datagram(asked[0], peer=at % 3, seconds=at * 40) for at in range(6))
    yield b"".join(_datagram(asked[3][at : at + 2]) for at in range(0, len(asked[3]), 2))
    yield _datagram(asked[0]) + _datagram(b"$0* #7a") + _datagram(b"\x03") + _datagram(b"$m1#00")


TOKENS = (b"$", b"#", b"+", b"-", b"}", b"*", b"qXfer:", b":read:", b"Hg", b"m", *REQUESTS)
TARGET = Target(run, encoded, TOKENS, max_len=700)
