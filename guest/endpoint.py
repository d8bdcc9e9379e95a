"""Endpoints of a testcase: Netpoll clients over AF_PACKET devices, the same code in the guest and on the host's taps.

In: an endpoint's description (addresses, ports, what the drop routine does, which numbered streams to expect) and the
interfaces it is on. Out: events (`sending`, `sent`, `dropped`, `queued`, `rx`, `done`, `counters`), by the catalogue of evidence. Rule: one
thread serves all devices of a side; senders are threads of their own, as CPUs are; nothing is decided here, only told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from guest.netpoll.bonding import Bond, BondParams, Mode, partner_mode
from guest.netpoll.bonding.params import LacpRate
from guest.netpoll.clients.sequence import Generator, Receiver, Stream
from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import Net, NetDevice, register_netdev
from guest.netpoll.options import netpoll_parse_options
from guest.netpoll.send import netpoll_send_udp
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.txq import netpoll_queue

Emit = Callable[..., Any]
RANGE_SECONDS = 0.02  # a `sent` range spans at most this long, so that its time says when each of it was sent
RCVBUF = 16 << 20  # bytes; where we may, else what net.core.rmem_max allows
DRAIN_SECONDS = 0.02  # the loop is idle this long before it closes: what the kernel holds for us has been taken


class Endpoint:
    """One Netpoll client of a testcase."""

    def __init__(self, net: Net, plan: Mapping[str, Any], dev: NetDevice, emit: Emit) -> None:
        self.id = str(plan["id"])
        self._emit = emit
        self._queues = plan["on_drop"] == "queue"
        self._receivers = [(str(s["label"]), Receiver(_stream(s))) for s in plan["expects"]]
        self._sending: dict[int, tuple[str, Generator]] = {}  # by stream id
        self._lock = threading.Lock()
        self.np = Netpoll(net, self.id, rx_hook=self._rx_hook, drop=self._drop)
        self.np.late = self._late
        netpoll_parse_options(
            self.np,
            f"{plan['local_port']}@{plan['local_ip']}/{dev.name},"
            f"{plan['remote_port']}@{plan['remote_ip']}/{plan['remote_mac']}",
        )
        if plan.get("local_mac"):
            self.np.local_mac, self.np.mac_given = bytes.fromhex(str(plan["local_mac"]).replace(":", "")), True
        netpoll_setup(self.np)

    def send(self, label: str, count: int, size_low: int, size_high: int, interval: float, seed: int) -> None:
        """Send `count` numbered datagrams, telling ranges as they are handed over; returns when all were."""
        generator = Generator(Stream(seed, count, size_low, size_high))
        with self._lock:
            self._sending[generator.stream_id] = (label, generator)
        self._emit("sending", endpoint=self.id, label=label, count=count, size=[size_low, size_high], seed=seed)
        first, began = 0, time.monotonic()
        for seq in range(count):
            netpoll_send_udp(self.np, generator.payload(seq))
            if interval or time.monotonic() - began >= RANGE_SECONDS:
                self._emit("sent", endpoint=self.id, label=label, first=first, last=seq)
                first, began = seq + 1, time.monotonic()
            if interval:
                time.sleep(interval)  # the testcase's own pace, not a wait for anything
                began = time.monotonic()
        if first < count:
            self._emit("sent", endpoint=self.id, label=label, first=first, last=count - 1)
        self._emit("done", endpoint=self.id, label=label, count=count)

    def _rx_hook(self, _np: Netpoll, _source: int, data: bytes) -> None:
        """A receiver that knows the datagram's stream judges it; anything else is told as text."""
        if not self._receivers:
            self._emit("rx", endpoint=self.id, text=bytes(data).decode("latin-1"))
            return
        arrival = None
        for label, receiver in self._receivers:
            arrival = receiver.receive(bytes(data))
            if arrival.why.value != "foreign":
                self._emit("rx", endpoint=self.id, label=label, seq=arrival.seq, ok=arrival.ok, why=arrival.why.value)
                return
        self._emit("rx", endpoint=self.id, label=None, seq=None, ok=False, why="foreign")

    def _drop(self, skb: SkBuff) -> None:
        """The drop routine: name the message, then lose it or hand it to netpoll_queue."""
        label, seq = self._name(bytes(skb.data)[self.np.header_len :])
        why = skb.drop_reason.value if skb.drop_reason is not None else "unknown"
        if not self._queues:
            self._emit("dropped", endpoint=self.id, label=label, seq=seq, why=why)
            return
        netpoll_queue(skb)
        kind = "queued" if skb.drop_reason is None else "dropped"
        self._emit(kind, endpoint=self.id, label=label, seq=seq, why=skb.drop_reason.value if skb.drop_reason else why)

    def _late(self, skb: SkBuff) -> None:
        """What netpoll_queue held has gone out."""
        label, seq = self._name(bytes(skb.data)[self.np.header_len :])
        self._emit("late", endpoint=self.id, label=label, seq=seq)

    def _name(self, payload: bytes) -> tuple[str | None, int | None]:
        """Label and number of one of our own messages."""
        stream_id, seq = int.from_bytes(payload[4:8], "big"), int.from_bytes(payload[8:16], "big")
        with self._lock:
            known = self._sending.get(stream_id)
        return (known[0], seq) if known is not None else (None, None)

    def counters(self) -> None:
        """Tell what became of this client's frames, and what its device counted."""
        dev = self.np.dev
        values = asdict(self.np.stats) | ({f"dev_{k}": v for k, v in dev.stats.items()} if dev is not None else {})
        self._emit("counters", endpoint=self.id, values=values)

    def close(self) -> None:
        netpoll_cleanup(self.np)


