"""What every command of the tool shares: a device, a client on it, the loop, and an end.

In: an option string. Out: a `Session` with everything set up, torn down again when the command ends. The rule it keeps:
the tool waits in the loop and nowhere else, and SIGINT or SIGTERM ends a wait as well as time or success does.
"""

from __future__ import annotations

import argparse
import errno
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from guest.netpoll.core import Netpoll, netpoll_cleanup, netpoll_setup
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.errors import SetupError
from guest.netpoll.loop import Loop
from guest.netpoll.middleware.fault import FaultDevice
from guest.netpoll.middleware.pcapng import Writer
from guest.netpoll.middleware.trace import TraceDevice, pcapng_record
from guest.netpoll.netdevice import Net, NetDevice, register_netdev, unregister_netdev
from guest.netpoll.options import netpoll_parse_options
from guest.netpoll.txq import netpoll_queue

RxHook = Callable[[Netpoll, int, bytes], None]
RCVBUF = 4 << 20  # bytes; the kernel cuts it to net.core.rmem_max
RX_RING = 4096  # frames, 8 MiB


class DeviceGone(Exception):
    """The interface disappeared while in use."""


@dataclass(slots=True)
class Stop:
    """Set by SIGINT and SIGTERM."""

    requested: bool = False
    wake: list[Callable[[], None]] = field(default_factory=list)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        for wake in self.wake:
            wake()


@dataclass(frozen=True, slots=True)
class Session:
    """A client that is set up, and the loop that serves it."""

    np: Netpoll
    loop: Loop
    stop: Stop

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Serve until done, stopped, or out of time (False); None waits for ever. Raises DeviceGone."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            left = None if deadline is None else deadline - time.monotonic()
            if self.np.dev is None:
                raise DeviceGone(f"{self.np.dev_name} went away")
            if self.stop.requested:
                return True
            if left is not None and left <= 0:
                return False
            self.loop.run_once(left)
        return True

    def serve(self, seconds: float) -> None:
        """Serve what comes within so many seconds, or a first something. Raises DeviceGone."""
        if self.np.dev is None:
            raise DeviceGone(f"{self.np.dev_name} went away")
        self.loop.run_once(seconds)


@contextmanager
def signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM set a Stop; the handlers before are put back."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def session(
    arguments: argparse.Namespace, name: str, rx_hook: RxHook | None = None, ports: tuple[int, int] = (6665, 6666)
) -> Iterator[Session]:
    """Set everything up for a command; `ports`, ours and the target's, are presets. Raises OptionError, SetupError, OSError
    (the capture file).
    """
    pcapng: Path | None = arguments.pcapng
    with ExitStack() as stack:
        stop = stack.enter_context(signals())
        net = Net()
        np = Netpoll(net, name, rx_hook=rx_hook, drop=netpoll_queue, local_port=ports[0], remote_port=ports[1])
        netpoll_parse_options(np, arguments.options)
        dev = stack.enter_context(_device(net, np.dev_name, arguments.pmd, arguments.af_packet))
        if arguments.faults is not None:
            seed, faults = arguments.faults
            dev = FaultDevice(dev, seed=seed, tx=faults, rx=faults)
        if pcapng is not None:
            writer = stack.enter_context(Writer.create(pcapng, application="netpoll"))
            dev = TraceDevice(dev, pcapng_record(writer, dev), time.time_ns)
        register_netdev(dev)
        loop = stack.enter_context(Loop(net))
        stack.callback(unregister_netdev, dev)
        stop.wake.append(loop.wake)
        netpoll_setup(np, require_carrier=arguments.require_carrier, timeout=arguments.carrier_timeout)
        stack.callback(netpoll_cleanup, np)
        yield Session(np, loop, stop)


@contextmanager
def _device(net: Net, name: str, pmd: str | None, af_packet: str) -> Iterator[NetDevice]:
    """Interface `name`; or, with `pmd`, the NIC there under a driver of our own, called `name` and given back in the end."""
    if pmd is None:
        must_exist(name)
        yield AF_PACKET[af_packet](net, name)
        return
    from guest.netpoll.drivers.pmd.claim import pci_address  # half of what there is to import, for who asks for it
    from guest.netpoll.drivers.pmd.probe import probe

    taken = probe(net, name, pmd if ":" in pmd else pci_address(pmd))
    try:
        yield taken
    finally:
        taken.release()


def _calls(net: Net, name: str) -> NetDevice:
    """A call of the kernel for each frame, both ways."""
    return AfPacketDevice(net, name, rcvbuf=RCVBUF)


def _sending(net: Net, name: str) -> NetDevice:
    """The same, and the UDP checksums of batches are the kernel's to compute."""
    return AfPacketDevice(net, name, rcvbuf=RCVBUF, csum=True)


def _receiving(net: Net, name: str) -> NetDevice:
    """Frames are read out of memory shared with the kernel."""
    from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice  # not for those that must start quickly

    return AfPacketRingDevice(net, name, rx_ring=RX_RING)


AF_PACKET = {"calls": _calls, "sending": _sending, "receiving": _receiving}


def must_exist(name: str) -> None:
    """Raises SetupError when there is no such interface."""
    if name not in {known for _, known in socket.if_nameindex()}:
        raise SetupError(errno.ENODEV, f"there is no interface {name!r}")


_HINTS = {
    errno.EPERM: "packet sockets need CAP_NET_RAW: run as root",
    errno.EACCES: "packet sockets need CAP_NET_RAW: run as root",
    errno.ENODEV: "`ip link` lists those there are; the option string names one after its first '/'",
    errno.EADDRNOTAVAIL: "give the source address in the option string: [srcport]@SRCIP/dev,...",
}


def explain(error: SetupError | DeviceGone) -> str:
    """The error, and what to do about it where that is known."""
    hint = _HINTS.get(error.errno) if isinstance(error, SetupError) else None
    return f"{error}; {hint}" if hint else str(error)


def say(quiet: bool, text: str) -> None:
    """A line of summary on standard error."""
    if not quiet:
        print(f"netpoll: {text}", file=sys.stderr, flush=True)
