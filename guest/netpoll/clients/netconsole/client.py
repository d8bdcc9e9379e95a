"""netconsole as the slides have it: one netpoll client that sends records, queues what cannot leave, and takes sysrq keys.

In: records (`write`), and datagrams from the peer. Out: packets through netpoll_send_udp, keys to the sysrq sink. The rule
it keeps: the presets are those of the slides' `struct netpoll np`, and only the configured peer is listened to.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from guest.netpoll.clients.netconsole.sender import Record, Sender, Target
from guest.netpoll.clients.sysrq import KEYS, Peer, SysrqReceiver
from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.netdevice import Net
from guest.netpoll.options import netpoll_parse_options
from guest.netpoll.send import NET_XMIT_SUCCESS, netpoll_send_udp
from guest.netpoll.txq import netpoll_queue
from guest.netpoll.wire import ethernet

_SOURCE = {ethernet.ETH_P_IP: slice(26, 30), ethernet.ETH_P_IPV6: slice(22, 38)}  # source address in the frame


def source_of(np: Netpoll, port: int) -> Peer:
    """Who sent the datagram that an rx_hook is being called with. Only inside an rx_hook."""
    skb = np.rx_skb
    if skb is None:
        raise ValueError("outside an rx_hook there is no frame to look at")
    frame = bytes(skb.data[:38])
    address = ip_address(frame[_SOURCE[int.from_bytes(frame[12:14], "big")]])
    return Peer(address, port, frame[6:12])


def peer_of(np: Netpoll) -> Peer:
    """The peer that `np` is configured for; the broadcast MAC, netconsole's preset, counts as none configured.

    Raises ValueError when any address may send (0.0.0.0).
    """
    if np.remote_ip is None or np.remote_ip.is_unspecified:
        raise ValueError("sysrq keys are taken from one peer only: the target address must be given")
    mac = b"" if np.remote_mac == ethernet.BROADCAST else np.remote_mac
    return Peer(np.remote_ip, np.remote_port, mac)


class Netconsole:
    """One netconsole target on a device of `net`. `sysrq` is the sink of keys; without it nothing is received.

    Raises OptionError, SetupError, and ValueError for sysrq without a peer.
    """

    def __init__(
        self,
        net: Net,
        options: str,
        target: Target | None = None,
        *,
        sysrq: Callable[[str], None] | None = None,
        allowed: frozenset[str] = KEYS,
    ) -> None:
        self.sender = Sender(target or Target())
        self.np = Netpoll(net, "netconsole", drop=netpoll_queue)
        netpoll_parse_options(self.np, options)
        self.sysrq: SysrqReceiver | None = None
        if sysrq is not None:
            self.sysrq = SysrqReceiver(peer_of(self.np), sysrq, allowed)
            self.np.rx_hook = self._netconsole_rx
        netpoll_setup(self.np)

    def _netconsole_rx(self, np: Netpoll, port: int, data: bytes) -> None:
        if self.sysrq is not None:
            self.sysrq.receive(source_of(np, port), data)

    def write(self, record: Record) -> int:
        """Send a record; how many of its packets the driver took (the others are queued, or lost and counted)."""
        results = [netpoll_send_udp(self.np, packet) for packet in self.sender.packets(record)]
        return results.count(NET_XMIT_SUCCESS)

    def close(self) -> None:
        """netpoll_cleanup; a second call does nothing."""
        netpoll_cleanup(self.np)