class Endpoints:
    """All endpoints of one side, and the thread that serves their devices. `emit(kind, **keys)` takes events."""

    def __init__(self, emit: Emit, qdisc_bypass: bool = True) -> None:
        self._emit = emit
        self._bypass = qdisc_bypass  # off where a capture on the same interface is to see what we send
        self._net = Net()
        self._endpoints: dict[str, Endpoint] = {}
        self._devices: dict[tuple[str, ...], NetDevice] = {}
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._setup = threading.Lock()

    def open(self, plan: Mapping[str, Any], interfaces: Sequence[str]) -> dict[str, Any]:
        """Set an endpoint up on one interface, or on several joined by our own bonding device."""
        with self._setup:
            dev = self._device(tuple(interfaces), plan.get("bond_mode"))
            endpoint = Endpoint(self._net, plan, dev, self._emit)
            self._endpoints[endpoint.id] = endpoint
            self._serve()
        return {"dev": dev.name, "mac": dev.dev_addr.hex(":"), "mtu": dev.mtu}

    def _device(self, interfaces: tuple[str, ...], guest_mode: str | None) -> NetDevice:
        if interfaces not in self._devices:
            slaves = [AfPacketDevice(self._net, name, qdisc_bypass=self._bypass, rcvbuf=RCVBUF) for name in interfaces]
            for slave in slaves:
                register_netdev(slave)
            self._devices[interfaces] = slaves[0] if guest_mode is None else self._bond(slaves, guest_mode)
        return self._devices[interfaces]

    def _bond(self, slaves: Sequence[NetDevice], guest_mode: str) -> Bond:
        """A bond of ours where a switch would be, at the other ends of the guest's bond's cables."""
        params = BondParams(mode=Mode(partner_mode(guest_mode)), lacp_rate=LacpRate.FAST)
        bond = Bond(self._net, f"bond{len(self._devices)}", params)
        register_netdev(bond)
        for slave in slaves:
            bond.enslave(slave)
        return bond

    def _serve(self) -> None:
        if self._thread is None:
            self._loop = Loop(self._net)
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="netpoll", daemon=True)
            self._thread.start()

    def _run(self, loop: Loop) -> None:
        """Serve until asked to close, and then until nothing has come for a moment."""
        while loop.run_once(DRAIN_SECONDS if self._closing else None) or not self._closing:
            pass

    def start_send(self, endpoint: str, label: str, **shape: Any) -> None:
        """`send` in a thread of its own; its failure is told as a `done` with an error."""
        threading.Thread(target=self.send, args=(endpoint, label), kwargs=shape, name=label, daemon=True).start()

    def send(self, endpoint: str, label: str, **shape: Any) -> None:
        """Send numbered datagrams from an endpoint; see Endpoint.send. Never raises."""
        try:
            self._endpoints[endpoint].send(label, **shape)
        except Exception as error:  # the harness must hear of it whatever it was
            said = f"{type(error).__name__}: {error}"
            self._emit("done", endpoint=endpoint, label=label, count=-1, error=said)

    def counters(self) -> None:
        for endpoint in self._endpoints.values():
            endpoint.counters()

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


def _stream(plan: Mapping[str, Any]) -> Stream:
    return Stream(int(plan["seed"]), int(plan["count"]), int(plan["size_low"]), int(plan["size_high"]))
