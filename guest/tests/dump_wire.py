"""A wire between a dump's two ends, and a time of their own: seeded loss, duplicates and reordering, no real time.

In: a client and a server of clients/debugnet. Out: what both have become. The rule it keeps: what happens follows from the seed, and
a run that does not end says so.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from guest.netpoll.clients.debugnet.client import Client
from guest.netpoll.clients.debugnet.dump import Dump
from guest.netpoll.clients.debugnet.server import Server
from guest.netpoll.clients.debugnet.wire import SERVER_PORT
from guest.netpoll.clients.dump.sink import Kept, SinkError

PEER, CLIENT_PORT = "10.0.0.2", 20024
STEP = 0.0005


@dataclass
class MemorySink:
    """A file in memory. `room` bytes and no more."""

    room: int = 1 << 30
    data: bytearray = field(default_factory=bytearray)
    lines: list[str] = field(default_factory=list)
    ended: str = ""
    writes: int = 0
    state: bytes = b""

    def write(self, offset: int, data: bytes) -> None:
        self.writes += 1
        if offset + len(data) > self.room:
            raise SinkError("cannot write: No space left on device")
        if len(self.data) < offset + len(data):
            self.data.extend(bytes(offset + len(data) - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def log(self, line: str) -> None:
        self.lines.append(line)

    def keep(self, state: bytes) -> None:
        self.state = state

    def kept(self) -> bytes:
        return self.state

    def finish(self, length: int, name: str, *, exact: bool) -> None:
        if exact:
            del self.data[length:]
        self.data.extend(bytes(max(0, length - len(self.data))))
        self.ended = name

    def abandon(self, why: str, *, partial: bool) -> None:
        self.ended = f"{'partial' if partial else 'incomplete'}: {why}"


@dataclass
class MemoryStore:
    """Sinks in the order in which they were opened; a named one that is incomplete is opened again."""

    room: int = 1 << 30
    sinks: list[MemorySink] = field(default_factory=list)
    named: dict[tuple[str, int], MemorySink] = field(default_factory=dict)
    paths: list[str | None] = field(default_factory=list)

    def find(self, peer: str, name: int, path: str | None) -> Kept:  # noqa: ARG002  # a Store
        sink = self.named.get((peer, name))
        if sink is None or sink.ended.startswith("partial"):
            return Kept.NOTHING
        return Kept.COMPLETE if sink.ended.startswith("vmcore") else Kept.INCOMPLETE

    def open(self, peer: str, name: int, path: str | None, protocol: str) -> MemorySink:  # noqa: ARG002  # a Store
        self.paths.append(path)
        if name and self.find(peer, name, path) is Kept.INCOMPLETE:
            return self.named[peer, name]
        sink = MemorySink(self.room)
        self.sinks.append(sink)
        if name:
            self.named[peer, name] = sink
        return sink


@dataclass(frozen=True)
class Weather:
    """Probabilities for each datagram, either way; a late one takes up to `late_by` seconds more."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late_by: float = 0.01


class Wire:
    """Delivers what `client` and the server say to each other. Each dump has a port of its own, from 40000."""

    def __init__(self, client: Client, server: Server, seed: int, weather: Weather) -> None:
        self.client, self.server, self.weather = client, server, weather
        self.now = 100.0
        self.cut = False
        self.datagrams = 0
        self._rng = random.Random(seed)
        self._serial = itertools.count()
        self._ports: dict[int, Dump] = {}
        self._next_port = 40000
        self._air: list[tuple[float, int, bool, int, bytes]] = []

    def _send(self, to_server: bool, port: int, data: bytes) -> None:
        self.datagrams += 1
        rng, weather = self._rng, self.weather
        copies = 1 + (rng.random() < weather.duplicate)
        for _ in range(copies):
            delay = 0.0002 + (rng.random() * weather.late_by if rng.random() < weather.reorder else 0)
            if rng.random() >= weather.loss and not self.cut:
                heapq.heappush(self._air, (self.now + delay, next(self._serial), to_server, port, data))

    def _deliver(self) -> None:
        while self._air and self._air[0][0] <= self.now:
            _, _, to_server, port, data = heapq.heappop(self._air)
            if not to_server:
                self.client.receive(data, port, self.now)
            elif port == SERVER_PORT:
                self._herald(data)
            else:
                dump = self._dump(port)
                if dump is not None:
                    dump.receive(data)

    def _dump(self, port: int) -> Dump | None:
        """The one of that port, if the server still has it."""
        dump = self._ports.get(port)
        return dump if any(dump is known for known in self.server.dumps.values()) else None

    def _herald(self, data: bytes) -> None:
        dump = self.server.herald(PEER, CLIENT_PORT, data, self.now)
        if dump is not None and dump not in self._ports.values():
            self._ports[self._next_port] = dump
            self._next_port += 1

    def step(self) -> None:
        """Everybody once, then a moment passes."""
        for datagram in self.client.poll(self.now):
            self._send(True, self.client.port or SERVER_PORT, datagram)
        self._serve()

    def _serve(self) -> None:
        waits = [self.client.wait(self.now), *(dump.wait(self.now) for dump in self.server.dumps.values())]
        waits += [self._air[0][0] - self.now] if self._air else []
        self.now += max(STEP, min(*waits, 0.25))
        self._deliver()
        for port in list(self._ports):
            dump = self._dump(port)
            for answer in dump.flush(self.now) if dump is not None else []:
                self._send(False, port, answer)

    def run_server_until(self, when: float) -> None:
        """The client says nothing."""
        self._air.clear()
        self.now = when - STEP
        self._serve()

    def run(self, seconds: float = 3600, until: Callable[[], bool] | None = None) -> None:
        """Until the client has ended, or `until`. Fails when that takes too long."""
        end = self.now + seconds
        while not self.client.ended and not (until and until()):
            assert self.now < end, f"the dump has not ended: {self.client.state}, {self.client.counts}"
            self.step()
