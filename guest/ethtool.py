"""What a NIC's driver has counted: `ethtool -S`, without the program.

In: an interface's name. Out: numbers by the driver's own names. Rule: a driver that counts nothing of its own is no error; what it counts is told as it is.

linux/ethtool.h: ETHTOOL_GSSET_INFO, ETHTOOL_GSTRINGS and ETHTOOL_GSTATS over the ioctl SIOCETHTOOL.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS, ETHTOOL_GSTATS, ETHTOOL_GSSET_INFO = 0x1B, 0x1D, 0x37
ETH_SS_STATS, ETH_GSTRING_LEN = 1, 32
MOST = 4096  # counters of one driver that are asked for
_NOTHING = (errno.EOPNOTSUPP, errno.EINVAL)


def driver_counters(name: str) -> dict[str, int]:
    """Empty where the driver has none. Raises OSError for an interface that is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            count = _count(sock, name)
        except OSError as error:
            if error.errno in _NOTHING:
                return {}
            raise
        if not 0 < count <= MOST:
            return {}
        strings = _ask(sock, name, struct.pack("@III", ETHTOOL_GSTRINGS, ETH_SS_STATS, count), count * ETH_GSTRING_LEN)
        values = struct.unpack(f"@{count}Q", _ask(sock, name, struct.pack("@II", ETHTOOL_GSTATS, count), count * 8))
    words = (strings[at : at + ETH_GSTRING_LEN] for at in range(0, len(strings), ETH_GSTRING_LEN))
    names = (word.partition(b"\0")[0].decode(errors="replace").strip() for word in words)
    return dict(zip(names, values, strict=True))


def _count(sock: socket.socket, name: str) -> int:
    """struct ethtool_sset_info: cmd, reserved, a mask of 64 bits that comes back with what there is, one number each."""
    asked = struct.pack("@IIQ", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS)
    answer = _whole(sock, name, asked, 4)
    (mask,) = struct.unpack_from("@Q", answer, 8)
    return int(struct.unpack_from("@I", answer, 16)[0]) if mask else 0


def _ask(sock: socket.socket, name: str, head: bytes, room: int) -> bytes:
    """What is behind the head in the answer."""
    return _whole(sock, name, head, room)[len(head) :]


def _whole(sock: socket.socket, name: str, head: bytes, room: int) -> bytes:
    """struct ifreq holds a name and the address of a buffer, which the kernel fills."""
    buffer = ctypes.create_string_buffer(head, len(head) + room)
    fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("@16sP16x", name.encode(), ctypes.addressof(buffer)))
    return buffer.raw
