"""Our stack on an AF_PACKET device in a namespace, its loop, and what its rx_hook heard: for the tests of those drivers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from guest.netpoll import (
    Netpoll,
    netpoll_parse_options,
    netpoll_setup,
)
from guest.netpoll.core import DropRoutine, NetpollInfo
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import (
    NetDevice,
    register_netdev,
    unregister_netdev,
)
from guest.tests.kernel_end import KERNEL_IP, KERNEL_MAC, OUR_IP, OURS


class Stack:
    """Our stack on `ours`, its loop, and what its rx_hook heard."""

    def __init__(self, dev: NetDevice, loop: Loop) -> None:
        self.net, self.dev, self.loop = dev.net, dev, loop
        self.heard: list[tuple[int, bytes]] = []

    def client(
        self, options: str = f"6665@{OUR_IP}/{OURS},6666@{KERNEL_IP}/{KERNEL_MAC}", drop: DropRoutine | None = None
    ) -> Netpoll:
        np = Netpoll(self.net, "test", rx_hook=self.hook, drop=drop)
        netpoll_parse_options(np, options)
        netpoll_setup(np, timeout=5)
        return np

    def hook(self, _np: Netpoll, source: int, data: bytes) -> None:
        self.heard.append((source, data))

    def until_heard(self, count: int) -> None:
        self.loop.run_until(lambda: len(self.heard) >= count, 5, f"{count} datagrams")

    def until_carrier(self, carrier: bool) -> None:
        self.loop.run_until(lambda: self.dev.carrier is carrier, 5, f"carrier {carrier}")

    def info(self) -> NetpollInfo:
        assert isinstance(self.dev.npinfo, NetpollInfo)
        return self.dev.npinfo


@contextlib.contextmanager
def stack(dev: NetDevice) -> Iterator[Stack]:
    register_netdev(dev)
    with Loop(dev.net) as loop:
        yield Stack(dev, loop)
        unregister_netdev(dev)


DRIVERS: dict[str, type[AfPacketDevice]] = {"calls": AfPacketDevice, "rings": AfPacketRingDevice}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> type[AfPacketDevice]:
    """Each test that asks for it runs on the driver that sends and receives call by call, and on the one with rings."""
    return DRIVERS[request.param]
