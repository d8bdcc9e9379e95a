"""Two ends of an in-process wire, a sender on one and a receiver on the other, and a time of our own.

In: ring sizes and hooks. Out: `Wired`. The rule it keeps: no real time passes; delay() moves the clock,
and what is due at the time reached happens then, as hardware would do it under a CPU that waits.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from guest.netpoll import Context, Net, Netpoll, netpoll_cleanup, netpoll_send_udp, netpoll_setup
from guest.netpoll.core import DropRoutine, NetpollInfo, RxHook
from guest.netpoll.drivers.loopback import LoopbackDevice, wire_pair
from guest.netpoll.napi import do_irq
from guest.netpoll.send import NET_XMIT_SUCCESS
from guest.netpoll.skbuff import SkBuff

SENDER, RECEIVER = ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_interface("10.0.0.2/24")
SIX_A, SIX_B = ipaddress.ip_interface("fd00::1/64"), ipaddress.ip_interface("fd00::2/64")


class FakeTime:
    """A clock that only delay() moves; at() has something happen on the way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.delays = 0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def delay(self, seconds: float) -> None:
        self.delays += 1
        self.now += seconds
        for due in [d for d in self._due if d[0] <= self.now]:
            self._due.remove(due)
            due[1]()

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._due.append((when, what))


@dataclass
class Wired:
    """`tx` sends from `a` to `rx` on `b`; `got` are the (source port, payload) pairs that rx's hook had."""

    net: Net
    time: FakeTime
    a: LoopbackDevice
    b: LoopbackDevice
    tx: Netpoll
    rx: Netpoll
    got: list[tuple[int, bytes]] = field(default_factory=list)

    def info(self, dev: LoopbackDevice | None = None) -> NetpollInfo:
        npinfo = (dev or self.a).npinfo
        assert isinstance(npinfo, NetpollInfo)
        return npinfo

    def interrupts(self) -> None:
        """Serve interrupts of both ends until none is pending."""
        while any(end.irq_pending and not end.irq_masked for end in (self.a, self.b)):
            for end in (self.b, self.a):
                if end.irq_pending:
                    do_irq(end)

    def payloads(self) -> list[bytes]:
        return [data for _, data in self.got]


def wired(
    *,
    tx_ring: int = 4,
    rx_ring: int = 256,
    napi: bool = True,
    drop: DropRoutine | None = None,
    rx_hook: RxHook | None = None,
) -> Wired:
    """A fresh pair, set up; the sender has an rx_hook only if one is given, which the receiver always has."""
    time = FakeTime()
    net = Net(Context(time.clock, time.delay))
    a, b = wire_pair(net, tx_ring=tx_ring, rx_ring=rx_ring, napi=napi)
    a.addresses.append(SENDER)
    b.addresses.append(RECEIVER)
    got: list[tuple[int, bytes]] = []
    tx = Netpoll(net, "tx", dev_name="wire0", remote_ip=RECEIVER.ip, remote_mac=b.dev_addr, drop=drop, rx_hook=rx_hook)
    rx = Netpoll(
        net,
        "rx",
        dev_name="wire1",
        remote_ip=SENDER.ip,
        remote_mac=a.dev_addr,
        local_port=6666,
        remote_port=6665,
        rx_hook=lambda _np, source, data: got.append((source, data)),
    )
    netpoll_setup(tx)
    netpoll_setup(rx)
    return Wired(net, time, a, b, tx, rx, got)


def fill(wire: Wired) -> None:
    """Stall the hardware and take every descriptor: the queue is stopped, and polling does not help."""
    wire.a.cable.set_hold(True)
    for n in range(wire.a.tx_size):
        assert netpoll_send_udp(wire.tx, b"fill%d" % n) == NET_XMIT_SUCCESS
    assert wire.a.xoff


def wired6() -> Wired:
    """The receiver listens on an IPv6 address."""
    wire = wired()
    wire.b.addresses.insert(0, SIX_B)
    netpoll_cleanup(wire.rx)
    wire.rx.local_ip, wire.rx.remote_ip = None, SIX_A.ip
    netpoll_setup(wire.rx)
    return wire


def inject(wire: Wired, frame: bytes) -> list[bytes]:
    """Deliver a frame to the receiver's end; return what the protocol handlers got of it."""
    passed: list[bytes] = []

    def handler(skb: SkBuff) -> None:
        if skb.dev is wire.b:
            passed.append(bytes(skb.data))

    wire.net.ptype_all[:] = [handler]
    wire.b.hardware_receive(frame)
    wire.interrupts()
    return passed
