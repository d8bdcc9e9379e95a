"""Receiving: through rx_hook, against a recvfrom() loop.

In: a Path. Out: rows. The same frames wait for all; draining is what is timed, not the kernel's part.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from struct import Struct

from guest.netpoll.bench.common import DRAIN, Path, Row, client, send_from_far
from guest.netpoll.core import Netpoll
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import Net

DEADLINE = 5  # seconds for frames that are there already


def receive(path: Path, rounds: int) -> list[Row]:
    """Through rx_hook, against a recvfrom() loop; the same frames wait for both."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((str(path.local), path.local_port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, Struct("ll").pack(DEADLINE, 0))
        drains: dict[str, Callable[[], None]] = {"socket.recvfrom": recvfrom(sock)}
        for name, dev in (
            ("rx_hook, af_packet", AfPacketDevice(Net(), path.near, rcvbuf=1 << 20)),
            ("rx_hook, rings", AfPacketRingDevice(Net(), path.near)),
        ):
            drains[name] = until_heard(stack.enter_context(client(dev, path, ignore)))
        best = _drained_by_turns(drains, send_from_far(path), rounds)
    goals = {"rx_hook, rings": 1.0}
    return [Row(n, us, "socket.recvfrom", best["socket.recvfrom"] / us, goals.get(n, 0)) for n, us in best.items()]


def _drained_by_turns(
    drains: Mapping[str, Callable[[], None]], fill: Callable[[int], None], rounds: int
) -> dict[str, float]:
    best = dict.fromkeys(drains, float("inf"))
    for _ in range(rounds):
        fill(DRAIN)
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


def ignore(_np: Netpoll, _source: int, _data: bytes) -> None:
    """An rx_hook that does as much with a datagram as the recvfrom() loop."""


def until_heard(np: Netpoll) -> Callable[[], None]:
    """Interrupts and softirqs, until the hook has had them all."""
    dev = np.dev
    assert dev is not None

    def drain() -> None:
        until, late = np.stats.received + DRAIN, time.monotonic() + DEADLINE
        while np.stats.received < until:
            do_irq(dev)
            do_softirq(dev.ctx)
            if time.monotonic() > late:
                raise TimeoutError(f"{until - np.stats.received} frames did not come within {DEADLINE} s")

    return drain
