"""NICs of the rig that a poll-mode driver drives: the driver, its registers, rings and interrupts are real, the chip is our own model of it.

    PollModeDevice <-> Slot (BARs, DMA, INTx) <-> model <-> Socket --- Cable --- the host's NIC

In: a NIC of a plan, its cable. Out: a net_device of the guest's. Rule: the model's time is the rig's; whatever the chip does later it does
in `Modelled.catch_up` or while the stack waits.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import Any

from guest.netpoll.drivers.loopback import Cable
from guest.netpoll.drivers.pmd.bus import PciDevice
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.e1000 import E1000
from guest.netpoll.drivers.pmd.tg3 import Tg3
from guest.netpoll.drivers.pmd.virtio_net import VirtioNet
from guest.netpoll.netdevice import Net
from harness.mutants.clockwork import FakeTime, Tell
from harness.nic.inprocess import Clock, Slot
from harness.observe.frames import frame_keys
from harness.plan.model import NicPlan

DRIVERS: dict[str, Callable[[Net, str, PciDevice], PollModeDevice]] = {
    "e1000": E1000,
    "virtio-net": VirtioNet,
    "tg3": Tg3,
}


class Socket:
    """Where the cable is plugged in: a Wire to the model, and to the cable what LoopbackDevice is at its other end."""

    def __init__(self, cable: Cable, tell: Tell) -> None:
        self.slot: Slot
        self._cable, self._tell = cable, tell
        self._up = cable.up
        self._waiting: deque[bytes] = deque()
        cable.ends.append(self)

    def send(self, frame: bytes) -> None:
        peer = self._cable.peer(self)
        if self._cable.up and peer is not None:
            peer.hardware_receive(frame)

    def resume(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for frame in waiting:
            self._arrive(frame)

    def hardware_receive(self, frame: bytes) -> None:
        self._tell(**frame_keys(frame))
        self._arrive(frame)

    def _arrive(self, frame: bytes) -> None:
        if self._waiting or not self.slot.chip.receive(frame):
            self._waiting.append(frame)
        self.slot.chip.settle()

    def raise_irq(self) -> None:
        """The cable was plugged or pulled."""
        if self._up != self._cable.up:
            self._up = self._cable.up
            self.slot.chip.plug(self._up)

    def hardware(self) -> None:
        """Nothing is held back here."""


class Modelled:
    """The machine's slots, and their time."""

    def __init__(self, time: FakeTime) -> None:
        self._time, self._clock = time, Clock()
        self._clock.now = time.now

    def plug(self, net: Net, nic: NicPlan, mac: bytes, cable: Cable, tell: Tell) -> PollModeDevice:
        """Raises KeyError for a model that there is no driver for."""
        socket = Socket(cable, tell)
        socket.slot = Slot(nic.model, mac, socket, self._clock)
        return DRIVERS[nic.model](net, nic.id, socket.slot)

    def catch_up(self) -> None:
        """Chips do what is due by now."""
        self._clock.advance(self._time.now - self._clock.now)

    def delay(self, seconds: float) -> None:
        """udelay(): time passes for the chips, too."""
        self._time.delay(seconds)
        self.catch_up()


def interrupts(dev: Any) -> bool:
    """Whether the bus has told of an interrupt that nobody has masked."""
    if not isinstance(dev, PollModeDevice) or dev.irq_masked or not dev.running:
        return False
    poller = select.poll()
    for fd, events in dev.irq_fds():
        poller.register(fd, events)
    return bool(poller.poll(0))
