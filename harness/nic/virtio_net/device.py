"""The network device (virtio 1.2, 5.1): frames between queues and the wire, link state, control queue, faults.

In: notifications of the transport, frames from the wire, the cable. Out: frames, used buffers, configuration. Rule: a frame for which
there are no buffers is not taken, and whoever has it keeps it until `resume`; interrupts are raised in `settle`, once a burst.
"""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.layout.virtio import (
    CTRL_ERR,
    CTRL_OK,
    CTRL_QUEUE,
    NET_CONFIG_SIZE,
    NET_HDR,
    NET_HDR_F_NEEDS_CSUM,
    NET_HDR_GSO_NONE,
    RX_QUEUE,
    S_LINK_UP,
    TX_QUEUE,
    Feature,
    bits,
)
from guest.netpoll.wire.checksum import checksum
from harness.nic.bus import Bus, Tell, Wire
from harness.nic.faults import FRAME_FAULTS, Setting
from harness.nic.virtio_net.filter import Filter
from harness.nic.virtio_net.queue import BadRing, Chain
from harness.nic.virtio_net.transport import Transport
from harness.nic.wired import Wired

OFFERED = bits(
    Feature.CSUM, Feature.MTU, Feature.MAC, Feature.MRG_RXBUF, Feature.STATUS, Feature.CTRL_VQ, Feature.CTRL_RX,
    Feature.CTRL_RX_EXTRA, Feature.CTRL_VLAN, Feature.CTRL_MAC_ADDR, Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX,
    Feature.VERSION_1, Feature.ACCESS_PLATFORM,
)  # fmt: skip
QUEUES = (256, 256, 64)
VECTORS = 4  # one a queue, one for the configuration
MTU = 1500
ETH, VLAN = 14, 4
BURST = 256  # frames of a notification, before others get their turn
FAULTS = ("no-interrupts", "no-completions", "no-dma", "gone", "slow", *FRAME_FAULTS)


