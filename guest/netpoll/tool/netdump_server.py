"""`netdump-server`: take dumps, of one client or many at a time, into a folder.

In: HERALDs and datagrams. Out: files (dumpdir.py), a line for each thing worth one. The rule it keeps: datagrams are received in the
hook and written in process context, and each dump has a client of the stack of its own, on a port of its own.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address

from guest.netpoll.clients.debugnet.dump import Dump
from guest.netpoll.clients.debugnet.server import Key, Limits, Server
from guest.netpoll.clients.debugnet.wire import CLIENT_PORT, SERVER_PORT
from guest.netpoll.clients.netconsole.client import source_of
from guest.netpoll.clients.netdump import server as redhat
from guest.netpoll.clients.netdump.wire import PORT
from guest.netpoll.clients.sysrq import Peer
from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.send import netpoll_send_udp_batch
from guest.netpoll.tool.dumpdir import DumpDir
from guest.netpoll.tool.netdump_pull import PullCollector
from guest.netpoll.tool.session import Session, say, session
from guest.netpoll.txq import netpoll_queue

PORTS = range(32768, 61000)  # the kernel's own ephemeral ports (ip_local_port_range)
MOST_HERALDS = 256  # waiting to be looked at; clients say it again
TICK = 1.0
FAREWELL = 1.0  # seconds: a last acknowledgement may have to be repeated


@dataclass(slots=True)
class Line:
    """A dump and its client of the stack."""

    dump: Dump
    np: Netpoll
    fresh: bool = False  # datagrams came since the last flush

    def rx_hook(self, _np: Netpoll, _port: int, data: bytes) -> None:
        """Look at a datagram, and keep it."""
        self.dump.receive(data)
        self.fresh = True


class Collector:
    """Joins the protocol's server and the stack."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._heralds: deque[tuple[Peer, bytes]] = deque()
        self._lines: dict[Key, Line] = {}

    def rx_hook(self, np: Netpoll, port: int, data: bytes) -> None:
        """A datagram to the well-known port: put aside."""
        if len(self._heralds) >= MOST_HERALDS:
            self.server.counts["too many HERALDs at once"] += 1
            return
        self._heralds.append((source_of(np, port), data))

    def work(self, np: Netpoll, now: float) -> None:
        """Everything that has come, and is due."""
        while self._heralds:
            self._herald(np, *self._heralds.popleft(), now)
        for line in self._lines.values():
            if line.fresh or line.dump.wait(now) <= 0:
                self._flush(line, now)
        self.clean()

    def _herald(self, np: Netpoll, peer: Peer, data: bytes, now: float) -> None:
        dump = self.server.herald(str(peer.ip), peer.port, data, now)
        if dump is None:
            return
        key = str(peer.ip), peer.port, dump.name
        line = self._lines.get(key)
        if line is None or line.dump is not dump:
            self.clean()
            line = self._lines[key] = Line(dump, self._client(np, peer))
            line.np.rx_hook = line.rx_hook
            netpoll_setup(line.np)
        self._flush(line, now)

    def _client(self, np: Netpoll, peer: Peer) -> Netpoll:
        taken = {line.np.local_port for line in self._lines.values()}
        port = next(port for port in iter(lambda: random.choice(PORTS), None) if port not in taken)
        return Netpoll(
            np.net,
            f"dump of {peer.ip}",
            drop=netpoll_queue,
            dev_name=np.dev_name,
            local_ip=np.local_ip,
            remote_ip=ip_address(peer.ip),
            local_port=port,
            remote_port=peer.port,
            remote_mac=peer.mac,
        )

    def _flush(self, line: Line, now: float) -> None:
        line.fresh = False
        answers = line.dump.flush(now)
        if answers:
            netpoll_send_udp_batch(line.np, answers)

    def clean(self) -> None:
        """Let go the clients of dumps that are no more."""
        gone = [key for key, line in self._lines.items() if self.server.dumps.get(key) is not line.dump]
        for key in gone:
            netpoll_cleanup(self._lines.pop(key).np)

    def wait(self, now: float) -> float:
        """Seconds until work() is due, if nothing is received before."""
        return min(
            (line.dump.wait(now) for line in self._lines.values()), default=TICK
        )  # inf: nothing is owed to anybody


def netdump_server(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, SetupError, OSError (the folder)."""
    store = DumpDir(arguments.dir, tell)
    collector, ports = _collector(arguments, store)
    server = collector.server
    try:
        with session(arguments, "netdump-server", collector.rx_hook, ports) as current:
            netpoll_set_trap(current.np.net, 1)
            say(arguments.quiet, f"dumps go to {arguments.dir}: {current.np!r}")
            done = serve(current, collector, arguments.timeout, arguments.count)
    finally:
        server.close("the server was stopped")
        store.close()
    say(arguments.quiet, f"{server.finished} dumps complete; {dict(server.counts)}")
    return done


def tell(line: str) -> None:
    """For whoever runs the server."""
    print(f"netdump-server: {line}", flush=True)


def _collector(arguments: argparse.Namespace, store: DumpDir) -> tuple[Collector | PullCollector, tuple[int, int]]:
    """And the ports that are presets."""
    sizes = {"size": arguments.limit, "dumps": arguments.dumps}
    if arguments.protocol == "netdump":
        limits = redhat.Limits(**sizes, idle=arguments.idle)
        return PullCollector(redhat.Server(store, tell, limits, magic=arguments.magic)), (PORT, PORT)
    return Collector(Server(store, tell, Limits(**sizes, idle=arguments.idle))), (SERVER_PORT, CLIENT_PORT)


def serve(current: Session, collector: Collector | PullCollector, timeout: float | None, count: int | None) -> bool:
    """Until stopped, or `count` dumps are complete; False when time ran out before. Raises DeviceGone."""
    end = float("inf") if timeout is None else time.monotonic() + timeout
    tick = now = enough = time.monotonic()
    while not current.stop.requested and now < end:
        if count is None or collector.server.finished < count or collector.wait(now) < float("inf"):
            enough = now
        elif now - enough >= FAREWELL:
            return True
        current.serve(max(0.0, min(collector.wait(now), tick + TICK - now, end - now)))
        now = time.monotonic()
        collector.work(current.np, now)
        if now - tick >= TICK:
            tick = now
            collector.server.tick(now)
    return current.stop.requested or count is None
