"""`trace`: record the frames of an interface, both ways, as pcapng, with the kernel's own timestamps.

In: a packet socket that sees what the interface receives and sends. Out: a capture, valid whenever it is read. The rule it
keeps: a frame goes into the file as it was on the wire, with the VLAN tag that the kernel keeps aside put back.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from guest.netpoll.drivers import rtnetlink
from guest.netpoll.drivers.af_packet import ETH_P_ALL, PACKET_AUXDATA, SOL_PACKET, apply_status
from guest.netpoll.errors import SetupError
from guest.netpoll.middleware.pcapng import Direction, Writer
from guest.netpoll.options import parse
from guest.netpoll.skbuff import PACKET_OUTGOING, SkBuff
from guest.netpoll.tool.session import DeviceGone, Stop, must_exist, say, signals
from guest.netpoll.wire.ethernet import ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6

SO_TIMESTAMPNS = 35
SNAPLEN = 262_144  # longer than any frame, GRO's 64 KiB ones included
_TIMESPEC = struct.Struct("=qq")
_AUXDATA = struct.Struct("=IIIHHHH")
_ADDRESSES = {ETH_P_IP: ((12, 16), (16, 20)), ETH_P_IPV6: ((8, 24), (24, 40)), ETH_P_ARP: ((14, 18), (24, 28))}
"""Where source and destination stand after the Ethernet header, by protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame with the kernel's time, in nanoseconds since the epoch."""

    time: int
    data: bytes
    direction: Direction


def trace(arguments: argparse.Namespace) -> bool:
    """The command. Raises OptionError, SetupError, DeviceGone, OSError (the file)."""
    name, peer = _device_and_peer(arguments.options)
    must_exist(name)
    with (
        signals() as stop,
        open_socket(name) as sock,
        wakeup(stop) as wake,
        Writer.create(arguments.file, application="netpoll") as writer,
    ):
        index = socket.if_nametoindex(name)
        number = writer.add_interface(name, mac=rtnetlink.link(index).address, snaplen=SNAPLEN)
        say(arguments.quiet, f"tracing {name} to {arguments.file}")
        frames = _frames(sock, wake, stop, arguments.timeout)
        wanted = (frame for frame in frames if not peer or concerns(frame.data, peer))
        count = 0
        for frame in itertools.islice(wanted, arguments.count):
            writer.packet(number, frame.time, frame.data, direction=frame.direction)
            count += 1
    say(arguments.quiet, f"{count} frames")
    return stop.requested or not arguments.count or count >= arguments.count


def _device_and_peer(options: str) -> tuple[str, bytes]:
    """The interface, and the packed address whose frames are wanted (empty: all). Raises OptionError."""
    if "@" not in options and "/" not in options:
        return options, b""
    parsed = parse(options)
    wanted = parsed.remote_ip
    unspecified = (ipaddress.IPv4Address(0), ipaddress.IPv6Address(0))
    return parsed.dev_name or "eth0", b"" if wanted in unspecified else wanted.packed


def open_socket(name: str) -> socket.socket:
    """A packet socket on `name` that sees both ways, promiscuously. Raises SetupError."""
    sock = None
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        sock.bind((name, ETH_P_ALL))
        membership = struct.pack("=iHH8s", socket.if_nametoindex(name), 1, 0, b"")  # PACKET_MR_PROMISC
        sock.setsockopt(SOL_PACKET, 1, membership)  # PACKET_ADD_MEMBERSHIP
    except OSError as error:
        if sock is not None:
            sock.close()
        raise SetupError(error.errno or errno.EIO, f"{name}: {error.strerror}") from error
    return sock


@contextmanager
def wakeup(stop: Stop) -> Iterator[int]:
    """A descriptor that becomes readable when a signal asks to stop."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    stop.wake.append(lambda: os.eventfd_write(fd, 1))
    try:
        yield fd
    finally:
        stop.wake.clear()
        os.close(fd)


def _frames(sock: socket.socket, wake: int, stop: Stop, timeout: float | None) -> Iterator[Frame]:
    """Frames as they come, until out of time or stopped. Raises DeviceGone."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.register(wake, select.POLLIN)
    deadline = None if timeout is None else time.monotonic() + timeout
    while not stop.requested:
        frame = receive(sock)
        if frame is not None:
            yield frame
            continue
        left = None if deadline is None else 1000 * (deadline - time.monotonic())
        if left is not None and left <= 0:
            return
        poller.poll(left)


def receive(sock: socket.socket) -> Frame | None:
    """The next frame, or None when there is none yet. Raises DeviceGone."""
    try:
        data, aux, _, address = sock.recvmsg(SNAPLEN, 256)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.ENETDOWN:  # told once when the interface goes down; it may come up again
            return None
        raise DeviceGone(f"{error.strerror}") from error
    return _frame(data, aux, address[2])


def _frame(data: bytes, aux: list[tuple[int, int, bytes]], kind: int) -> Frame:
    now = time.time_ns()
    skb = SkBuff(data, None, int.from_bytes(data[12:14], "big"))
    for level, what, value in aux:
        if (level, what) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            now = seconds * 1_000_000_000 + nanoseconds
        elif (level, what) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(value)
            apply_status(skb, status, tci, tpid)
    direction = Direction.OUTBOUND if kind == PACKET_OUTGOING else Direction.INBOUND
    return Frame(now, bytes(skb.data), direction)


def concerns(frame: bytes, address: bytes) -> bool:
    """The frame's source or destination (ARP: sender or target) is that address; one VLAN tag is looked behind."""
    at = 18 if int.from_bytes(frame[12:14], "big") == ETH_P_8021Q else 14
    places = _ADDRESSES.get(int.from_bytes(frame[at - 2 : at], "big"), ())
    return any(frame[at + start : at + end] == address for start, end in places)
