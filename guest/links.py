"""Network links as the guest's kernel reports them, over rtnetlink: who is there, with which MAC, and whether it has carrier.

In: RTM_NEWLINK/RTM_DELLINK messages (rtnetlink(7)). Out: a table of links, and a call for each change. Rule: nothing is polled;
whoever waits is woken by the kernel's own message.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18  # linux/rtnetlink.h
RTMGRP_LINK = 1
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300  # linux/netlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFLA_ADDRESS, IFLA_IFNAME = 1, 3  # linux/if_link.h
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000  # linux/if.h
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFMTU = 0x8913, 0x8914, 0x8922  # linux/sockios.h

_NLMSGHDR = struct.Struct("=LHHLL")
_IFINFOMSG = struct.Struct("=BxHiII")
_RTATTR = struct.Struct("=HH")


@dataclass(frozen=True)
class Link:
    """One interface at one moment. `carrier` is IFF_LOWER_UP: the driver says that the link is there."""

    index: int
    name: str
    mac: str
    up: bool
    carrier: bool


def parse_links(data: bytes) -> Iterator[tuple[int, Link | None]]:
    """The link messages in one datagram: (ifindex, Link), or (ifindex, None) for a link that went away. Malformed tails end
    the iteration."""
    offset = 0
    while offset + _NLMSGHDR.size <= len(data):
        length, kind, _, _, _ = _NLMSGHDR.unpack_from(data, offset)
        if length < _NLMSGHDR.size or offset + length > len(data):
            return
        body = offset + _NLMSGHDR.size
        if kind in (RTM_NEWLINK, RTM_DELLINK) and body + _IFINFOMSG.size <= offset + length:
            _, _, index, flags, _ = _IFINFOMSG.unpack_from(data, body)
            if kind == RTM_DELLINK:
                yield index, None
            else:
                yield index, _link(index, flags, data[body + _IFINFOMSG.size : offset + length])
        offset += (length + 3) & ~3


def _link(index: int, flags: int, attributes: bytes) -> Link:
    name, mac = "", ""
    for kind, value in _attributes(attributes):
        if kind == IFLA_IFNAME:
            name = value.rstrip(b"\0").decode("ascii", "replace")
        elif kind == IFLA_ADDRESS:
            mac = value.hex(":")
    return Link(index, name, mac, bool(flags & IFF_UP), bool(flags & IFF_LOWER_UP) and bool(flags & IFF_UP))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _RTATTR.size <= len(data):
        length, kind = _RTATTR.unpack_from(data, offset)
        if length < _RTATTR.size:
            return
        yield kind & 0x3FFF, data[offset + _RTATTR.size : offset + length]
        offset += (length + 3) & ~3


class LinkMonitor:
    """A table of links kept by a daemon thread. `on_message(before, after)` runs in that thread for each message, also when
    nothing of what a Link holds has changed (a bond's failover is such a message); either may be None."""

    def __init__(self, on_message: Callable[[Link | None, Link | None], None]) -> None:
        self._on_message = on_message
        self._links: dict[int, Link] = {}
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, RTMGRP_LINK))
        self._ask()
        threading.Thread(target=self._run, name="links", daemon=True).start()

    def _ask(self) -> None:
        length = _NLMSGHDR.size + _IFINFOMSG.size
        header = _NLMSGHDR.pack(length, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        self._socket.send(header + _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0))

    def _run(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:  # ENOBUFS: messages were lost, ask for the whole table again
                self._ask()
                continue
            for index, link in parse_links(data):
                self._take(index, link)

    def _take(self, index: int, link: Link | None) -> None:
        with self._changed:
            before = self._links.get(index)
            if link is None:
                self._links.pop(index, None)
            else:
                self._links[index] = link
            self._changed.notify_all()
        self._on_message(before, link)

    def find(self, match: Callable[[Link], bool]) -> Link | None:
        """Some link that satisfies `match`, now."""
        with self._changed:
            return next((link for link in self._links.values() if match(link)), None)

    def wait(self, match: Callable[[Link], bool], within: float, what: str) -> Link:
        """The first link that satisfies `match`; TimeoutError naming `what` and the links that there are after `within` s."""
        deadline = time.monotonic() + within
        with self._changed:
            while True:
                for link in self._links.values():
                    if match(link):
                        return link
                left = deadline - time.monotonic()
                if left <= 0:
                    there = ", ".join(f"{link.name} {link.mac}" for link in self._links.values())
                    raise TimeoutError(f"{what} did not come within {within:g} s; there are: {there}")
                self._changed.wait(left)


def set_up(name: str, up: bool = True) -> None:
    """ip link set NAME up|down. OSError with the kernel's errno."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", name.encode(), 0)
        flags = struct.unpack_from("=H", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)[0]
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))


def set_mtu(name: str, mtu: int) -> None:
    """ip link set NAME mtu MTU. OSError with the kernel's errno."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFMTU, struct.pack("16si20x", name.encode(), mtu))


def driver_of(name: str) -> str:
    """The driver bound to an interface's device, e.g. `e1000`; empty for a virtual interface."""
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{name}/device/driver"))
    except OSError:
        return ""
