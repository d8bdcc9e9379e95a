"""What every measurement shares: the path, the rows, and turns.

In: cases, each a function that handles a number of frames. Out: microseconds a frame. The one rule: what is
compared is measured by turns, a slice of each in every round, and the best slice counts; so a busy machine
slows all of them alike.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from guest.netpoll.core import Netpoll, netpoll_setup
from guest.netpoll.drivers import rtnetlink
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.netdevice import NetDevice, register_netdev, unregister_netdev
from guest.netpoll.send import netpoll_send_udp

SIZE = 100  # octets of payload
BATCH = 100
COALESCE = 32
SLICE = 1000  # frames of one case in one round
DRAIN = 200  # frames that a receiver finds waiting: as many as a UDP socket's default buffer holds
Case = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Path:
    """Interface `near` with address `local`; `remote` is a permanent neighbour at far's MAC; `far` has no address."""

    near: str
    far: str
    local: ipaddress.IPv4Address
    remote: ipaddress.IPv4Address
    local_port: int = 6665
    remote_port: int = 6666


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `ratio` is how many times as fast as `against`; `goal` is what it should be."""

    what: str
    microseconds: float
    against: str = ""
    ratio: float = 0.0
    goal: float = 0.0

    @property
    def met(self) -> bool:
        """True if there is no goal, or it was reached."""
        return self.ratio >= self.goal


def by_turns(cases: Mapping[str, Case], frames: int = SLICE, rounds: int = 60) -> dict[str, float]:
    """Microseconds a frame of each case's best slice."""
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            case(frames)
            best[name] = min(best[name], (time.perf_counter() - start) / frames * 1e6)
    return best


@contextmanager
def client(dev: NetDevice, path: Path, hook: Callable[[Netpoll, int, bytes], None] | None = None) -> Iterator[Netpoll]:
    """A client on a device of its own, set up for the path and closed afterwards."""
    register_netdev(dev)
    np = Netpoll(dev.net, "bench", rx_hook=hook, dev_name=dev.name, local_ip=path.local, remote_ip=path.remote)
    np.local_port, np.remote_port, np.remote_mac = path.local_port, path.remote_port, mac(path.far)
    try:
        netpoll_setup(np, require_carrier=True)
        yield np
    finally:
        unregister_netdev(dev)


def mac(name: str) -> bytes:
    """An interface's MAC address."""
    return rtnetlink.link(socket.if_nametoindex(name)).address


def one_by_one(np: Netpoll) -> Case:
    """netpoll_send_udp() for each message; what the ring still holds at the end is rung for."""
    message = bytes(SIZE)

    def case(frames: int) -> None:
        for _ in range(frames):
            netpoll_send_udp(np, message)
        if np.dev is not None:
            np.dev.doorbell()

    return case


def frame_for(path: Path) -> bytes:
    """A datagram from the far end, as a kernel there would send it."""
    ends = Endpoints(mac(path.far), mac(path.near), path.remote, path.local, path.remote_port, path.local_port)
    return make_frame(ends).build(bytes(SIZE))
