"""`sysrq`: the slides' extension as a command: a peer's letters become sysrq commands of this machine.

In: datagrams of the target address, and of no one else. Out: one write to /proc/sysrq-trigger a key. The rule it keeps: the
trigger is opened before the first datagram, and the key is told on standard error before it is pressed, since a 'b' does
not return.
"""

from __future__ import annotations

import argparse
from functools import partial

from guest.netpoll.clients.netconsole.client import peer_of, source_of
from guest.netpoll.clients.sysrq import SysrqReceiver, SysrqTrigger
from guest.netpoll.core import Netpoll
from guest.netpoll.netdevice import Net
from guest.netpoll.options import netpoll_parse_options
from guest.netpoll.poll import netpoll_set_trap
from guest.netpoll.tool.session import say, session


def sysrq(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, ValueError (no peer, no such key), SetupError, OSError (the trigger)."""
    asked = Netpoll(Net(), "sysrq")
    netpoll_parse_options(asked, arguments.options)
    with SysrqTrigger(arguments.trigger) as trigger:
        receiver = SysrqReceiver(peer_of(asked), partial(_press, trigger, arguments.quiet), frozenset(arguments.allow))
        with session(arguments, "sysrq", partial(_rx_hook, receiver)) as current:
            if arguments.trap:
                netpoll_set_trap(current.np.net, 1)
            say(arguments.quiet, f"taking sysrq keys: {current.np!r}")
            done = current.wait(lambda: _enough(receiver, arguments.count), arguments.timeout)
        say(arguments.quiet, f"{dict(receiver.counts)}")
    return done or not arguments.count


def _rx_hook(receiver: SysrqReceiver, np: Netpoll, port: int, data: bytes) -> None:
    receiver.receive(source_of(np, port), data)


def _press(trigger: SysrqTrigger, quiet: bool, key: str) -> None:
    say(quiet, f"sysrq {key}")
    trigger(key)


def _enough(receiver: SysrqReceiver, count: int | None) -> bool:
    return count is not None and receiver.counts["keys"] >= count
