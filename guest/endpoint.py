"""Endpoints of a testcase: Netpoll clients over AF_PACKET devices, the same code in the guest and on the host's taps, or over sockets
where the host has no taps.

In: an endpoint's description (addresses, ports, driver, what its hooks do, which numbered streams to expect) and the interfaces it is
on. Out: events (`sending`, `sent`, `dropped`, `queued`, `rx`, `passed`, `echo`, `key`, `done`, `counters`, `queue`...), by the catalogue of
evidence. Rule: one thread serves all devices of a side; senders are threads of their own, as CPUs are; nothing is decided here,
only told.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from guest.client import Client, Emit
from guest.netpoll.bonding import Bond, BondParams, Mode, partner_mode
from guest.netpoll.bonding.params import LacpRate, parse_options
from guest.netpoll.context import ContextError
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.drivers.dgram import DgramDevice
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.probe import probe_interface
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import Net, NetdevEvent, NetDevice, register_netdev
from guest.netpoll.poll import netpoll_poll
from guest.netpoll.skbuff import SkBuff

QUEUE_CHANGES = 200  # of one device's queue that are told; its counters tx_stopped and tx_woken count all
RCVBUF = 16 << 20  # bytes; where we may, else what net.core.rmem_max allows
TX_RING, RX_RING = 1, 256  # descriptors, rounded up to whole blocks of 64 KiB: the fewest that TX can have
ROUND_SECONDS = (
    2.0  # of patience with one round of the loop: an interrupt and a softirq's budget of frames, on a slow guest
)
DRAIN_SECONDS = 0.02  # the loop is idle this long before it closes: what the kernel holds for us has been taken


class Endpoints:
    """All endpoints of one side, and the thread that serves their devices. `emit(kind, **keys)` takes events."""

    def __init__(
        self, emit: Emit, qdisc_bypass: bool = True, sockets: Mapping[str, socket.socket] = MappingProxyType({})
    ) -> None:
        """`sockets`: wires that are no interfaces, by name."""
        self._emit = emit
        self._sockets = sockets
        self._bypass = qdisc_bypass  # off where a capture on the same interface is to see what we send
        self._net = Net()
        self._net.ptype_all.append(self._passed)
        self._net.queue_chain.append(self._queue_changed)
        self._net.netdev_chain.append(self._device_changed)
        self._ids: dict[str, str] = {}  # the testcase's name of each device
        self._told: dict[str, str] = {}  # of those that the kernel does not drive
        self._changes: Counter[str] = Counter()
        self._endpoints: dict[str, Client] = {}
        self._devices: dict[tuple[str, ...], NetDevice] = {}
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._setup = threading.Lock()

    def open(self, plan: Mapping[str, Any], interfaces: Sequence[str]) -> dict[str, Any]:
        """Set an endpoint up on one interface, or on several joined by our own bonding device."""
        with self._setup:
            self._ids.update(zip(interfaces, plan.get("nics") or plan.get("devices", ()), strict=False))
            dev = self._device(tuple(interfaces), plan)
            endpoint = Client(self._net, plan, dev, self._emit)
            self._endpoints[endpoint.id] = endpoint
            self._serve()
        return {"dev": dev.name, "mac": dev.dev_addr.hex(":"), "mtu": dev.mtu}

    def _device(self, interfaces: tuple[str, ...], plan: Mapping[str, Any]) -> NetDevice:
        """The device on these interfaces: the first endpoint there decides which driver serves them."""
        if interfaces not in self._devices:
            slaves = [self._driver(name, plan) for name in interfaces]
            for slave in slaves:
                register_netdev(slave)
            if plan.get("stack") == "pmd":
                self._devices[interfaces] = self._poll_mode(slaves, plan)
                return self._devices[interfaces]
            guest_mode = plan["bond_mode"]
            self._devices[interfaces] = slaves[0] if guest_mode is None else self._bond(slaves, guest_mode)
        return self._devices[interfaces]

    def _driver(self, name: str, plan: Mapping[str, Any]) -> NetDevice:
        if name in self._sockets:
            return DgramDevice(self._net, name, bytes.fromhex(plan["local_mac"].replace(":", "")), self._sockets[name])
        if plan.get("stack") == "pmd":
            return probe_interface(self._net, name)
        if plan["driver"] == "ring":
            return AfPacketRingDevice(self._net, name, tx_ring=TX_RING, rx_ring=RX_RING, qdisc_bypass=self._bypass)
        return AfPacketDevice(self._net, name, qdisc_bypass=self._bypass, sndbuf=plan["sndbuf"] or 0, rcvbuf=RCVBUF)

    def _bond(self, slaves: Sequence[NetDevice], guest_mode: str) -> Bond:
        """A bond of ours where a switch would be, at the other ends of the guest's bond's cables."""
        params = BondParams(mode=Mode(partner_mode(guest_mode)), lacp_rate=LacpRate.FAST)
        bond = Bond(self._net, f"bond{len(self._devices)}", params)
        register_netdev(bond)
        for slave in slaves:
            bond.enslave(slave)
        return bond

    def _poll_mode(self, slaves: Sequence[NetDevice], plan: Mapping[str, Any]) -> NetDevice:
        """The NIC that our driver drives, or a bond of ours over several; who else would tell of their carrier than we."""
        self._told.update({slave.name: self._ids[slave.name] for slave in slaves})
        if not plan["bond"]:
            return slaves[0]
        names = {id_: name for name, id_ in self._ids.items()}
        options = {key: names.get(str(value), value) for key, value in plan["bond"].items()}
        bond = Bond(self._net, plan["devices"][0], parse_options(options))
        self._ids[bond.name] = self._told[bond.name] = bond.name
        register_netdev(bond)
        for slave in slaves:
            bond.enslave(slave)
        return bond

    def _device_changed(self, event: NetdevEvent, dev: NetDevice) -> None:
        if event is NetdevEvent.CHANGE and dev.name in self._told:
            self._emit("carrier", nic=self._told[dev.name], up=dev.carrier)

    def carriers(self) -> None:
        """Tell the carrier of each device that no kernel tells of, as it is now."""
        for name, id_ in self._told.items():
            dev = self._net.dev_get_by_name(name)
            self._emit("carrier", nic=id_, up=dev is not None and dev.carrier)

    def _serve(self) -> None:
        if self._thread is None:
            self._loop = Loop(self._net)
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="netpoll", daemon=True)
            self._thread.start()

    def _run(self, loop: Loop) -> None:
        """Serve until asked to close, and then until nothing has come for a moment."""
        try:
            while not self._net.context.crashed and (
                loop.run_once(DRAIN_SECONDS if self._closing else None) or not self._closing
            ):
                pass
        except ContextError:
            if not self._net.context.crashed:  # else it crashed between our look and the loop's
                raise
        except Exception as error:  # a defect of ours; without a word it would look like a guest that hears nothing
            self._emit("done", endpoint="", label="the loop", count=-1, error=f"{type(error).__name__}: {error}")
            raise

    def _queue_changed(self, dev: NetDevice, stopped: bool) -> None:
        """The queue of an open device stopped, or takes frames again."""
        id_ = self._ids.get(dev.name)
        if id_ is not None and dev.running and self._changes[id_] < QUEUE_CHANGES:
            self._changes[id_] += 1
            self._emit("queue", nic=id_, state="stopped" if stopped else "woken", by="netpoll")

    def _passed(self, skb: SkBuff) -> None:
        """What netpoll has left for the protocol stack."""
        for endpoint in self._endpoints.values():
            if endpoint.np.dev is skb.dev:
                endpoint.passed(skb)

    def start_send(self, endpoint: str, label: str, **shape: Any) -> None:
        """`send` in a thread of its own; its failure is told as a `done` with an error."""
        threading.Thread(target=self.send, args=(endpoint, label), kwargs=shape, name=label, daemon=True).start()

    def send(self, endpoint: str, label: str, **shape: Any) -> None:
        """Send numbered datagrams from an endpoint; see Client.send. Never raises."""
        try:
            self._endpoints[endpoint].send(label, **shape)
        except Exception as error:  # the harness must hear of it whatever it was
            said = f"{type(error).__name__}: {error}"
            self._emit("done", endpoint=endpoint, label=label, count=-1, error=said)

    def frames(self, endpoint: str, **shape: Any) -> None:
        """Send frames that are not for the peer; see Client.frames."""
        self._endpoints[endpoint].frames(**shape)

    def keys(self, endpoint: str, **shape: Any) -> None:
        """Send sysrq keys; see Client.keys."""
        self._endpoints[endpoint].keys(**shape)

    def counters(self) -> None:
        """Tell the counters of each endpoint, once the loop has told of what it is in the middle of: an echo may be on the wire before its
        hook has said so."""
        if self._thread is not None and self._thread.is_alive():
            told = threading.Event()
            self._net.context.schedule_work(told.set)
            told.wait(ROUND_SECONDS)
        for endpoint in self._endpoints.values():
            endpoint.counters()
        if self._net.context.crashed:
            self._tell_interrupts()

    def crash(self) -> None:
        """The stack's machine dies here (Context.crash()): no interrupt, no softirq, no process context any more, polling is what is left.
        Once nothing of that runs any more and each device was polled, what its interrupts are set to is told, and with the counters again."""
        self._net.context.crash()
        if self._thread is not None and self._loop is not None:
            self._loop.wake()
            self._thread.join(ROUND_SECONDS)
        for endpoint in self._endpoints.values():
            netpoll_poll(endpoint.np)
        self._tell_interrupts()

    def _tell_interrupts(self) -> None:
        for dev in list(self._net.devices.values()):
            if isinstance(dev, PollModeDevice):
                through, told = dev.bus.interrupt_state()
                self._emit("interrupts", nic=self._told[dev.name], chip=dev.irq_enabled(), bus=through, told=told)

    def close(self) -> None:
        """Take what has arrived, tell the counters, end the thread. A second call does nothing."""
        if self._thread is None or self._loop is None:
            return
        self._closing = True
        self._loop.wake()
        self._thread.join()
        self._thread = None
        self.counters()
        for endpoint in self._endpoints.values():
            endpoint.close()
        self._loop.close()
