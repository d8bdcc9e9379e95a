"""What each layer costs a frame: cumulative measurements, and their differences.

In: a Path. Out: rows without a ratio.
"""

from __future__ import annotations

import time

from guest.netpoll.bench.common import (
    COALESCE,
    MESSAGE,
    Case,
    Path,
    Row,
    by_turns,
    client,
    mac,
    one_by_one,
)
from guest.netpoll.core import Netpoll
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.netdevice import NETDEV_TX_OK, Net, NetDevice, NetdevTx
from guest.netpoll.send import netpoll_send_udp
from guest.netpoll.skbuff import SkBuff


class NullDevice(NetDevice):
    """Takes every frame and forgets it: what is measured through it is the stack alone."""

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Free it."""
        skb.users = 0
        return NETDEV_TX_OK


def layers(path: Path, rounds: int) -> list[Row]:
    """What each layer costs a frame that is sent: cumulative measurements, and their differences."""
    null = NullDevice(Net(), path.near, mac(path.near))
    ring = AfPacketRingDevice(Net(), path.near, tx_coalesce=COALESCE)
    with client(null, path) as nowhere, client(ring, path) as np:
        best = by_turns(
            {"frame": _frames(np), "skb": _skbs(ring), "null": one_by_one(nowhere), "ring": one_by_one(np)},
            rounds=rounds,
        )
        kernel = _kernel_share(np, ring, rounds)
    rest = best["null"] - best["frame"] - best["skb"]
    return [
        Row("layer: headers and checksums", best["frame"]),
        Row("layer: sk_buff", best["skb"]),
        Row("layer: netpoll_send_udp, netpoll_send_skb", rest),
        Row("layer: ring driver, descriptor", best["ring"] - best["null"] - kernel),
        Row(f"layer: kernel, doorbell for {COALESCE}", kernel),
    ]


def _frames(np: Netpoll) -> Case:
    build, message = np.frame, MESSAGE
    assert build is not None

    def case(frames: int) -> None:
        for _ in range(frames):
            build(message)

    return case


def _skbs(dev: NetDevice) -> Case:
    data = bytes(42) + MESSAGE

    def case(frames: int) -> None:
        for _ in range(frames):
            SkBuff(data, dev, 0x800)

    return case


def _kernel_share(np: Netpoll, ring: AfPacketRingDevice, rounds: int) -> float:
    """The doorbell alone, per frame: COALESCE - 1 descriptors are written, then it is rung."""
    best = float("inf")
    for _ in range(rounds * 4):
        for _ in range(COALESCE - 1):
            netpoll_send_udp(np, MESSAGE)
        start = time.perf_counter()
        ring.doorbell()
        best = min(best, (time.perf_counter() - start) / (COALESCE - 1) * 1e6)
    return best
