"""The stack's own measurements run, add up, and find the one thing that is no matter of speed: memory stays flat.

No ratio is asserted here: other tests run beside these. `netpoll-harness bench stack` states them.
"""

from __future__ import annotations

import ipaddress

import pytest

from guest.netpoll import bench
from guest.tests.kernel_end import KERNEL_IP, OUR_IP, OURS, THEIRS, KernelEnd

pytestmark = pytest.mark.netns
NOBODY = "02:00:00:00:00:09"


def path(kernel: KernelEnd) -> bench.Path:
    """As bench.Path wants it: the address at our end, none at the other, a neighbour that nobody is."""
    kernel.ip.addr("del", index=kernel.index(THEIRS), address=KERNEL_IP, prefixlen=24)
    kernel.ip.addr("add", index=kernel.index(OURS), address=OUR_IP, prefixlen=24)
    kernel.ip.neigh("add", dst=KERNEL_IP, lladdr=NOBODY, ifindex=kernel.index(OURS), state=0x80)
    ours, theirs = ipaddress.IPv4Address(OUR_IP), ipaddress.IPv4Address(KERNEL_IP)
    return bench.Path(OURS, THEIRS, ours, theirs, bytes.fromhex(NOBODY.replace(":", "")))


def test_every_row_is_measured(netns: KernelEnd) -> None:
    calls: list[int] = []
    rows = bench.run(path(netns), {"somebody else": (calls.append, 5.0)}, rounds=3)
    names = [row.what for row in rows]
    assert len(names) == len(set(names)) + 1  # ours comes twice: against sendto, and against somebody else
    assert all(row.microseconds > 0 for row in rows if not row.what.startswith("layer"))
    assert len(calls) == 3
    goals = {row.what: (row.against, row.goal) for row in rows if row.goal}
    assert goals == {
        "netpoll_send_udp, rings, doorbell for 64": ("somebody else", 5.0),
        "batches of 100, rings, cut up by the kernel": ("socket.sendto", 2.0),
        "rx_hook, rings": ("socket.recvfrom", 1.0),
    }


def test_memory_is_flat(netns: KernelEnd) -> None:
    """Each way; the bench does ten million. One sk_buff leaked in ten would be a megabyte by the end."""
    octets = [resident for _, resident in bench.memory(path(netns), frames=50_000, step=5_000)]
    assert max(octets[2:]) - octets[1] < 256 * 1024
