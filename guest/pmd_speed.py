"""How fast a NIC is under a driver of our own, beside the kernel's sockets on the same NIC: `python3 -m guest.pmd_speed WHAT ...`.

In: what to measure, addresses, how many frames; for our driver an interface, whose NIC is taken and given back. Out: one JSON object, seconds
a frame by what was measured, and how many frames left. Rule: both sides are measured in slices of the same size, long enough to have their
share of cleaning up, and of these the median counts. The clock is the guest's.

A frame has 60 octets, 18 of payload. `send_udp` rings the doorbell for each frame, `batch` for BATCH of them; `driver` is a frame that is
there already through hard_start_xmit, `drivers` are BATCH of them through xmit_run with one doorbell. `cleaning` is a frame's share of the
poll that takes a ring's descriptors back, which is in all four. `bell` is a descriptor that is there already, and nothing but telling the NIC
of it: what bounds messages that leave one at a time. `device` is what the NIC takes for a ring that is full: one doorbell, and the wait for
the last frame.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from guest.netpoll import Netpoll, netpoll_poll, netpoll_send_udp, netpoll_send_udp_batch, netpoll_setup
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.probe import probe_interface
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import Net, dev_close, register_netdev
from guest.netpoll.skbuff import FrameRun, SkBuff

PAYLOAD = bytes(18)
BATCH, SLICE = 64, 1024  # frames; a slice is four rings and more
RINGS = 8  # that the device is measured with
HERE, GO, DONE = b"here", b"go", b"done"  # what a sender asks with until it is answered; the answers to its bursts
DISCARD, LOCAL, PEER = 9, 6665, 5002  # UDP ports
PATIENCE = 60.0  # seconds
SETTLE = 0.2  # seconds in which the NIC sends a ring


def usual(frames: int, what: Callable[[], object], each: int = 1) -> float:
    """Seconds a frame, in the median slice; one call of `what` is `each` frames."""
    slices = []
    for _ in range(max(3, frames // SLICE)):
        began = time.monotonic()
        for _ in range(SLICE // each):
            what()
        slices.append(time.monotonic() - began)
    return median(slices) / (SLICE // each * each)


def sendto(address: str, count: str) -> dict[str, float]:
    """The kernel's UDP, from Python."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        peer = (address, DISCARD)
        return {"sendto": usual(int(count), lambda: sock.sendto(PAYLOAD, peer))}


def recvfrom(port: str, count: str, burst: str) -> dict[str, float]:
    """The kernel's UDP, to Python."""
    bursts = Bursts(int(count), int(burst))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", int(port)))
        sock.settimeout(PATIENCE)
        while not bursts.over:
            data, peer = sock.recvfrom(2048)
            if answer := bursts.take(data):
                sock.sendto(answer, peer)
    return bursts.result()


class Bursts:
    """What has come: the first HERE is answered, and the last datagram of each burst."""

    def __init__(self, count: int, burst: int) -> None:
        self._count, self._burst = count, burst
        self._got, self._began = 0, 0.0
        self._took: list[float] = []
        self.over = False

    def take(self, data: bytes) -> bytes:
        """The answer, if there is one."""
        if data == HERE:
            if self._began:
                return b""
        else:
            self._got += 1
            if self._got % self._burst:
                return b""
            self._took.append(time.monotonic() - self._began)
        self.over = self._got >= self._count
        self._began = time.monotonic()
        return DONE if self.over else GO

    def result(self) -> dict[str, float]:
        return {"receive": median(self._took) / self._burst, "frames": self._got}


@contextmanager
def taken(
    interface: str,
    local: str,
    remote: str,
    mac: str,
    hook: Callable[[Netpoll, int, bytes], None],
    ports: tuple[int, int],
) -> Iterator[tuple[PollModeDevice, Netpoll]]:
    """The NIC under our driver, and a client on it."""
    net = Net()
    dev = probe_interface(net, interface)
    try:
        register_netdev(dev)
        client = Netpoll(net, "speed", dev_name=dev.name, rx_hook=hook, remote_mac=bytes.fromhex(mac.replace(":", "")),
                         local_ip=ipaddress.ip_address(local), remote_ip=ipaddress.ip_address(remote),
                         local_port=ports[0], remote_port=ports[1])  # fmt: skip
        netpoll_setup(client, require_carrier=True)
        yield dev, client
        dev_close(dev)
    finally:
        dev.release()


