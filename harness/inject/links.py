"""What is done to links beyond one command: a tap's carrier, a tap that is deleted, a link that flaps.

In: the action, and a function that does one. Out: `inject link` events. Rule: an event is written when the change has
been made; the pace of a flapping link is the testcase's own.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import time
from collections.abc import Awaitable, Callable

from pyroute2 import IPRoute

from harness.observe.events import Evidence
from harness.plan.model import Device, Flapping, Qmp, TapLink
from harness.testbed.errors import TestbedError

SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40  # linux/sockios.h, linux/if.h
LINK_WATCH = 5.0  # seconds; linkwatch_event() runs at most once a second
TUNSETCARRIER = 0x400454E2  # linux/if_tun.h, since Linux 5.0


def tap_carrier(fd: int, up: bool) -> None:
    """Give the tap its carrier or take it. Raises TestbedError for a kernel that cannot."""
    try:
        fcntl.ioctl(fd, TUNSETCARRIER, struct.pack("i", up))
    except OSError as error:
        raise TestbedError(f"a tap's carrier cannot be set: {error.strerror}", "Linux 5.0 or newer can") from error


def delete_tap(name: str) -> None:
    """Delete the interface; whoever holds its descriptor is left with an error for each frame."""
    with IPRoute() as netlink:
        netlink.link("del", index=netlink.link_lookup(ifname=name)[0])


async def tap_link(action: TapLink, fd: int, evidence: Evidence) -> None:
    """netlink's library drives an event loop of its own, hence the thread."""
    if action.state == "gone":
        await asyncio.to_thread(delete_tap, action.tap)
        evidence.add("inject", "link", nic=action.nic, state="down", by="tap-gone", way="both")
    else:
        tap_carrier(fd, action.state == "up")
        if action.state == "up":
            await _until_it_sends(action.tap)
        evidence.add("inject", "link", nic=action.nic, state=action.state, by="tap", way="rx")


async def _until_it_sends(tap: str) -> None:
    """The host's kernel throws away what is sent to a tap until its link watch has run (linkwatch_do_dev(), dev_activate()), which sets
    IFF_RUNNING first. Raises TestbedError when that does not come."""
    request = struct.pack("16si12x", tap.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        deadline = time.monotonic() + LINK_WATCH
        while not struct.unpack("16sH14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1] & IFF_RUNNING:
            if time.monotonic() > deadline:
                raise TestbedError(
                    f"the tap {tap} does not run {LINK_WATCH:g} s after its carrier came", "is the host very busy?"
                )
            await asyncio.sleep(0.001)


async def flap(action: Flapping, act: Callable[[Qmp | Device], Awaitable[None]]) -> None:
    """All of it. Each wait is a part of the period that the testcase asks for."""
    for _ in range(action.times):
        await asyncio.sleep(action.up)
        await act(action.out)
        await asyncio.sleep(action.down)
        await act(action.back)
