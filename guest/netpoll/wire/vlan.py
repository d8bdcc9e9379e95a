"""802.1Q tag (IEEE 802.1Q clause 9.6), as it stands after the two addresses of a frame.

In: the octets from the TCI on. Out: Header(priority, drop_eligible, vid, ethertype), ethertype being
that of the tagged payload. insert() puts a tag that the kernel stripped back where the wire had it.
"""

from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire import ethernet
from guest.netpoll.wire.errors import require

HEADER_LEN = 4

_LAYOUT = Struct(">HH")


@dataclass(frozen=True, slots=True)
class Header:
    """`priority` 0-7, `drop_eligible` 0-1, `vid` 0-4095."""

    priority: int
    drop_eligible: int
    vid: int
    ethertype: int

    @property
    def tci(self) -> int:
        """The 16-bit tag control information."""
        return self.priority << 13 | self.drop_eligible << 12 | self.vid


def check_len(data: bytes | bytearray | memoryview) -> None:
    """Raise Truncated if there is no room for the tag."""
    require("802.1Q tag", data, HEADER_LEN)


def parse(data: bytes | bytearray | memoryview) -> Header:
    """The tag at the start of `data` (just after ethertype 0x8100); raises Truncated."""
    check_len(data)
    tci, ethertype = _LAYOUT.unpack_from(data)
    return Header(tci >> 13, tci >> 12 & 1, tci & 0xFFF, ethertype)


def buffer_len(_header: Header) -> int:
    """Always HEADER_LEN."""
    return HEADER_LEN


def emit(header: Header, buf: bytearray | memoryview, at: int = 0) -> int:
    """Write the tag at offset `at`; return the offset after it."""
    _LAYOUT.pack_into(buf, at, header.tci, header.ethertype)
    return at + HEADER_LEN


def payload(data: bytes | bytearray | memoryview) -> memoryview:
    """What follows the tag."""
    check_len(data)
    return memoryview(data)[HEADER_LEN:]


def insert(frame: bytes, tci: int, tpid: int = ethernet.ETH_P_8021Q) -> bytes:
    """`frame` with a tag put between its source address and its ethertype."""
    ethernet.check_len(frame)
    return frame[:12] + _LAYOUT.pack(tpid, tci) + frame[12:]