def transmit(interface: str, local: str, remote: str, mac: str, count: str) -> dict[str, float]:
    """Our stack on our driver, layer by layer."""
    with taken(interface, local, remote, mac, lambda *_: None, (LOCAL, DISCARD)) as (dev, client):
        frames, build, builds = int(count), client.frame, client.run
        assert build is not None
        assert builds is not None
        skb, messages = SkBuff(build(PAYLOAD), dev), [PAYLOAD] * BATCH
        made = builds(messages, dev.needed_headroom)
        sent: dict[str, tuple[Callable[[], object], int]] = {
            "send_udp": (lambda: netpoll_send_udp(client, PAYLOAD), 1),
            "batch": (lambda: netpoll_send_udp_batch(client, messages), BATCH),
            "driver": (lambda: _one(dev, client, skb), 1),
            "drivers": (lambda: _many(dev, client, made), BATCH),
        }
        found = {what: usual(frames, do, each) for what, (do, each) in sent.items()}
        found |= {
            "headers and checksums": usual(frames, lambda: builds(messages, dev.needed_headroom), BATCH),
            "cleaning": _cleaning(dev, client),
            "an empty call": usual(frames, lambda: None),
            "bell": _bell(dev),
            "device": _device(dev, skb),
        }
        return found | {"frames": client.stats.sent}


def _xmit(dev: PollModeDevice, skb: SkBuff) -> None:
    skb.users = 1
    dev.hard_start_xmit(skb)


def _one(dev: PollModeDevice, client: Netpoll, skb: SkBuff) -> None:
    """As netpoll_send_skb() does it: poll while the queue is stopped."""
    while dev.xoff:
        netpoll_poll(client)
    _xmit(dev, skb)


def _many(dev: PollModeDevice, client: Netpoll, run: FrameRun) -> None:
    """The same for a batch; what found no room goes after a poll."""
    while run.count:
        while dev.xoff:
            netpoll_poll(client)
        taken = dev.xmit_run(run)
        run = run.rest(taken)


def _fill(dev: PollModeDevice, skb: SkBuff, left: int) -> None:
    """All descriptors but those `left`; no doorbell, unless none is left and the queue stops."""
    _empty(dev)
    dev.xmit_more = True
    for _ in range(dev.tx.usable - left):
        _xmit(dev, skb)
    dev.xmit_more = False


def _cleaning(dev: PollModeDevice, client: Netpoll) -> float:
    """A frame's share of netpoll_poll() over a ring that was full and that the NIC is through with."""
    assert client.frame is not None
    skb = SkBuff(client.frame(PAYLOAD), dev)
    took = []
    for _ in range(RINGS):
        _fill(dev, skb, 0)
        time.sleep(SETTLE)
        began = time.monotonic()
        netpoll_poll(client)
        took.append(time.monotonic() - began)
        if dev.xoff:
            raise RuntimeError(f"{dev.name} was not through with its ring after {SETTLE:g} s")
    return median(took) / dev.tx.usable


def _bell(dev: PollModeDevice) -> float:
    """As direct.py tells the NIC of a frame; frame and descriptor are there from the laps before."""
    tx = dev.direct_tx()
    assert tx is not None
    ring, index, at, wrap, bell = tx.ring, tx.index, tx.at, tx.wrap, tx.bell

    def tell() -> None:
        use = ring.next_to_use
        ring.next_to_use = after = use + 1
        index[at] = after & wrap
        if bell is not None and bell.events[bell.event_at] == use & wrap:
            bell.store[bell.at] = bell.value

    took = []
    for _ in range(RINGS):
        _empty(dev)
        began = time.monotonic()
        for _ in range(dev.tx.usable - 1):
            tell()
        took.append(time.monotonic() - began)
    _empty(dev)
    return median(took) / (dev.tx.usable - 1)


def _empty(dev: PollModeDevice) -> None:
    """Poll until every descriptor is back."""
    deadline = time.monotonic() + PATIENCE
    while dev.tx.in_flight() or dev.xoff:
        dev.poll(BATCH)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{dev.name}: {dev.tx.in_flight()} descriptors did not come back within {PATIENCE:g} s")


def _device(dev: PollModeDevice, skb: SkBuff) -> float:
    """A ring filled without a doorbell; then the doorbell, until the last descriptor is back: what bounds every driver."""
    took = []
    for _ in range(RINGS):
        _fill(dev, skb, 1)
        began = time.monotonic()
        dev.doorbell()
        while dev.tx.in_flight():
            dev.clean_tx()
        took.append(time.monotonic() - began)
    return median(took) / (dev.tx.usable - 1)


def receive(interface: str, local: str, remote: str, mac: str, port: str, count: str, burst: str) -> dict[str, float]:
    """Our stack on our driver: an rx_hook, by interrupt and NAPI's poll."""
    bursts = Bursts(int(count), int(burst))

    def hook(client: Netpoll, _port: int, data: bytes) -> None:
        if answer := bursts.take(data):
            netpoll_send_udp(client, answer)

    with taken(interface, local, remote, mac, hook, (int(port), PEER)) as (_, client), Loop(client.net) as loop:
        loop.run_until(lambda: bursts.over, PATIENCE, f"{count} datagrams")
    return bursts.result()


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "sendto": sendto,
    "recvfrom": recvfrom,
    "transmit": transmit,
    "receive": receive,
}

if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]](*sys.argv[2:])))
