"""One debugger at a time."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest

from guest.netpoll.clients.gdb.packet import frame
from guest.netpoll.clients.gdb.session import MAX_REFUSED, Session, opens
from guest.netpoll.clients.sysrq import Peer
from guest.netpoll.clients.vmcore.core import Vmcore
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.tests.core_files import small_kernel

ONE = Peer(IPv4Address("10.0.0.1"), 40000, b"\2\0\0\0\0\1")
OTHER = Peer(IPv4Address("10.0.0.1"), 40001, b"\2\0\0\0\0\1")
HELLO, WHY, BYE = frame(b"qSupported:x"), frame(b"?"), frame(b"D")
SUPPORTED = frame(b"PacketSize=500;qXfer:features:read+;qXfer:threads:read+")


class Told:
    """A session, and what it told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.session = Session(Vmcore(BytesSource(small_kernel())), self.lines.append, idle=60.0)

    def send(self, peer: Peer, datagrams: Iterable[bytes], now: float = 0.0) -> list[list[bytes]]:
        return [self.session.receive(peer, datagram, None, now) for datagram in datagrams]


@pytest.mark.parametrize(
    ("data", "first"),
    [(HELLO, True), (WHY, True), (b"+" + HELLO, True), (b"+", False), (b"", False), (HELLO[:-1], False),
     (HELLO[:-1] + b"!", False), (frame(b"g"), False), (frame(b"D"), False), (b"\0" * 2000, False)],
)  # fmt: skip
def test_what_a_debugger_begins_with(data: bytes, first: bool) -> None:
    assert opens(data) is first
    told = Told()
    told.send(ONE, [data])
    assert (told.session.attached == ONE) is first


def test_attach_and_detach() -> None:
    told = Told()
    assert told.send(ONE, [b"+", HELLO, b"+", BYE]) == [[], [b"+", SUPPORTED], [], [b"+", frame(b"OK")]]
    assert told.session.attached is None
    assert told.lines == ["debugger 10.0.0.1:40000 attached", "debugger 10.0.0.1:40000 detached"]


def test_the_last_reply_is_said_again_after_detaching() -> None:
    told = Told()
    told.send(ONE, [HELLO, b"+", BYE])
    assert told.send(ONE, [b"-"]) == [[frame(b"OK")]]
    assert told.session.attached is None


def test_what_comes_late_attaches_nobody() -> None:
    told = Told()
    told.send(ONE, [HELLO, b"+", BYE])
    told.send(ONE, [frame(b"g")])
    assert told.session.attached is None


def test_another_is_refused_and_counted() -> None:
    told = Told()
    told.send(ONE, [HELLO])
    assert told.send(OTHER, [b"+", HELLO, HELLO, frame(b"D")]) == [[]] * 4
    assert told.session.attached == ONE
    assert told.session.counts["refused"] == 4
    assert told.lines[1:] == ["debugger 10.0.0.1:40001 refused: 10.0.0.1:40000 is attached"]


def test_a_thousand_strangers_are_told_of_sixty_four_times() -> None:
    told = Told()
    told.send(ONE, [HELLO])
    for port in range(1000):
        told.send(Peer(ONE.ip, port, ONE.mac), [HELLO])
    assert (told.session.counts["refused"], len(told.lines)) == (1000, 1 + MAX_REFUSED)


def test_a_silent_debugger_can_be_replaced_and_a_busy_one_cannot() -> None:
    told = Told()
    told.send(ONE, [HELLO])
    told.send(ONE, [frame(b"g")], now=50.0)
    assert told.send(OTHER, [HELLO], now=100.0) == [[]]
    assert told.send(OTHER, [HELLO], now=111.0) == [[b"+", SUPPORTED]]
    assert told.send(ONE, [frame(b"g")], now=112.0) == [[]]
    assert told.session.attached == OTHER


def test_the_next_finds_a_free_place() -> None:
    told = Told()
    told.send(ONE, [HELLO, b"+", frame(b"Hg2"), b"+", BYE])
    assert told.send(OTHER, [HELLO]) == [[b"+", SUPPORTED]]
    counts = told.session.close()
    assert (counts["attached"], counts["detached"], counts["packets"]) == (2, 1, 4)
    assert told.session.close() == counts, "twice does no harm"
