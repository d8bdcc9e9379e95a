"""The stub on netpoll: requests come by rx_hook, replies leave from inside it, as the slides' last diagram has it.

In: a Netpoll that is set up. Out: datagrams to whoever asked, at the address, port and MAC the request came from (kgdboe
learned them so, too). The rule it keeps: a reply is sent in the context in which its request came; nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.clients.gdb.session import Session
from guest.netpoll.clients.netconsole.client import source_of
from guest.netpoll.clients.sysrq import Peer
from guest.netpoll.core import Netpoll
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.send import NET_XMIT_SUCCESS, netpoll_send_skb
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.wire.ethernet import ETH_P_IP

LOCAL_PORT, REMOTE_PORT = 6443, 6442  # kgdboe's
_IDENT = slice(18, 20)  # of an IPv4 packet, in its frame


class GdbServer:
    """Joins a Session to a client. `clock` gives seconds; `unsent` counts replies that no driver took at once."""

    def __init__(self, session: Session, clock: Callable[[], float]) -> None:
        self.session = session
        self.unsent = 0
        self._clock = clock

    def rx_hook(self, np: Netpoll, port: int, data: bytes) -> None:
        """Answer one datagram. One of source port 0 wants no answer (RFC 768)."""
        if not port:
            return
        peer = source_of(np, port)
        for reply in self.session.receive(peer, data, ident_of(np), self._clock()):
            self._send(np, peer, reply)

    def _send(self, np: Netpoll, peer: Peer, data: bytes) -> None:
        if np.local_ip is None:
            return
        frame = make_frame(Endpoints(np.local_mac, peer.mac, np.local_ip, peer.ip, np.local_port, peer.port))
        skb = SkBuff(frame.build(data), np.dev, frame.protocol)
        skb.np = np
        self.unsent += netpoll_send_skb(np, skb) != NET_XMIT_SUCCESS


def ident_of(np: Netpoll) -> int | None:
    """The IPv4 identification of the frame that an rx_hook is being called with; None over IPv6."""
    skb = np.rx_skb
    if skb is None or skb.protocol != ETH_P_IP:
        return None
    return int.from_bytes(skb.data[_IDENT])
