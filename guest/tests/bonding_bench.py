"""Two machines joined by cables, on a clock that the test moves: where the bonding tests run.

In: how many cables, the parameters of each end's bond. Out: a Bench. The one rule: nothing waits; time
passes only in Bench.run(), and all that is due in it has happened when that returns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from guest.netpoll.bonding import Bond, BondParams, bond_create
from guest.netpoll.context import Context
from guest.netpoll.core import Netpoll, NetpollInfo, netpoll_cleanup, netpoll_setup
from guest.netpoll.drivers.loopback import LoopbackDevice, wire_pair
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import Net, NetDevice, NetpollSender
from guest.netpoll.skbuff import SkBuff

SLAVE_RETRIES = 1


class CoreNetpoll:
    """SlaveNetpoll over core."""

    def slave_enable_netpoll(self, dev: NetDevice, drop: Callable[[SkBuff], None]) -> Netpoll:
        np = Netpoll(dev.net, dev.name, drop=drop, dev_name=dev.name)
        npinfo = NetpollInfo(dev)
        npinfo.max_retries = npinfo.tries = SLAVE_RETRIES
        npinfo.attach(np)
        np.dev, dev.npinfo = dev, npinfo
        return np

    def slave_disable_netpoll(self, np: NetpollSender) -> None:
        assert isinstance(np, Netpoll)
        netpoll_cleanup(np)


class Clock:
    """Seconds that pass when told to; delay() lets them pass too, as udelay() does."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def delay(self, seconds: float) -> None:
        self.now += seconds


class Bench:
    """`left` and `right` are Nets with `cables` devices each: l0-r0, l1-r1 and so on."""

    def __init__(self, cables: int = 2, napi: bool = True, tx_ring: int = 64) -> None:
        self.clock = Clock()
        self.left, self.right = (Net(Context(self.clock, self.clock.delay)) for _ in range(2))
        self.l: list[LoopbackDevice] = []
        self.r: list[LoopbackDevice] = []
        for number in range(cables):
            left, right = wire_pair(self.left, (f"l{number}", f"r{number}"), self.right, napi=napi, tx_ring=tx_ring)
            left.dev_addr, right.dev_addr = bytes((2, 0, 0, 0, 1, number)), bytes((2, 0, 0, 0, 2, number))
            self.l.append(left)
            self.r.append(right)

    def bond(self, left: bool = True, **options: object) -> Bond:
        """A bond over all devices of one end, up, with an IPv4 address: 10.0.0.1 left, 10.0.0.2 right."""
        net, devices = (self.left, self.l) if left else (self.right, self.r)
        params = BondParams(**options)  # type: ignore[arg-type]  # the tests name what exists
        bond = bond_create(net, "bond0", params, devices, slave_netpoll=CoreNetpoll())
        bond.addresses = [ipaddress.IPv4Interface(f"10.0.0.{1 if left else 2}/24")]
        self.settle()
        return bond

    def peer(self) -> list[LoopbackDevice]:
        """The right end without a bond: its devices, opened."""
        from guest.netpoll.netdevice import dev_open

        for dev in self.r:
            dev_open(dev)
        self.settle()
        return self.r

    def cut(self, number: int) -> None:
        self.l[number].cable.set_link(False)
        self.settle()

    def mend(self, number: int) -> None:
        self.l[number].cable.set_link(True)
        self.settle()

    def settle(self) -> None:
        """Serve interrupts, softirqs and work of both ends until there are none."""
        busy = True
        while busy:
            busy = False
            for net in (self.left, self.right):
                busy = self._serve(net) or busy

    def _serve(self, net: Net) -> bool:
        pending = [dev for dev in net.devices.values() if getattr(dev, "irq_pending", False) and not dev.irq_masked]
        for dev in pending:
            do_irq(dev)
        do_softirq(net.context)
        net.context.run_timers()
        return net.context.run_work() > 0 or bool(pending)

    def run(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass, in steps; each step's events are served before the next."""
        end = self.clock.now + seconds
        while self.clock.now < end - 1e-9:
            self.clock.now = min(end, self.clock.now + step)
            self.settle()

    def run_until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Let time pass until the condition holds; return how long that took. Fails after `seconds`."""
        start = self.clock.now
        while not condition():
            assert self.clock.now - start < seconds, f"not within {seconds} s"
            self.run(0.05)
        return self.clock.now - start

    def client(self, bond: NetDevice, other: NetDevice, sink: list[bytes] | None = None) -> Netpoll:
        """A netpoll client on `bond` talking to the address of `other`; what it receives goes to `sink`."""
        local, remote = bond.addresses[0].ip, other.addresses[0].ip
        np = Netpoll(
            bond.net,
            dev_name=bond.name,
            local_ip=local,
            remote_ip=remote,
            remote_port=6665,
            remote_mac=other.dev_addr,
            rx_hook=None if sink is None else lambda np, source, data: sink.append(bytes(data)),
        )
        netpoll_setup(np)
        return np
