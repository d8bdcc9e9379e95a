"""A receive ring of an AF_PACKET socket on one interface: frames with the kernel's time stamps, without a system call each.

In: an interface name. Out: `Raw` frames. Rule: what the ring could not hold is counted by `drops`, never passed over.

TPACKET_V2 (Documentation/networking/packet_mmap.rst): slots of one size in memory shared with the kernel, each with a status word
that says whose turn it is. The ring's pages do not count against rmem_max, so it is as deep without privileges as with
them. A frame that is longer than a slot comes whole through the socket's queue (PACKET_COPY_THRESH), which at its usual 208 KiB holds a dozen of 9000
bytes; so it is made as deep as may be.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Iterator
from errno import ENETDOWN
from typing import NamedTuple

ETH_P_ALL = 0x0003  # linux/if_ether.h
SOL_PACKET = 263  # linux/socket.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
PACKET_RX_RING, PACKET_STATISTICS, PACKET_COPY_THRESH, PACKET_VERSION = 5, 6, 7, 10  # linux/if_packet.h
TPACKET_V2 = 1
PACKET_OUTGOING = 4

TP_STATUS_KERNEL, TP_STATUS_USER, TP_STATUS_COPY = 0, 1 << 0, 1 << 1
TP_STATUS_CSUMNOTREADY, TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 3, 1 << 4, 1 << 6

BLOCK, SLOT = 1 << 16, 1 << 11  # bytes; a slot holds a frame of 1500 bytes and the ring's header
LONG_FRAMES = 1 << 24  # bytes of them may wait, for root; for others what net.core.rmem_max allows
LARGEST = 1 << 18  # a tap with segmentation offload hands over 64 KiB and headers

_REQUEST = struct.Struct("@IIII")  # struct tpacket_req
_STATUS = struct.Struct("@I")
_HEADER = struct.Struct("@IIIHHIIHH")  # struct tpacket2_hdr: status len snaplen mac net sec nsec vlan_tci vlan_tpid
_PKTTYPE = 32 + 10  # sll_pkttype of the sockaddr_ll behind the header (TPACKET_ALIGN(sizeof(struct tpacket2_hdr)))
_STATISTICS = struct.Struct("@II")  # struct tpacket_stats: packets, drops


class Raw(NamedTuple):
    """One frame as the kernel handed it over; `cut` if some of its bytes are missing."""

    data: bytes
    wall_ns: int  # CLOCK_REALTIME, taken by the kernel
    outgoing: bool  # sent by this host
    partial: bool  # the checksum was left to the hardware
    vlan: tuple[int, int] | None  # tci and tpid of a tag that the kernel took off; tpid 0 if it did not say
    cut: bool


class Ring:
    """`slots` times 2 KiB of frames on `interface`. Raises OSError. Close it when done."""

    def __init__(self, interface: str, slots: int = 4096) -> None:
        self._slots, self._next = slots, 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            self._deepen()
            self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
            self._socket.setsockopt(SOL_PACKET, PACKET_COPY_THRESH, 1)
            request = _REQUEST.pack(BLOCK, slots * SLOT // BLOCK, SLOT, slots)
            self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
            self._map = mmap.mmap(self._socket.fileno(), slots * SLOT)
            self._socket.bind((interface, ETH_P_ALL))  # nothing is received before: the protocol was 0
        except OSError as error:
            self._socket.close()
            raise OSError(error.errno, f"cannot capture on {interface}: {error.strerror}") from error

    def _deepen(self) -> None:
        """The queue for long frames. Nobody but root of the first user namespace may have more than net.core.rmem_max (sockopt_capable())."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LONG_FRAMES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LONG_FRAMES)

    def fileno(self) -> int:
        """Readable while a frame waits; -1 once closed."""
        return self._socket.fileno()

    def frames(self) -> Iterator[Raw]:
        """Every frame that waits. Raises OSError for a socket that failed; an interface going down is no failure."""
        if self._socket.fileno() < 0:
            return
        self._clear_error()
        while True:
            offset = self._next * SLOT
            (status,) = _STATUS.unpack_from(self._map, offset)
            if not status & TP_STATUS_USER:
                return
            raw = self._frame(offset)
            _STATUS.pack_into(self._map, offset, TP_STATUS_KERNEL)
            self._next = (self._next + 1) % self._slots
            yield raw

    def _clear_error(self) -> None:
        """The socket tells once that its interface went down, and is readable until somebody has listened."""
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error not in (0, ENETDOWN):
            raise OSError(error, "the packet socket failed")

    def _frame(self, offset: int) -> Raw:
        status, length, snaplen, mac, _, seconds, nanoseconds, tci, tpid = _HEADER.unpack_from(self._map, offset)
        data = self._map[offset + mac : offset + mac + snaplen]
        if status & TP_STATUS_COPY:
            data = self._socket.recv(LARGEST)
        tag = (tci, tpid if status & TP_STATUS_VLAN_TPID_VALID else 0) if status & TP_STATUS_VLAN_VALID else None
        return Raw(
            data=data,
            wall_ns=seconds * 1_000_000_000 + nanoseconds,
            outgoing=self._map[offset + _PKTTYPE] == PACKET_OUTGOING,
            partial=bool(status & TP_STATUS_CSUMNOTREADY),
            vlan=tag,
            cut=len(data) < length,
        )

    def drops(self) -> int:
        """Frames lost since the last call: the ring was full."""
        if self._socket.fileno() < 0:
            return 0
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
        return int(_STATISTICS.unpack(statistics)[1])

    def close(self) -> None:
        """Give the ring back. A second call does nothing."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            self._map.close()
