"""A machine of this process that plays a shipped testcase of our stack: both ends, NICs that are cables, a bond where the testcase has one.

In: a plan. Out: the events that a run of it would have written, for the judge. Rule: the stack, its clients, the way frames are described and what
a wait waits for are the real ones; NICs are `guest.netpoll.drivers.loopback`, those of `stack: pmd` our drivers on models of their chips, time is
`FakeTime`. Steps that need a kernel raise Unplayable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import guest.client
from guest.client import Client
from guest.netpoll import netpoll_poll
from guest.netpoll.bonding import Bond, BondParams, Mode, partner_mode
from guest.netpoll.context import Context
from guest.netpoll.drivers.loopback import Cable
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.lockdep import Checker, Violation
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import Net, NetdevEvent, NetDevice, dev_open, register_netdev
from guest.netpoll.skbuff import SkBuff
from harness.judge.pressed import ANSWERS, PREFIX
from harness.judge.records import Event
from harness.mutants.clockwork import FakeTime, WatchedNic
from harness.mutants.modelled import Modelled, interrupts
from harness.observe.progress import Progress
from harness.plan.model import Action, Ask, Await, EndpointPlan, Host, NicPlan, Plan, Qmp

ROUNDS = 20_000  # of interrupts without rest, before it is called a storm
STEP = 0.005  # seconds that pass while nothing but time can help
FEW, MANY = 4, 4096  # descriptors
SET_UP = 0


class Unplayable(Exception):
    """The testcase has a step that only a real guest can do."""


def play(plan: Plan, moderation: float = 0.0) -> list[Event]:
    """The evidence of one run. `moderation`: seconds by which the guest's NICs put their interrupts off. Raises Unplayable."""
    time = FakeTime()
    with _instead(guest.client, time=time):
        rig = Rig(plan, time, moderation)
        with _instead(guest.client, SysrqTrigger=partial(_Keyboard, rig.console)):
            rig.run()
    return rig.events


@contextmanager
def _instead(module: Any, **values: Any) -> Iterator[None]:
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


class _Keyboard:
    """/proc/sysrq-trigger of a kernel that acknowledges each key on its console and outlives it."""

    def __init__(self, console: Callable[[str], None]) -> None:
        self._console = console

    def __call__(self, key: str) -> None:
        self._console(PREFIX + ANSWERS[key])

    def close(self) -> None:
        pass


