"""What the kernel says about one interface, over rtnetlink (RFC 3549, linux/rtnetlink.h).

In: an interface index. Out: Link (name, MAC, MTU, flags, carrier) and addresses; set_up(); and a
non-blocking monitor socket whose readability means that something about links or addresses changed. The
one rule: only reads, but for set_up(), which sets IFF_UP and nothing else.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100
NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_GETADDR = 22
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_F_SECONDARY = 0x01
IFA_F_TENTATIVE = 0x40
ARPHRD_ETHER = 1
ARPHRD_LOOPBACK = 772

_NLMSG = Struct("=IHHII")
_IFINFO = Struct("=BxHiII")
_IFADDR = Struct("=BBBBi")
_ATTR = Struct("=HH")
_BUFFER = 1 << 17

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """State of one interface; `hardware` is its ARPHRD_ number, `master` an index or 0."""

    index: int
    name: str
    address: bytes
    mtu: int
    flags: int
    hardware: int
    master: int

    @property
    def up(self) -> bool:
        """Administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def carrier(self) -> bool:
        """Up, and with a link below it."""
        return self.flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP


def monitor() -> socket.socket:
    """A non-blocking socket that gets a message whenever a link or an address changes."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    sock.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
    return sock


def drain(sock: socket.socket) -> bool:
    """Throw away what a monitor holds; True if there was anything (overrun included)."""
    seen = False
    while True:
        try:
            sock.recv(_BUFFER)
        except BlockingIOError:
            return seen
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        seen = True


def link(index: int) -> Link:
    """The interface's state; raises OSError (ENODEV)."""
    for kind, body in _talk(RTM_GETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0)):
        if kind == RTM_NEWLINK and len(body) >= _IFINFO.size:
            return _parse_link(body)
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def addresses(index: int) -> list[Interface]:
    """Usable addresses, each version's primary first; tentative ones (DAD under way) are left out."""
    found: list[tuple[int, Interface]] = []
    for kind, body in _talk(RTM_GETADDR, NLM_F_DUMP, bytes(_IFADDR.size)):
        if kind != RTM_NEWADDR or len(body) < _IFADDR.size:
            continue
        family, prefix, flags, _, owner = _IFADDR.unpack_from(body)
        attributes = dict(_attributes(body[_IFADDR.size :]))
        raw = attributes.get(IFA_LOCAL, attributes.get(IFA_ADDRESS, b""))
        size = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family)
        if owner == index and len(raw) == size and not (size == 16 and flags & IFA_F_TENTATIVE):
            address = ipaddress.ip_interface((ipaddress.ip_address(raw), prefix))
            found.append((flags & IFA_F_SECONDARY, address))
    return [address for _, address in sorted(found, key=lambda item: item[0])]


def set_up(index: int) -> None:
    """Set IFF_UP; raises OSError (EPERM, ENODEV, or what the driver's open returned)."""
    _talk(RTM_NEWLINK, NLM_F_ACK, _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP))


def _talk(kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
    """One request and its answers, each (message type, body); raises OSError with the kernel's errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(5.0)
        sock.send(_NLMSG.pack(_NLMSG.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            for answer, data in _messages(sock.recv(_BUFFER)):
                if answer == NLMSG_ERROR:
                    _raise_error(data)
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    return answers
                answers.append((answer, data))
            if not flags & NLM_F_DUMP:
                return answers


def _raise_error(data: bytes) -> None:
    code = -int.from_bytes(data[:4], "little" if _LITTLE else "big", signed=True)
    if code:
        raise OSError(code, os.strerror(code))


_LITTLE = Struct("=H").pack(1) == b"\1\0"


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages of one datagram; a length that does not fit ends it."""
    while len(data) >= _NLMSG.size:
        size, kind = _NLMSG.unpack_from(data)[:2]
        if not _NLMSG.size <= size <= len(data):
            return
        yield kind, data[_NLMSG.size : size]
        data = data[(size + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute; a length that does not fit ends it."""
    while len(data) >= _ATTR.size:
        size, kind = _ATTR.unpack_from(data)
        if not _ATTR.size <= size <= len(data):
            return
        yield kind & 0x3FFF, data[_ATTR.size : size]
        data = data[(size + 3) & ~3 :]


def _parse_link(body: bytes) -> Link:
    _, hardware, index, flags, _ = _IFINFO.unpack_from(body)
    attributes = dict(_attributes(body[_IFINFO.size :]))
    number = Struct("=I").unpack
    return Link(
        index,
        attributes.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="surrogateescape"),
        attributes.get(IFLA_ADDRESS, b""),
        number(attributes[IFLA_MTU])[0] if IFLA_MTU in attributes else 1500,
        flags,
        hardware,
        number(attributes[IFLA_MASTER])[0] if IFLA_MASTER in attributes else 0,
    )
