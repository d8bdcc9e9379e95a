"""Receiving: through rx_hook, against a recvfrom() loop.

In: a Path. Out: rows. The same frames wait for all; draining is what is timed, not the kernel's part.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from guest.netpoll.bench.common import DRAIN, Path, Row, client, frame_for
from guest.netpoll.core import Netpoll
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import Net


def receive(path: Path, rounds: int) -> list[Row]:
    """Through rx_hook, against a recvfrom() loop; the same frames wait for both."""
    heard: list[int] = []

    def hook(_np: Netpoll, source: int, _data: bytes) -> None:
        heard.append(source)

    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((str(path.local), path.local_port))
        far = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        far.bind((path.far, 0))
        drains: dict[str, Callable[[], None]] = {"socket.recvfrom": recvfrom(sock)}
        for name, dev in (
            ("rx_hook, af_packet", AfPacketDevice(Net(), path.near, rcvbuf=1 << 20)),
            ("rx_hook, rings", AfPacketRingDevice(Net(), path.near)),
        ):
            drains[name] = until_heard(stack.enter_context(client(dev, path, hook)), heard)
        best = _drained_by_turns(drains, far, frame_for(path), rounds)
    goals = {"rx_hook, rings": 1.0}
    return [Row(n, us, "socket.recvfrom", best["socket.recvfrom"] / us, goals.get(n, 0)) for n, us in best.items()]


def _drained_by_turns(
    drains: Mapping[str, Callable[[], None]], far: socket.socket, frame: bytes, rounds: int
) -> dict[str, float]:
    best = dict.fromkeys(drains, float("inf"))
    for _ in range(rounds):
        for _ in range(DRAIN):
            far.send(frame)
        for name, drain in drains.items():
            start = time.perf_counter()
            drain()
            best[name] = min(best[name], (time.perf_counter() - start) / DRAIN * 1e6)
    return best


def recvfrom(sock: socket.socket) -> Callable[[], None]:
    """What anybody would write."""

    def drain() -> None:
        for _ in range(DRAIN):
            sock.recvfrom(2048)

    return drain


def until_heard(np: Netpoll, heard: list[int]) -> Callable[[], None]:
    """Interrupts and softirqs, until the hook has had them all."""
    dev = np.dev
    assert dev is not None

    def drain() -> None:
        heard.clear()
        while len(heard) < DRAIN:
            do_irq(dev)
            do_softirq(dev.ctx)

    return drain
