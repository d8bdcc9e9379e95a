"""`answer`: be a host on the wire: ARP (and IPv6 neighbour discovery) for our address, and an echo of each datagram.

In: requests. Out: replies, sent from inside the receive path, as the slides' last diagram has it. The rule it keeps: a
reply goes to the address, port and MAC that the datagram came from, and carries the very payload.
"""

from __future__ import annotations

import argparse

from guest.netpoll.clients.netconsole.client import source_of
from guest.netpoll.core import Netpoll
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.send import NET_XMIT_SUCCESS, netpoll_send_skb
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.tool.session import say, session


class Echo:
    """Counts what it echoed."""

    def __init__(self) -> None:
        self.echoed = 0

    def rx_hook(self, np: Netpoll, port: int, data: bytes) -> None:
        """Send the payload back."""
        peer = source_of(np, port)
        if np.local_ip is None or not port:  # source port 0: no reply is wanted (RFC 768)
            return
        frame = make_frame(Endpoints(np.local_mac, peer.mac, np.local_ip, peer.ip, np.local_port, port))
        skb = SkBuff(frame.build(data), np.dev, frame.protocol)
        skb.np = np
        self.echoed += netpoll_send_skb(np, skb) == NET_XMIT_SUCCESS


def answer(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, SetupError."""
    echo = Echo()
    with session(arguments, "answer", echo.rx_hook) as current:
        netpoll_set_trap(current.np.net, 1)
        say(arguments.quiet, f"answering: {current.np!r}")
        enough = current.wait(lambda: arguments.count is not None and echo.echoed >= arguments.count, arguments.timeout)
        say(arguments.quiet, f"{echo.echoed} datagrams echoed, {current.np.stats.received} received")
    return enough or not arguments.count
