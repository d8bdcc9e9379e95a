"""Sending: one by one and in batches, against socket.sendto() and whoever else competes.

In: a Path. Out: rows. Sending ends when the kernel's driver has the frame; a slice on a ring with
tx_coalesce ends with its doorbell.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack

from guest.netpoll.bench.common import BATCH, COALESCE, MESSAGE, Case, Path, Row, by_turns, client, one_by_one
from guest.netpoll.core import Netpoll
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.netdevice import Net, NetDevice
from guest.netpoll.send import netpoll_send_udp_batch


def transmit(path: Path, competitors: Mapping[str, tuple[Case, float]], rounds: int) -> list[Row]:
    """One by one and in batches, against socket.sendto()."""
    devices: dict[str, NetDevice] = {
        "af_packet": AfPacketDevice(Net(), path.near),
        "rings": AfPacketRingDevice(Net(), path.near),
        f"rings, doorbell for {COALESCE}": AfPacketRingDevice(Net(), path.near, tx_coalesce=COALESCE),
        "rings, cut up by the kernel": AfPacketRingDevice(Net(), path.near, gso=True),
    }
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        cases: dict[str, Case] = {"socket.sendto": sendto(sock, path)}
        goals = {f"netpoll_send_udp, rings, doorbell for {COALESCE}": 1.0}
        goals[f"batches of {BATCH}, rings, cut up by the kernel"] = 2.0
        for name, dev in devices.items():
            np = stack.enter_context(client(dev, path))
            cases[f"netpoll_send_udp, {name}"] = one_by_one(np)
            cases[f"batches of {BATCH}, {name}"] = in_batches(np)
        best = by_turns(cases | {name: case for name, (case, _) in competitors.items()}, rounds=rounds)
    ours = f"netpoll_send_udp, rings, doorbell for {COALESCE}"
    rows = [Row(name, us, "socket.sendto", best["socket.sendto"] / us, goals.get(name, 0)) for name, us in best.items()]
    return rows + [
        Row(ours, best[ours], name, best[name] / best[ours], goal) for name, (_, goal) in competitors.items()
    ]


def sendto(sock: socket.socket, path: Path) -> Case:
    """What anybody would write."""
    address, message = (str(path.remote), path.remote_port), MESSAGE

    def case(frames: int) -> None:
        for _ in range(frames):
            sock.sendto(message, address)

    return case


def in_batches(np: Netpoll) -> Case:
    """netpoll_send_udp_batch() of BATCH messages."""
    messages = [MESSAGE] * BATCH

    def case(frames: int) -> None:
        for _ in range(frames // BATCH):
            netpoll_send_udp_batch(np, messages)

    return case
