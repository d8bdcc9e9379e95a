"""A net_device that records every frame through the device inside: as pcapng, or wherever `record` puts it.

In: frames both ways. Out: the same frames, and one `record` call each with the time that the given clock showed. The rule
it keeps: a frame is recorded when the driver took it or gave it, once; a refused one (BUSY) is not, since it is not sent.
"""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.middleware.around import AroundDevice
from guest.netpoll.middleware.pcapng import Direction, Writer
from guest.netpoll.netdevice import NetDevice, NetdevTx
from guest.netpoll.skbuff import SkBuff

Record = Callable[[int, bytes, Direction], None]
"""record(nanoseconds, frame, direction)"""


class TraceDevice(AroundDevice):
    """Records what passes. `clock` gives nanoseconds: time.time_ns where the capture is for people."""

    def __init__(self, inner: NetDevice, record: Record, clock: Callable[[], int]) -> None:
        super().__init__(inner)
        self._record = record
        self._clock = clock

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Record the frame as outbound once the driver has it; the time is that of handing it over."""
        now, frame = self._clock(), bytes(skb.data)  # the driver frees the skb
        status = self.to_inner(skb)
        if status is NetdevTx.OK:
            self._record(now, frame, Direction.OUTBOUND)
        return status

    def from_inner(self, skb: SkBuff) -> None:
        """Record the frame as inbound before anybody can change it."""
        self._record(self._clock(), bytes(skb.data), Direction.INBOUND)
        self.deliver(skb)


def pcapng_record(writer: Writer, dev: NetDevice, description: str = "") -> Record:
    """A `record` that appends to a capture, under an interface of its own for `dev`."""
    number = writer.add_interface(dev.name, description=description, mac=dev.dev_addr)

    def record(now: int, frame: bytes, direction: Direction) -> None:
        writer.packet(number, now, frame, direction=direction)

    return record
