"""One netpoll client of a testcase: its hooks, its sends, and what it tells of them.

In: an endpoint's plan and the device it is on; requests to send. Out: events. Rule: hooks never wait, and what a hook is about to do
that may end the machine is told before it is done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from guest.netpoll.clients.netconsole.client import peer_of, source_of
from guest.netpoll.clients.sequence import Generator, Stream
from guest.netpoll.clients.sysrq import SysrqReceiver, SysrqTrigger, encode_keys
from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.frame import Endpoints as Ends
from guest.netpoll.frame import make_frame
from guest.netpoll.netdevice import Net, NetDevice
from guest.netpoll.options import netpoll_parse_options
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.send import NET_XMIT_SUCCESS, netpoll_send_skb, netpoll_send_udp
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.txq import netpoll_queue
from guest.netpoll.wire import WireError, arp, ethernet
from guest.strange import PAYLOAD, Other, forge, strange_frame
from guest.streams import Streams, sequence, stream_id, stream_of

Emit = Callable[..., Any]
RANGE_SECONDS = 0.02  # a `sent` range spans at most this long, so that its time says when each of it was sent
PACE = 0.001  # seconds between two strange frames: UDP has no flow control, and a NIC's receive ring 256 descriptors


class Client:
    """One Netpoll client of a testcase. Raises OptionError, SetupError, and OSError where `sysrq` finds no trigger."""

    def __init__(self, net: Net, plan: Mapping[str, Any], dev: NetDevice, emit: Emit) -> None:
        self.id = str(plan["id"])
        self._emit = emit
        self._queues = plan["on_drop"] == "queue"
        self._echoes, self._trapped = bool(plan["echo"]), bool(plan["trap"])
        self._expected, self._strange = Streams(plan["expects"]), Streams(plan["strange"])
        self._sending: dict[int, str] = {}  # stream id -> label
        self._lock = threading.Lock()
        self.np = Netpoll(net, self.id, rx_hook=self._rx_hook, drop=self._drop)
        self.np.late = self._late
        self._sysrq: SysrqReceiver | None = None
        self._trigger: SysrqTrigger | None = None
        self._set_up(plan, dev)

    def _set_up(self, plan: Mapping[str, Any], dev: NetDevice) -> None:
        """Addresses, then the trigger, then the device: the first datagram may be a key."""
        ends = f"{plan['local_port']}@{plan['local_ip']}/{dev.name},{plan['remote_port']}@{plan['remote_ip']}"
        netpoll_parse_options(self.np, f"{ends}/{plan['remote_mac']}")
        if plan.get("local_mac"):
            self.np.local_mac, self.np.mac_given = bytes.fromhex(str(plan["local_mac"]).replace(":", "")), True
        if plan["sysrq"]:
            self._trigger = SysrqTrigger()
            self._sysrq = SysrqReceiver(peer_of(self.np), self._press)
        netpoll_setup(self.np)
        if self._trapped:
            netpoll_set_trap(self.np.net, 1)

    # -- sending

    def send(self, label: str, count: int, size_low: int, size_high: int, interval: float, seed: int) -> None:
        """Send `count` numbered datagrams, telling ranges as they are handed over; returns when all were."""
        generator = Generator(Stream(seed, count, size_low, size_high))
        self._begin(generator, label)
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

    def frames(self, what: str, stream: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        """Send frames that are not for the peer, one for each number of the stream. Raises RuntimeError if one stays here."""
        generator, strangers = Generator(stream_of(stream)), Other.of(other)
        for seq in range(generator.stream.count):
            self._put(strange_frame(what, self._ends(), strangers, generator.payload(seq)))
            time.sleep(PACE)
        self._emit("frames", endpoint=self.id, label=stream["label"], what=what, count=generator.stream.count)

    def keys(self, keys: str, part: str | None, other: Mapping[str, Any]) -> None:
        """Send sysrq keys, as oneself or with another's `part` (ip, port, mac). Raises ValueError, RuntimeError."""
        ends = self._ends() if part is None else forge(self._ends(), part, Other.of(other))
        self._put(make_frame(ends).build(encode_keys(keys)))
        self._emit("keys", endpoint=self.id, keys=keys, forge=part)

    def _begin(self, generator: Generator, label: str) -> None:
        with self._lock:
            self._sending[generator.stream_id] = label

    def _ends(self) -> Ends:
        np = self.np
        assert np.local_ip is not None
        assert np.remote_ip is not None
        return Ends(np.local_mac, np.remote_mac, np.local_ip, np.remote_ip, np.local_port, np.remote_port)

    def _put(self, frame: bytes) -> None:
        skb = SkBuff(frame, self.np.dev, int.from_bytes(frame[12:14], "big"))
        skb.np = self.np
        if netpoll_send_skb(self.np, skb) != NET_XMIT_SUCCESS:
            raise RuntimeError(f"{self.id}: a frame did not leave: {skb.drop_reason}")

    # -- hooks

    def _rx_hook(self, np: Netpoll, port: int, data: bytes) -> None:
        """A receiver that knows the datagram's stream judges it; anything else is told as text."""
        known = self._strange if data in self._strange else self._expected
        told = known.judge(data) if known else {"text": data.decode("latin-1")}
        self._emit("rx", endpoint=self.id, **told)
        if self._echoes:
            sent = netpoll_send_udp(np, data) == NET_XMIT_SUCCESS
            inside = np.net.context.in_interrupt()  # the slides' "Sending Packets in the Receive Path"
            self._emit("echo", endpoint=self.id, label=told.get("label"), seq=told.get("seq"), sent=sent, inside=inside)
        if self._sysrq is not None and not self._sysrq.receive(source_of(np, port), data):
            self._emit("key", endpoint=self.id, key=None, why="refused")

    def _press(self, key: str) -> None:
        """The sink of sysrq keys. Told first: of some keys there is no afterwards."""
        self._emit("key", endpoint=self.id, key=key, why="pressed")
        assert self._trigger is not None
        self._trigger(key)

    def passed(self, skb: SkBuff) -> None:
        """A protocol handler behind netpoll: a strange frame came this far, or an answer to our ARP request."""
        data = bytes(skb.data)
        if data[PAYLOAD:] in self._strange:
            self._emit("passed", endpoint=self.id, **self._strange.judge(data[PAYLOAD:]))
        elif skb.protocol == ethernet.ETH_P_ARP:
            self._heard(data)

    def _heard(self, frame: bytes) -> None:
        try:
            said = arp.parse(frame[ethernet.HEADER_LEN :])
        except WireError:
            return
        if said.operation == arp.ARPOP_REPLY and self.np.local_ip is not None and said.tpa == self.np.local_ip.packed:
            whose, who = ".".join(map(str, said.spa)), ethernet.format_mac(said.sha)
            self._emit("arp", endpoint=self.id, ip=whose, mac=who, to=ethernet.format_mac(said.tha))

    def _drop(self, skb: SkBuff) -> None:
        """The drop routine: name the message, then lose it or hand it to netpoll_queue."""
        named = self._name(skb)
        why = skb.drop_reason.value if skb.drop_reason is not None else "unknown"
        if not self._queues:
            self._emit("dropped", endpoint=self.id, **named, why=why)
            return
        netpoll_queue(skb)
        kind = "queued" if skb.drop_reason is None else "dropped"
        self._emit(kind, endpoint=self.id, **named, why=skb.drop_reason.value if skb.drop_reason else why)

    def _late(self, skb: SkBuff) -> None:
        """What netpoll_queue held has gone out."""
        self._emit("late", endpoint=self.id, **self._name(skb))

    def _name(self, skb: SkBuff) -> dict[str, Any]:
        """Label and number of one of our own messages."""
        payload = bytes(skb.data)[self.np.header_len :]
        with self._lock:
            label = self._sending.get(stream_id(payload))
        return {"label": label, "seq": None if label is None else sequence(payload)}

    # -- the end

    def counters(self) -> None:
        """Tell what became of this client's frames, and what its device counted."""
        dev = self.np.dev
        values = asdict(self.np.stats) | ({f"dev_{k}": v for k, v in dev.stats.items()} if dev is not None else {})
        self._emit("counters", endpoint=self.id, values=values)

    def close(self) -> None:
        if self._trapped:
            netpoll_set_trap(self.np.net, -1)
        netpoll_cleanup(self.np)
        if self._trigger is not None:
            self._trigger.close()
