"""Taps: the host's end of a guest NIC. QEMU gets the descriptor, the harness's stack and capture sit on the interface.

Rule: a tap is not persistent; it lives exactly as long as a descriptor of it is open, in this process or in QEMU.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from guest.links import set_up
from harness.testbed.errors import NoTap

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
SIOCSIFHWADDR, SIOCSIFTXQLEN = 0x8924, 0x8943  # linux/sockios.h
ARPHRD_ETHER = 1  # linux/if_arp.h
QUEUE = 10_000  # frames that wait for QEMU; the default of 1000 is less than a test sends at once
_REMEDY = "load the module (modprobe tun), or give the container the device (--device /dev/net/tun)"
_NOT_YOURS = "let all users open it, as it is by default (as root: chmod 0666 /dev/net/tun), or run as root"


def open_tap(name: str, mac: str | None = None) -> int:
    """Make tap `name` in this process's namespace, up, without IP addresses; returns its descriptor. Raises NoTap.

    IFF_VNET_HDR is left out on purpose: without it QEMU offers the guest no checksum or segmentation offload, so each frame
    on the wire is complete.
    """
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        remedy = _NOT_YOURS if error.errno == errno.EACCES else _REMEDY
        raise NoTap(f"/dev/net/tun cannot be opened: {error.strerror}", remedy) from error
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        _up(name, mac)
    except OSError as error:
        os.close(fd)
        raise NoTap(f"no tap {name}: {error.strerror}", _REMEDY) from error
    return fd


def _up(name: str, mac: str | None) -> None:
    """By ioctls (netdevice(7)): through a netlink library it took every case 2.5 MiB of memory of its own, and 1 ms of processor time a tap."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        if mac is not None:
            address = bytes.fromhex(mac.replace(":", ""))
            fcntl.ioctl(door, SIOCSIFHWADDR, struct.pack("16sH14s8x", name.encode(), ARPHRD_ETHER, address))
        fcntl.ioctl(door, SIOCSIFTXQLEN, struct.pack("16si20x", name.encode(), QUEUE))
    set_up(name)