class Rig:
    """Both machines, their wires, and what is still to be done."""

    def __init__(self, plan: Plan, time: FakeTime, moderation: float = 0.0) -> None:
        self.plan, self.time = plan, time
        self._moderation, self._served = moderation, 0.0
        self.events: list[Event] = []
        self.models = Modelled(time)
        self.guest, self.host = (Net(Context(time.monotonic, delay)) for delay in (self.models.delay, time.delay))
        self.cables: dict[str, Cable] = {}
        self.clients: dict[str, Client] = {}
        self._todo: deque[Action] = deque()
        self._behind: deque[Callable[[], None]] = deque()  # sends in the background that have not begun
        self._busy = False
        self._waiting: tuple[Progress, int, float] | None = None
        self.checker = Checker(self.guest.context, self._violated)

    # -- telling

    def add(self, src: str, kind: str, **keys: Any) -> None:
        self.events.append({"t": self.time.stamp(), "src": src, "kind": kind, **keys})

    def console(self, text: str) -> None:
        self.add("console", "line", text=f"[{self.time.now:12.6f}] {text}")

    def _violated(self, found: Violation) -> None:
        self.console(f"BUG: {found.rule.value}: {found.subject}")

    # -- topology

    def _build(self) -> None:
        for net, side in ((self.guest, "guest"), (self.host, "host")):
            net.ptype_all.append(partial(self._passed, net))
            net.queue_chain.append(partial(self._queue, side))
        self.guest.netdev_chain.append(self._changed)
        slow = {
            nic for end in self._ours("guest") if end.driver == "ring" or end.sndbuf for nic in self._behind_of(end)
        }
        for nic in self.plan.nics:
            self._wire(nic, FEW if nic.id in slow else MANY)
        for end in (*self._ours("host"), *self._ours("guest")):
            net = self.guest if end.at == "guest" else self.host
            self.clients[end.id] = Client(
                net, end.model_dump(mode="json"), self._device(end), partial(self.add, end.at)
            )
        self.serve()

    def _ours(self, side: str) -> list[EndpointPlan]:
        if any(end.stack == "kernel" for end in self.plan.endpoints):
            raise Unplayable("the kernel's netconsole is no part of our stack")
        return [end for end in self.plan.endpoints if end.at == side]

    def _behind_of(self, end: EndpointPlan) -> tuple[str, ...]:
        bond = self.plan.scenario.guest.bonds.get(end.devices[0])
        return bond.slaves if bond else end.devices

    def _wire(self, nic: NicPlan, ring: int) -> None:
        cable = self.cables[nic.id] = Cable()
        keys = {"tap": nic.tap, "nic": nic.id, "len": 0}
        peer = next((end.local_mac for end in self._ours("host")), "02:00:00:00:00:01")
        if any(end.stack == "pmd" and nic.id in self._behind_of(end) for end in self._ours("guest")):
            tell = partial(self._frame, keys | {"dir": "in"})
            self._register(self.models.plug(self.guest, nic, _octets(nic.mac), cable, tell))
            tell = partial(self._frame, keys | {"dir": "out"})
            self._register(
                WatchedNic(self.host, nic.tap, _octets(peer), cable, tell, self.console, tx_ring=ring, rx_ring=MANY)
            )
            return
        for net, name, mac, way in ((self.guest, nic.id, nic.mac, "in"), (self.host, nic.tap, peer, "out")):
            tell = partial(self._frame, keys | {"dir": way})
            made = WatchedNic(net, name, _octets(mac), cable, tell, self.console, tx_ring=ring, rx_ring=MANY)
            self._register(made)

    def _register(self, made: NetDevice) -> None:
        register_netdev(made)
        if made.net is self.guest:
            self.checker.watch(made)

    def _frame(self, keys: Mapping[str, Any], **told: Any) -> None:
        self.add("wire", "frame", **{**keys, "wall_ns": int(self.time.now * 1e9), **told})

    def _device(self, end: EndpointPlan) -> NetDevice:
        """The NIC, or a bond of ours: at the guest's end in the testcase's mode, on the host in that of a switch."""
        nics = self._behind_of(end)
        bonds = self.plan.scenario.guest.bonds
        name = next((bond for bond, shape in bonds.items() if set(shape.slaves) == set(nics)), None)
        net, names = (self.guest, nics) if end.at == "guest" else (self.host, [self.plan.nic(nic).tap for nic in nics])
        if name is None:
            return net.devices[names[0]]
        if name not in net.devices:
            mode = bonds[name].mode if end.at == "guest" else partner_mode(bonds[name].mode)
            bond = Bond(net, name, BondParams(mode=Mode(mode)), dev_addr=net.devices[names[0]].dev_addr)
            register_netdev(bond)
            for slave in names:
                bond.enslave(net.devices[slave])
            dev_open(bond)
            self._until(lambda: bond.carrier)
        return net.devices[name]

    def _until(self, holds: Callable[[], bool]) -> None:
        for _ in range(400):
            if holds():
                return
            self.time.now += STEP
            self.serve()

    def _changed(self, event: NetdevEvent, dev: NetDevice) -> None:
        if event in (NetdevEvent.CHANGE, NetdevEvent.UP):
            self.add("guest", "carrier", nic=dev.name, up=dev.carrier)

    def _queue(self, side: str, dev: NetDevice, stopped: bool) -> None:
        if dev.running and side == "guest":
            self.add(side, "queue", nic=dev.name, state="stopped" if stopped else "woken", by="netpoll")

    def _passed(self, net: Net, skb: SkBuff) -> None:
        for client in self.clients.values():
            if client.np.net is net and client.np.dev is skb.dev:
                client.passed(skb)

    # -- time

    def serve(self) -> None:
        """Interrupts, soft interrupts, timers and work of both machines, until nothing is left that is due."""
        self.models.catch_up()
        for _ in range(ROUNDS):
            if not any(
                [
                    *(self._interrupt(dev) for net in self._nets() for dev in list(net.devices.values())),
                    *map(_soft, self._nets()),
                ]
            ):
                return
        self.add("run", "error", what="the machines never come to rest", hint="an interrupt storm in the rig")

    def _nets(self) -> tuple[Net, Net]:
        return self.host, self.guest

    def _interrupt(self, dev: NetDevice) -> bool:
        if isinstance(dev, WatchedNic) and dev.irq_pending and not dev.irq_masked:
            if dev.net is self.guest and self.time.now < self._served + self._moderation:
                return False
            self._served = self.time.now
            do_irq(dev)
            return True
        if interrupts(dev):
            do_irq(dev)
            return True
        return False

    # -- steps

    def run(self) -> None:
        """The whole testcase, from `run start` to `run end`."""
        self.add("run", "start", case=self.plan.case, wall="", versions={})
        self._build()
        self.time.idle = self._tick
        self._todo.extend(action for stage in self.plan.stages if stage.step != SET_UP for action in stage.actions)
        while self._todo or self._behind:
            self._advance()
            if self._behind:
                self._behind.popleft()()
            elif self._todo:
                self.time.now += STEP
                self.serve()
        self.serve()
        for client in self.clients.values():
            client.counters()
        if self.guest.context.crashed:
            self._tell_interrupts()
        for client in self.clients.values():
            client.close()
        self.checker.close()
        self.add("run", "end")

    def _tell_interrupts(self) -> None:
        """As guest.endpoint's of that name."""
        for dev in self.guest.devices.values():
            if isinstance(dev, PollModeDevice):
                through, told = dev.bus.interrupt_state()
                self.add("guest", "interrupts", nic=dev.name, chip=dev.irq_enabled(), bus=through, told=told)

    def _tick(self) -> None:
        self.serve()
        if not self._busy:
            self._advance()

    def _advance(self) -> None:
        """Do what can be done without more time."""
        while self._todo:
            action = self._todo[0]
            if isinstance(action, Await) and not self._reached(action):
                return
            self._todo.popleft()
            self._waiting = None
            if not isinstance(action, Await):
                self._do(action)

    def _reached(self, action: Await) -> bool:
        progress, seen, since = self._waiting or (Progress(action), 0, self.time.now)
        held = [progress.take(event) for event in self.events[seen:]][-1:]
        self._waiting = progress, len(self.events), since
        if self.time.now - since > action.within:
            keys = {"what": action.what, "of": action.of, "state": action.state, "count": action.count}
            self.add("await", "timeout", **keys, within=action.within, seen=progress.seen())
            return True
        return held == [True]

    def _do(self, action: Action) -> None:
        match action:
            case Ask(op="np_send") | Host(op="np_send"):
                shape = {key: value for key, value in action.args.items() if key not in ("endpoint", "background")}
                send = partial(self.clients[action.args["endpoint"]].send, **shape)
                if action.args["background"]:
                    self._behind.append(send)
                else:
                    self._foreground(send)
            case Host(op="np_frames" | "np_keys"):
                client = self.clients[action.args["endpoint"]]
                shape = {key: value for key, value in action.args.items() if key != "endpoint"}
                self._foreground(partial(client.frames if action.op == "np_frames" else client.keys, **shape))
            case Qmp(execute="set_link"):
                assert action.link is not None
                self.cables[action.link].set_link(bool(action.arguments["up"]))
                self.add("inject", "link", nic=action.link, state=action.state, by=action.by, way=action.way)
                self.serve()
            case Ask(op="np_crash"):
                self.checker.close()  # it would say that nothing is sent with interrupts off: that is what this is about
                self.guest.context.crash()
                for client in self.clients.values():
                    if client.np.net is self.guest:
                        netpoll_poll(client.np)
                self._tell_interrupts()
            case Ask(op="run"):  # only what waits for Linux's LACP, of modes that have none
                return
            case _:
                raise Unplayable(f"{self.plan.case}: only a real guest can do {action!r}")

    def _foreground(self, work: Callable[[], None]) -> None:
        busy, self._busy = self._busy, True
        try:
            work()
        finally:
            self._busy = busy
        self.serve()


def _soft(net: Net) -> bool:
    """Soft interrupts, timers and work of one machine; whether there was any."""
    ctx = net.context
    pending = ctx.cpu().softirq_pending
    do_softirq(ctx)
    if not ctx.may_sleep():  # somebody sends: his own way out does the rest
        return bool(pending)
    due = bool(ctx.timers) and ctx.timers[0][0] <= ctx.clock()
    ctx.run_timers()
    return bool(pending) or due or bool(ctx.work and ctx.run_work())


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
