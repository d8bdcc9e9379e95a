"""The userspace netpoll stack: UDP out and in, over real devices, when nothing else of a system runs.

The API of the slides, under its names; netpoll_setup() binds a Netpoll to a registered NetDevice, and
loop.Loop serves interrupts. Everything here is safe to import anywhere: no sockets, no threads, no state.
"""

from guest.netpoll.context import Context
from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.errors import CarrierTimeout, MessageTooLong, NetpollError, OptionError, SetupError
from guest.netpoll.netdevice import Net, NetDevice, NetdevTx
from guest.netpoll.options import netpoll_parse_options
from guest.netpoll.poll import netpoll_poll, netpoll_set_trap, netpoll_trap
from guest.netpoll.rx import netpoll_rx
from guest.netpoll.send import netpoll_send_skb, netpoll_send_udp, netpoll_send_udp_batch
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.txq import netpoll_queue

__all__ = [
    "CarrierTimeout",
    "Context",
    "MessageTooLong",
    "Net",
    "NetDevice",
    "NetdevTx",
    "Netpoll",
    "NetpollError",
    "OptionError",
    "SetupError",
    "SkBuff",
    "netpoll_cleanup",
    "netpoll_parse_options",
    "netpoll_poll",
    "netpoll_queue",
    "netpoll_rx",
    "netpoll_send_skb",
    "netpoll_send_udp",
    "netpoll_send_udp_batch",
    "netpoll_set_trap",
    "netpoll_setup",
    "netpoll_trap",
]
