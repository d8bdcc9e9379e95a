"""A poll-mode driver and its device in one process, with netpoll on top: for the tests of drivers and models.

`Rig("tg3")`: the model plugged in, the driver open, carrier there, a client with an rx_hook. `serve` is the event loop: everything that is
ready, and nothing waits. Time is the clock's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import TypeVar

from guest.netpoll import Net, Netpoll, netpoll_setup
from guest.netpoll.drivers.pmd.bus import PciDevice
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.e1000 import E1000
from guest.netpoll.drivers.pmd.tg3 import Tg3
from guest.netpoll.drivers.pmd.virtio_net import VirtioNet
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import dev_close, dev_open, register_netdev
from harness.nic.inprocess import Clock, Slot, Tape

MAC, PEER = bytes.fromhex("525400aabb01"), bytes.fromhex("525400aabb02")
HERE, THERE = ipaddress.IPv4Address("192.0.2.1"), ipaddress.IPv4Address("192.0.2.2")
PORT, PEER_PORT = 6665, 6666
LINK_PATIENCE = 10.0  # seconds on the rig's clock until carrier must be there

DRIVERS: dict[str, Callable[[Net, str, PciDevice], PollModeDevice]] = {
    "e1000": E1000,
    "tg3": Tg3,
    "virtio-net": VirtioNet,
}


class NotReached(AssertionError):
    """What was awaited did not come."""


class Rig:
    """`got`: payloads that came out at the rx_hook. `slot.wire.sent`: frames that left."""

    def __init__(self, model: str, *, interrupts: bool = True) -> None:
        self.clock, self.tape = Clock(), Tape()
        self.slot = Slot(model, MAC, self.tape, self.clock, bus_interrupts=interrupts)
        self.net = Net(self.clock.context())
        self.dev = DRIVERS[model](self.net, "eth0", self.slot)
        register_netdev(self.dev)
        self.loop = Loop(self.net)
        self.got: list[bytes] = []
        self.dropped: list[bytes] = []
        dev_open(self.dev)
        self.until(lambda: self.dev.carrier, "carrier")
        self.np = Netpoll(self.net, rx_hook=self._hook, drop=self._drop, local_ip=HERE, remote_ip=THERE, remote_mac=PEER,
                          local_port=PORT, remote_port=PEER_PORT)  # fmt: skip
        netpoll_setup(self.np)

    def _hook(self, _np: Netpoll, _port: int, data: bytes) -> None:
        self.got.append(bytes(data))

    def _drop(self, skb: object) -> None:
        self.dropped.append(bytes(skb.data))  # type: ignore[attr-defined]

    def serve(self) -> None:
        """What the event loop does until nothing is ready."""
        for _ in range(1000):
            if not self.loop.run_once(0):
                return
        raise AssertionError("the loop has not come to rest in 1000 turns")

    def until(self, condition: Callable[[], bool], what: str, within: float = LINK_PATIENCE) -> None:
        """Let time pass in small steps, and serve."""
        end = self.clock.now + within
        self.serve()
        while not condition():
            if self.clock.now >= end:
                raise NotReached(f"{what}: not within {within} s of the rig's clock")
            self.clock.advance(0.01)
            self.serve()

    def arrive(self, payload: bytes) -> bool:
        """A datagram of the peer's reaches the device."""
        return self.arrive_frame(frame_to(self.dev.dev_addr, payload))

    def arrive_frame(self, frame: bytes) -> bool:
        taken = self.slot.chip.receive(frame)
        self.slot.chip.settle()
        return taken

    def payloads(self) -> list[bytes]:
        """Of the UDP datagrams that left, without the MAC's padding."""
        return [frame[42 : 34 + int.from_bytes(frame[38:40], "big")] for frame in self.tape.sent]

    def crash(self) -> None:
        self.net.context.crash()

    def close(self) -> None:
        if not self.net.context.crashed:
            dev_close(self.dev)
        self.loop.close()
        self.dev.release()


def frame_to(mac: bytes, payload: bytes) -> bytes:
    return bytes(make_frame(Endpoints(PEER, mac, THERE, HERE, PEER_PORT, PORT)).build(payload))


R = TypeVar("R", bound=Rig)


def faultless(made: R) -> Iterator[R]:
    """For a fixture: the rig, which in the end must not have asked for DMA outside what was allocated."""
    yield made
    assert made.slot.faults == [], "no DMA outside what was allocated"
    made.close()
