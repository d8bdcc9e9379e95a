"""`netdump-server --protocol netdump`: Red Hat's collector on the stack.

In: datagrams of any machine to one port. Out: requests, files (dumpdir.py). The rule it keeps: one client of the stack listens, since
machines speak to one port; what goes to each has a client of its own, with that machine's addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from guest.netpoll.clients.netconsole.client import source_of
from guest.netpoll.clients.netdump.pull import Pull
from guest.netpoll.clients.netdump.server import Server
from guest.netpoll.clients.sysrq import Peer
from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.send import netpoll_send_udp_batch
from guest.netpoll.txq import netpoll_queue
from guest.netpoll.wire.ethernet import ETH_P_IP, ETH_P_IPV6

MOST_WAITING = 4096  # datagrams to be looked at in process context
_WHO = {ETH_P_IP: slice(26, 36), ETH_P_IPV6: slice(22, 56)}  # of a frame: addresses and source port


@dataclass(slots=True)
class Line:
    """A pull and its way out."""

    pull: Pull
    np: Netpoll
    fresh: bool = False


class PullCollector:
    """Joins the protocol's server and the stack."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._arrived: list[tuple[bytes, Peer | None, bytes]] = []
        self._lines: dict[bytes, Line] = {}

    def rx_hook(self, np: Netpoll, port: int, data: bytes) -> None:
        """Put aside, with who it is from; that is only taken apart for who is not known yet."""
        skb = np.rx_skb
        assert skb is not None  # inside an rx_hook
        if len(self._arrived) >= MOST_WAITING:
            self.server.counts["too many at once"] += 1
            return
        known = bytes(skb.data[_WHO[skb.protocol]])
        self._arrived.append((known, None if known in self._lines else source_of(np, port), data))

    def work(self, np: Netpoll, now: float) -> None:
        """Everything that has come, and is due."""
        arrived, self._arrived = self._arrived, []
        for known, peer, data in arrived:
            self._take(np, known, peer, data, now)
        for line in self._lines.values():
            if line.fresh or line.pull.wait(now) <= 0:
                line.fresh = False
                netpoll_send_udp_batch(line.np, line.pull.work(now))
        self.clean()

    def _take(self, np: Netpoll, known: bytes, peer: Peer | None, data: bytes, now: float) -> None:
        line = self._lines.get(known)
        if line is None and peer is None:
            return  # its line has just been cut
        address = (str(peer.ip), peer.port) if peer is not None else (str(line.np.remote_ip), line.np.remote_port)  # type: ignore[union-attr]  # one of both is there
        pull = self.server.receive(*address, data, now)
        if pull is None:
            return
        if line is None or line.pull is not pull:
            line = self._lines[known] = Line(pull, line.np if line is not None else _way_out(np, peer))
        line.fresh = True

    def clean(self) -> None:
        """Let go the ways out to machines that are no more."""
        pulls = set(map(id, self.server.pulls.values()))
        for known in [known for known, line in self._lines.items() if id(line.pull) not in pulls]:
            netpoll_cleanup(self._lines.pop(known).np)

    def wait(self, now: float) -> float:
        """Seconds until work() is due, if nothing is received before."""
        return min((line.pull.wait(now) for line in self._lines.values()), default=float("inf"))


def _way_out(np: Netpoll, peer: Peer | None) -> Netpoll:
    assert peer is not None  # the caller looked
    out = Netpoll(
        np.net,
        f"netdump of {peer.ip}",
        drop=netpoll_queue,
        dev_name=np.dev_name,
        local_ip=np.local_ip,
        remote_ip=peer.ip,
        local_port=np.local_port,
        remote_port=peer.port,
        remote_mac=peer.mac,
    )
    netpoll_setup(out)
    return out
