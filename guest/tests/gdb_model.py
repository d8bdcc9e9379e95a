"""gdb's side of the exchange, in virtual time over a bad network: putpkt() and getpkt() of gdb/remote.c, and nothing else.

In: requests, a seed, faults. Out: what gdb takes for the answer to each. The rule it keeps: gdb's own weaknesses are in it
(a stale `+` or reply is believed), so that what a stub must do about them can be tested in milliseconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from guest.netpoll.clients.gdb.packet import Decoder, Packet, frame

REMOTE_TIMEOUT = 2.0
MAX_TRIES = 3
ONE_WAY = 0.001  # seconds

Stub = Callable[[bytes, int | None, float], list[bytes]]


@dataclass(frozen=True)
class Network:
    """Probabilities a datagram; `late` seconds that one of `reorder` takes longer."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late: tuple[float, float] = (0.0, 0.05)


class Gdb:
    """`numbered`: the datagrams carry a count, as Linux's connected sockets' do."""

    def __init__(self, stub: Stub, seed: int, up: Network, down: Network, *, numbered: bool) -> None:
        self._stub, self._rng, self._up, self._down = stub, random.Random(seed), up, down
        self._numbered = numbered
        self._idents, self._order = count(0xFFF0), count()
        self._now = 0.0
        self._flying: list[tuple[float, int, bool, bytes, int | None]] = []

    def ask(self, request: bytes) -> bytes | None:
        """The answer as gdb understands it; None for "Ignoring packet error"."""
        self._putpkt(request)
        return self._getpkt()

    def think(self, seconds: float) -> None:
        """Time that gdb does nothing in; what comes waits in its socket."""
        self._now += seconds

    def _putpkt(self, request: bytes) -> None:
        for _ in range(4):
            self._send(frame(request))
            for datagram in self._received():
                if datagram == b"+":
                    return
                if datagram == b"-":
                    break
                if datagram.startswith(b"$"):
                    self._send(b"+")  # "Packet instead of Ack, ignoring it"

    def _getpkt(self) -> bytes | None:
        for _ in range(MAX_TRIES):
            reply = next((datagram for datagram in self._received() if datagram.startswith(b"$")), None)
            if reply is not None:
                [packet] = Decoder().feed(reply)
                assert isinstance(packet, Packet)
                self._send(b"+")
                return packet.data
            self._send(b"-")
        self._send(b"+")
        return None

    def _received(self) -> Iterator[bytes]:
        """Datagrams as gdb reads them, until none has come for REMOTE_TIMEOUT."""
        deadline = self._now + REMOTE_TIMEOUT
        while self._flying and self._flying[0][0] <= deadline:
            at, _, to_stub, data, ident = heapq.heappop(self._flying)
            if to_stub:
                for answer in self._stub(data, ident, at):
                    self._fly(max(at, 0.0), False, answer, None)
                continue
            self._now = max(self._now, at)
            deadline = self._now + REMOTE_TIMEOUT
            yield data
        self._now = deadline

    def _send(self, data: bytes) -> None:
        ident = next(self._idents) & 0xFFFF
        self._fly(self._now, True, data, ident if self._numbered else None)

    def _fly(self, now: float, to_stub: bool, data: bytes, ident: int | None) -> None:
        network = self._up if to_stub else self._down
        copies = 1 + (self._rng.random() < network.duplicate) - (self._rng.random() < network.drop)
        for _ in range(copies):
            late = self._rng.uniform(*network.late) if self._rng.random() < network.reorder else 0.0
            heapq.heappush(self._flying, (now + ONE_WAY + late, next(self._order), to_stub, data, ident))