class VirtioNet(Wired):
    """The device. `tell(kind, **keys)` hears of links and resets, `count(name, n)` of the rest."""

    def __init__(
        self, mac: bytes, bus: Bus, wire: Wire, tell: Tell, count: Callable[[str, int], None], seed: int = 0
    ) -> None:
        super().__init__(bus, wire, count, seed)
        self._tell = tell
        self.transport = Transport(bus, self.faults, OFFERED, QUEUES, VECTORS, tell, count)
        self.transport.device = self
        self._rx, self._tx, self._ctrl = (self.transport.queues[n] for n in (RX_QUEUE, TX_QUEUE, CTRL_QUEUE))
        self._filter = Filter(mac)
        self._cable = True
        self._held: list[tuple[int, int]] = []  # completions that a fault keeps back

    # The transport's device

    def started(self) -> None:
        """DRIVER_OK: what was made available before is there already."""
        if self.transport.has(Feature.CTRL_VLAN):
            self._filter.vlans = set()
        for queue in self.transport.queues:
            if queue.enabled:
                queue.want_notification(True)

    def was_reset(self) -> None:
        self._filter.reset()
        self._held.clear()
        self._unblock()
        self._tell("reset")

    def config_read(self, offset: int, count: int) -> bytes:
        link = S_LINK_UP if self._cable else 0
        data = self._filter.mac + link.to_bytes(2, "little") + (1).to_bytes(2, "little") + MTU.to_bytes(2, "little")
        return data[:NET_CONFIG_SIZE][offset : offset + count].ljust(count, b"\0")

    def notified(self, number: int) -> None:
        if not self.transport.queues[number].enabled:
            return
        if number == RX_QUEUE:
            self._unblock()
        elif number == TX_QUEUE:
            self._transmit()
        else:
            self._control()

    # Sending

    def _transmit(self) -> None:
        """Send what is available; a driver that adds as fast as we send gets its turn after `BURST` frames."""
        queue = self._tx
        if self.faults.strikes("no-dma"):
            return
        queue.want_notification(False)
        for _ in range(BURST):
            if queue.idle():
                break
            chain = queue.pop()
            self._send(queue.read(chain))
            queue.advance()
            self._complete(chain)
            self._count("tx_completed", 1)
        if not queue.idle():
            self._bus.call_later(0, lambda: self.transport.guarded(self._transmit))

    def _complete(self, chain: Chain) -> None:
        if self.faults.strikes("no-completions"):
            self._held.append((chain.head, 0))
            return
        self._tx.give(chain.head, 0)
        self._tx.publish()

    def _send(self, data: bytes) -> None:
        header, frame = data[: NET_HDR.size], data[NET_HDR.size :]
        if len(header) < NET_HDR.size or not ETH <= len(frame) <= MTU + ETH + VLAN:
            self._count("tx_malformed", 1)
            return
        flags, gso, _, _, start, offset, _ = NET_HDR.unpack(header)
        if gso != NET_HDR_GSO_NONE:
            raise BadRing(f"gso_type {gso}, which was not offered")
        if flags & NET_HDR_F_NEEDS_CSUM:
            frame = _fill_checksum(frame, start, offset)
        if not self._cable:
            self._count("tx_without_link", 1)
            return
        self._count("tx_frames", 1)
        self._put_on_wire(frame)

    # Receiving

    def linked(self) -> bool:
        return self._cable

    def receiving(self) -> bool:
        return self.transport.live and self._rx.enabled

    def wants(self, frame: bytes) -> bool:
        return self._filter.accepts(frame)

    def room(self, frame: bytes) -> bool:
        """Whether there are buffers. A ring that breaks the rules keeps nobody waiting."""
        there = False

        def look() -> None:
            nonlocal there
            there = self._room(len(frame))

        self.transport.guarded(look)
        return there or not self.transport.live

    def _room(self, size: int) -> bool:
        """Whether there are buffers; if not, the driver is asked to say when there are."""
        queue = self._rx
        if self._plan(size) is not None:
            return True
        queue.want_notification(True)
        return self._plan(size) is not None

    def _plan(self, size: int) -> list[Chain] | None:
        """The chains that a frame of `size` octets takes; None if there are too few."""
        queue, need, chains = self._rx, size + NET_HDR.size, list[Chain]()
        available = queue.waiting()
        while need > 0:
            if len(chains) == available or (chains and not self.transport.has(Feature.MRG_RXBUF)):
                return None
            chains.append(queue.pop(len(chains)))
            need -= chains[-1].room
            if chains[-1].room < NET_HDR.size:
                raise BadRing(f"a receive buffer of {chains[-1].room} bytes")
        return chains

    def accept(self, frame: bytes) -> None:
        self.transport.guarded(lambda: self._deliver(frame))

    def _deliver(self, frame: bytes) -> None:
        chains = self._plan(len(frame))
        if chains is None:
            self._count("rx_dropped", 1)  # a duplicate, or one that was held back: nobody keeps it
            return
        rest = NET_HDR.pack(0, NET_HDR_GSO_NONE, 0, 0, 0, 0, len(chains)) + frame
        for number, chain in enumerate(chains):
            written = self._rx.write(chain, rest)
            self._rx.give(chain.head, written, number)
            rest = rest[written:]
        self._rx.advance(len(chains))
        self._rx.publish(len(chains))
        self._count("rx_frames", 1)

    # The control queue

    def _control(self) -> None:
        queue = self._ctrl
        for _ in range(queue.size):
            if queue.idle():
                return
            chain = queue.pop()
            if chain.room < 1:
                raise BadRing("a command without room for its answer")
            answer = self._filter.command(queue.read(chain)) if self.transport.has(Feature.CTRL_VQ) else CTRL_ERR
            self._count("commands" if answer == CTRL_OK else "commands_refused", 1)
            queue.write(chain, bytes((answer,)))
            queue.advance()
            queue.give(chain.head, 1)
            queue.publish()

    # What everybody else does to it

    def settle(self) -> None:
        """A burst is over: interrupt for what was used."""
        self.transport.guarded(self._interrupt)

    def _interrupt(self) -> None:
        for queue in self.transport.queues:
            if queue.enabled:
                self.transport.interrupt(queue)

    def plug(self, cable: bool, silent: bool = False) -> None:
        if cable == self._cable:
            return
        self._cable = cable
        self._tell("link", up=cable, mode=None, silent=silent)
        if silent:
            self._count("silent-link", 1)
        else:
            self.transport.config_changed()

    def spurious(self) -> None:
        self.transport.spurious()

    def fault(self, name: str, setting: Setting | None) -> None:
        """Switch a fault on or off. Raises ValueError."""
        if name not in FAULTS:
            raise ValueError(f"a virtio-net has no fault {name!r}; there are {', '.join(FAULTS)}")
        self.faults.apply(name, setting)
        if setting is None:
            self._recover(name)

    def _recover(self, name: str) -> None:
        if name == "no-interrupts":
            self.transport.release()
        elif name == "no-dma" and self._tx.enabled:
            self.transport.guarded(self._transmit)
        elif name == "no-completions":
            self.transport.guarded(self._release)
        elif name == "reorder":
            self._in_order()
        self.settle()

    def _release(self) -> None:
        held, self._held = self._held, []
        for head, length in held:
            self._tx.give(head, length)
            self._tx.publish()


def _fill_checksum(frame: bytes, start: int, offset: int) -> bytes:
    """5.1.6.2: the sum over all from `start` on, stored at `start` + `offset`, where the pseudo-header's is already."""
    at = start + offset
    if at + 2 > len(frame):
        raise BadRing(f"a checksum at {at} of a frame of {len(frame)} bytes")
    value = checksum(frame[start:]) or 0xFFFF
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]
