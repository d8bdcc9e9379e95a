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
from guest.netpoll.drivers.af_packet import PACKET_VNET_HDR, SOL_PACKET, VNET_HDR, VNET_NEEDS_CSUM
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.netdevice import NetDevice, register_netdev, unregister_netdev
from guest.netpoll.send import netpoll_send_udp

MESSAGE = bytes(range(100))
BATCH = 100
COALESCE = 64
SLICE = 200  # frames of one case in one round: short enough for some slices to be undisturbed
DRAIN = 200  # frames that a receiver finds waiting: as many as a UDP socket's default buffer holds
Case = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Path:
    """A veth from `near`, with the kernel's address `local`, to `far`, which has none.

    `remote` is a permanent neighbour of the kernel's at `remote_mac`, which is not far's MAC: frames for it
    end at the far end's driver, so that sending is measured and not what a receiver does.
    """

    near: str
    far: str
    local: ipaddress.IPv4Address
    remote: ipaddress.IPv4Address
    remote_mac: bytes
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


def by_turns(cases: Mapping[str, Case], frames: int = SLICE, rounds: int = 300) -> dict[str, float]:
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
    np.local_port, np.remote_port, np.remote_mac = path.local_port, path.remote_port, path.remote_mac
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
    message = MESSAGE

    def case(frames: int) -> None:
        for _ in range(frames):
            netpoll_send_udp(np, message)
        if np.dev is not None:
            np.dev.doorbell()

    return case


def send_from_far(path: Path) -> Callable[[int], None]:
    """Send that many datagrams from the far end as a kernel there would: the UDP checksum is left to the device."""
    ends = Endpoints(path.remote_mac, mac(path.near), path.remote, path.local, path.remote_port, path.local_port)
    frame = VNET_HDR.pack(VNET_NEEDS_CSUM, 0, 42, 0, 34, 6) + make_frame(ends).build_gso([MESSAGE])
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.bind((path.far, 0))

    def send(count: int) -> None:
        for _ in range(count):
            sock.send(frame)

    return send
