"""One debugger at a time: who is attached, who is refused, and when a debugger that fell silent has lost its place.

In: datagrams with their source. Out: datagrams for that source. The rule it keeps: only a debugger's first packet attaches, so
noise and what comes late cannot take the place, and a debugger that is attached is not disturbed by anyone else's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from guest.netpoll.clients.gdb.link import Link
from guest.netpoll.clients.gdb.packet import Decoder, Packet
from guest.netpoll.clients.gdb.target import PACKET_SIZE, Target
from guest.netpoll.clients.sysrq import Peer
from guest.netpoll.clients.vmcore.core import Vmcore

IDLE = 60.0  # seconds after which another may take the place of a debugger that says nothing
MAX_REFUSED = 64  # strangers that are told of; the counts go on


class Session:
    """Serves `vmcore`. `tell(line)` hears of who comes and goes. `idle`: seconds until a silent debugger can be replaced.

    `counts`: those of the links, and attached, detached, replaced, refused (datagrams of others), noise.
    """

    def __init__(
        self, vmcore: Vmcore, tell: Callable[[str], None], *, packet_size: int = PACKET_SIZE, idle: float = IDLE
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._vmcore, self._tell = vmcore, tell
        self._packet_size, self._idle = packet_size, idle
        self._peer: Peer | None = None
        self._target: Target | None = None
        self._link: Link | None = None
        self._left = True  # the place is free
        self._heard = 0.0
        self._refused: set[Peer] = set()

    @property
    def attached(self) -> Peer | None:
        """Whom we serve."""
        return None if self._left else self._peer

    def receive(self, peer: Peer, data: bytes, ident: int | None, now: float) -> list[bytes]:
        """Take one datagram; what goes back to its sender, a datagram each. `ident`: IPv4's, None over IPv6."""
        if (peer != self._peer or self._left) and opens(data):
            self._attach(peer, now)
        if peer != self._peer or self._link is None or self._target is None:
            self._refuse(peer)
            return []
        self._heard = now
        replies = self._link.receive(data, ident, now)
        if self._target.detached and not self._left:
            self._leave("detached")
        return replies

    def _attach(self, peer: Peer, now: float) -> None:
        """Give `peer` the place, if it is free."""
        if self.attached is not None:
            if now - self._heard < self._idle:
                return
            self._leave("replaced")
        self._add_up()
        self.counts["attached"] += 1
        self._tell(f"debugger {_name(peer)} attached")
        self._peer, self._left = peer, False
        self._target = Target(self._vmcore, self._packet_size)
        self._link = Link(self._target.answer)

    def _refuse(self, peer: Peer) -> None:
        if self.attached is None:
            self.counts["noise"] += 1  # gdb's first `+`, too
            return
        self.counts["refused"] += 1
        if peer not in self._refused and len(self._refused) < MAX_REFUSED:
            self._refused.add(peer)
            self._tell(f"debugger {_name(peer)} refused: {_name(self.attached)} is attached")

    def _leave(self, how: str) -> None:
        """The place is free. The link stays until another comes: the last reply may have to be sent again."""
        assert self._peer is not None
        self.counts[how] += 1
        self._tell(f"debugger {_name(self._peer)} {how}")
        self._left = True

    def _add_up(self) -> None:
        self.counts.update(self._link.counts if self._link else {})
        self._peer = self._target = self._link = None

    def close(self) -> Counter[str]:
        """The counts of the session and of all its links."""
        self._add_up()
        return self.counts


def opens(data: bytes) -> bool:
    """A debugger begins so: a whole packet that asks what is supported, or why the target stopped."""
    packets = [event.data for event in Decoder().feed(data) if isinstance(event, Packet)]
    return any(packet == b"?" or packet.startswith(b"qSupported") for packet in packets)


def _name(peer: Peer) -> str:
    return f"[{peer.ip}]:{peer.port}" if peer.ip.version == 6 else f"{peer.ip}:{peer.port}"
