"""Two machines joined by cables, on a clock that the test moves: where the bonding tests run.

In: how many cables, the parameters of each end's bond. Out: a Bench. The one rule: nothing waits; time
passes only in Bench.run(), and all that is due in it has happened when that returns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from guest.netpoll.bonding import Bond, BondParams, bond_create
from guest.netpoll.context import Context
from guest.netpoll.core import Netpoll, netpoll_setup
from guest.netpoll.drivers.loopback import LoopbackDevice, wire_pair
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import Net, NetDevice
from guest.netpoll.skbuff import SkBuff

STEP = 0.05  # seconds


class Clock:
    """Seconds that pass when told to; delay() lets them pass too, as udelay() does."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def delay(self, seconds: float) -> None:
        self.now += seconds


class Bench:
    """`left` and `right` are Nets with `cables` devices each: l0-r0, l1-r1 and so on.

    Addresses: 02:00:00:00:01:NN left, 02:00:00:00:02:NN right.
    """

    def __init__(self, cables: int = 2, *, napi: bool = True, tx_ring: int = 64) -> None:
        self.clock = Clock()
        self.left, self.right = (Net(Context(self.clock, self.clock.delay)) for _ in range(2))
        self.l: list[LoopbackDevice] = []
        self.r: list[LoopbackDevice] = []
        for number in range(cables):
            names = (f"l{number}", f"r{number}")
            left, right = wire_pair(self.left, names, self.right, napi=napi, tx_ring=tx_ring)
            left.dev_addr, right.dev_addr = bytes((2, 0, 0, 0, 1, number)), bytes((2, 0, 0, 0, 2, number))
            self.l.append(left)
            self.r.append(right)

    def bond(self, left: bool = True, dev_addr: bytes = b"", **options: object) -> Bond:
        """A bond over all devices of one end, up, with an IPv4 address: 10.0.0.1 left, 10.0.0.2 right."""
        net, devices = (self.left, self.l) if left else (self.right, self.r)
        params = BondParams(**options)  # type: ignore[arg-type]  # tests name options that exist
        bond = bond_create(net, "bond0", params, devices, dev_addr=dev_addr)
        bond.addresses = [ipaddress.IPv4Interface(f"10.0.0.{1 if left else 2}/24")]
        self.settle()
        return bond

    def cut(self, *cables: int) -> None:
        """Pull cables."""
        for number in cables:
            self.l[number].cable.set_link(False)
        self.settle()

    def mend(self, *cables: int) -> None:
        """Plug them in again."""
        for number in cables:
            self.l[number].cable.set_link(True)
        self.settle()

    def settle(self) -> None:
        """Serve interrupts, softirqs, timers and work of both ends until there are none."""
        busy = True
        while busy:
            busy = False
            for net in (self.left, self.right):
                if not net.context.crashed:
                    busy = _serve(net) or busy

    def run(self, seconds: float) -> None:
        """Let time pass, from timer to timer; what each leads to is served before the next."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min([end, *self._timers()])
            self.settle()

    def _timers(self) -> list[float]:
        contexts = [net.context for net in (self.left, self.right) if not net.context.crashed]
        return [max(context.timers[0][0], self.clock.now) for context in contexts if context.timers]

    def run_until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Let time pass until the condition holds; return how long that took. Fails after `seconds`."""
        start = self.clock.now
        while not condition():
            assert self.clock.now - start < seconds, f"not within {seconds} s"
            self.run(STEP)
        return self.clock.now - start

    def client(
        self,
        bond: NetDevice,
        other: NetDevice,
        received: list[bytes] | None = None,
        drop: Callable[[SkBuff], None] | None = None,
    ) -> Netpoll:
        """A netpoll client on `bond` that talks to `other`; its payloads are appended to `received`."""
        np = Netpoll(
            bond.net,
            drop=drop,
            rx_hook=None if received is None else lambda _np, _source, data: received.append(bytes(data)),
            dev_name=bond.name,
            remote_ip=other.addresses[0].ip,
            remote_port=6665,
            remote_mac=other.dev_addr,
        )
        netpoll_setup(np)
        return np


def _serve(net: Net) -> bool:
    """One round of what a CPU would do; True if there was anything."""
    pending = [dev for dev in net.devices.values() if isinstance(dev, LoopbackDevice) and _interrupts(dev)]
    for dev in pending:
        do_irq(dev)
    do_softirq(net.context)
    net.context.run_timers()
    return net.context.run_work() > 0 or bool(pending)


def _interrupts(dev: LoopbackDevice) -> bool:
    return dev.running and dev.irq_pending and not dev.irq_masked
