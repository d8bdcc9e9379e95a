"""Whether memory stays flat over millions of frames.

In: a Path. Out: resident octets as it goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path as File

from guest.netpoll.bench.common import COALESCE, DRAIN, Path, client, one_by_one, send_from_far
from guest.netpoll.core import Netpoll
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import Net


def memory(path: Path, frames: int = 10_000_000, step: int = 10_000) -> Iterator[tuple[int, int]]:
    """Send `frames` through the ring and receive as many; yield (frames so far, resident octets) as it goes."""
    heard: list[int] = [0]

    def hook(_np: Netpoll, _source: int, _data: bytes) -> None:
        heard[0] += 1

    with ExitStack() as stack:
        np = stack.enter_context(client(AfPacketRingDevice(Net(), path.near, tx_coalesce=COALESCE), path, hook))
        send, fill = one_by_one(np), send_from_far(path)
        dev = np.dev
        assert dev is not None
        for done in range(0, frames, step):
            for _ in range(step // DRAIN):
                send(DRAIN)
                fill(DRAIN)
                do_irq(dev)
                do_softirq(dev.ctx)
            yield done + step, resident()
        if heard[0] < frames // DRAIN * DRAIN:
            raise RuntimeError(f"{heard[0]} of {frames} frames were received")


def resident() -> int:
    """Octets of memory that this process occupies."""
    return int(File("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
