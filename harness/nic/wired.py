"""Between wire and MAC, where all models are alike: faults of frames, frames that come late, a wire that waits for room.

In: frames from the wire, frames that leave the MAC. Out: `accept`, `Wire.send`. Rule: a frame that comes late - held back, or having changed
places - finds the device as it is by then: without a link, or with reception off, it is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.nic.bus import Bus, Wire
from harness.nic.faults import Faults


class Wired:
    """Base of the models. `count(name, n)` hears of faults that strike, and of frames that are not taken."""

    def __init__(self, bus: Bus, wire: Wire, count: Callable[[str, int], None], seed: int) -> None:
        self._bus, self._wire, self._count = bus, wire, count
        self.faults = Faults(bus.call_later, count, seed)
        self._blocked = False  # the wire has a frame for which there was no room

    # What a model gives

    def linked(self) -> bool:
        """Whether there is a link."""
        raise NotImplementedError

    def receiving(self) -> bool:
        """Whether the driver has reception on, and the machine allows DMA."""
        raise NotImplementedError

    def wants(self, frame: bytes) -> bool:  # noqa: ARG002  # for those that look before they ask for room
        """Whether it is worth keeping a frame for which there is no room."""
        return True

    def room(self, frame: bytes) -> bool:
        """Whether there are buffers for this frame; what is refused is offered again."""
        raise NotImplementedError

    def accept(self, frame: bytes) -> None:
        """Filter, count and deliver. A frame for which there is no room by now is lost."""
        raise NotImplementedError

    def settle(self) -> None:
        """A burst of accesses or frames is over."""
        raise NotImplementedError

    # What it gets

    def receive(self, frame: bytes) -> bool:
        """A frame from the wire. False: not taken, offer it again after `Wire.resume`."""
        linked = self.linked()
        if not linked or not self.receiving():
            self._count("rx_disabled" if linked else "rx_without_link", 1)
            return True
        if not self.wants(frame):
            return True
        if not self.room(frame):
            self._blocked = True
            return False
        if self.faults.on:
            for piece in self.faults.frames("rx", frame, self._late):
                self.accept(piece)
        else:
            self.accept(frame)
        return True

    def receive_all(self, frames: Sequence[bytes]) -> int:
        """Frames from the wire in their order; how many of them were taken. The rest is to be offered again, as with `receive`."""
        for taken, frame in enumerate(frames):
            if not self.receive(frame):
                return taken
        return len(frames)

    def _put_on_wire(self, frame: bytes) -> None:
        """Onto the wire, or what the faults leave of it."""
        if self.faults.on:
            for piece in self.faults.frames("tx", frame, self._wire.send):
                self._wire.send(piece)
        else:
            self._wire.send(frame)

    def _late(self, frame: bytes) -> None:
        if self.linked() and self.receiving():
            self.accept(frame)
            self.settle()

    def _unblock(self) -> None:
        """There is room, or nobody receives any more: what waits is offered again."""
        if self._blocked:
            self._blocked = False
            self._wire.resume()

    def _in_order(self) -> None:
        """`reorder` is over: nobody waits any more to change places."""
        if (frame := self.faults.waiting("tx")) is not None:
            self._wire.send(frame)
        if (frame := self.faults.waiting("rx")) is not None:
            self._late(frame)
