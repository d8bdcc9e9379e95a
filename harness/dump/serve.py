"""The server of a case's dump: `netdump-server` on taps, joined by a bond of ours where the guest has one, behind a wire with faults.

In: one JSON object as the only argument. Out: a JSON object a line on standard output: `ready`, then what comes of each dump, with the bytes so far. Rule:
the protocol, the files and the stack are those of `python -m guest.netpoll netdump-server`; only the devices below are chosen here.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from guest.netpoll.bonding import Bond, BondParams, Mode, partner_mode
from guest.netpoll.bonding.params import LacpRate
from guest.netpoll.clients.debugnet.server import Limits, Server
from guest.netpoll.clients.dump.sink import Kept, Sink, Store
from guest.netpoll.clients.netdump import server as redhat
from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.loop import Loop
from guest.netpoll.middleware.fault import FaultDevice, Faults
from guest.netpoll.netdevice import Net, NetDevice, register_netdev
from guest.netpoll.options import netpoll_parse_options
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.tool.dumpdir import DumpDir
from guest.netpoll.tool.netdump_pull import PullCollector
from guest.netpoll.tool.netdump_server import Collector, serve
from guest.netpoll.tool.session import Session, signals
from guest.netpoll.txq import netpoll_queue

RCVBUF = 16 << 20  # bytes
TOLD = 1 << 18  # bytes between two events of progress
Tell = Callable[..., None]


class ToldStore:
    """A Store that tells what is written to it."""

    def __init__(self, store: Store, tell: Tell) -> None:
        self._store, self._tell = store, tell

    def find(self, peer: str, name: int, path: str | None) -> Kept:
        return self._store.find(peer, name, path)

    def open(self, peer: str, name: int, path: str | None, protocol: str) -> Sink:
        sink = self._store.open(peer, name, path, protocol)
        self._tell("begun", peer=peer, protocol=protocol, bytes=0)
        return ToldSink(sink, self._tell)


class ToldSink:
    """A Sink, likewise. `bytes` counts what was written, whether it was new or not."""

    def __init__(self, sink: Sink, tell: Tell) -> None:
        self._sink, self._tell = sink, tell
        self._bytes = self._told = 0

    def write(self, offset: int, data: bytes) -> None:
        if not self._bytes:
            self._tell("data", bytes=len(data))
        self._sink.write(offset, data)
        self._bytes += len(data)
        if self._bytes - self._told >= TOLD:
            self._told = self._bytes
            self._tell("progress", bytes=self._bytes)

    def log(self, line: str) -> None:
        self._sink.log(line)

    def keep(self, state: bytes) -> None:
        self._sink.keep(state)

    def kept(self) -> bytes:
        return self._sink.kept()

    def finish(self, length: int, name: str, *, exact: bool) -> None:
        self._sink.finish(length, name, exact=exact)
        if name == "vmcore":
            self._tell("complete", bytes=self._bytes, length=length)

    def abandon(self, why: str, *, partial: bool) -> None:
        self._sink.abandon(why, partial=partial)
        self._tell("partial", bytes=self._bytes, why=why)


def _faulty(net: Net, tap: str, given: Mapping[str, Any], number: int) -> NetDevice:
    """A tap, and what its wire does to frames, drawn anew for each."""
    dev = AfPacketDevice(net, tap, qdisc_bypass=False, rcvbuf=RCVBUF)
    faults = Faults(**given["faults"])
    return FaultDevice(dev, seed=given["seed"] + number, tx=faults, rx=faults) if faults != Faults() else dev


def _joined(net: Net, wires: Sequence[NetDevice], guest_mode: str | None) -> NetDevice:
    """The one, or a bond of ours over all, as guest.endpoint has it."""
    for wire in wires:
        register_netdev(wire)
    if guest_mode is None:
        return wires[0]
    bond = Bond(net, "bond0", BondParams(mode=Mode(partner_mode(guest_mode)), lacp_rate=LacpRate.FAST))
    register_netdev(bond)
    for wire in wires:
        bond.enslave(wire)
    return bond


def counts(wires: Sequence[NetDevice]) -> dict[str, int]:
    """What was done to frames on purpose."""
    return dict(sum((Counter(wire.counts) for wire in wires if isinstance(wire, FaultDevice)), Counter()))


def _collector(protocol: str, store: Store, say: Callable[[str], None]) -> Collector | PullCollector:
    if protocol == "netdump":
        return PullCollector(redhat.Server(store, say, redhat.Limits()))
    return Collector(Server(store, say, Limits()))


def main(given: Mapping[str, Any], tell: Tell) -> None:
    """Serve until SIGTERM."""

    def say(line: str) -> None:
        tell("said", text=line)

    with ExitStack() as stack:
        stop = stack.enter_context(signals())
        store = DumpDir(given["folder"], say)
        collector = _collector(given["protocol"], ToldStore(store, tell), say)
        net = Net()
        wires = [_faulty(net, tap, given, number) for number, tap in enumerate(given["taps"])]
        dev = _joined(net, wires, given["bond_mode"])
        loop = stack.enter_context(Loop(net))
        stop.wake.append(loop.wake)
        np = Netpoll(net, "netdump-server", rx_hook=collector.rx_hook, drop=netpoll_queue)
        netpoll_parse_options(np, f"{given['port']}@{given['server_ip']}/{dev.name},@0.0.0.0/{given['client_mac']}")
        np.local_mac, np.mac_given = bytes.fromhex(given["mac"].replace(":", "")), True
        netpoll_setup(np)
        stack.callback(netpoll_cleanup, np)
        netpoll_set_trap(net, 1)
        tell("ready")
        serve(Session(np, loop, stop), collector, None, None)
        collector.server.close("the server was stopped")
        tell("ended", counts=dict(collector.server.counts), wire=counts(wires))


def told(what: str, **keys: Any) -> None:
    print(json.dumps({"what": what, **keys}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), told)
