"""Red Hat netdump on the wire: 24-byte requests to the crashed machine, 13-byte headers before what it answers (netdump.h, RHEL 4).

In: UDP payloads. Out: fields, or WireError. The one rule: all numbers are big-endian, and what is longer than it must be is accepted
where the kernel accepts it (requests), refused where no kernel sends it (replies).

The START's line has `key:0xHEX` items. Ours adds three that an old server passes over: `name` (which dump this is, so that a server
that was restarted goes on with it), `notes_page` and `notes_size` (the ELF notes of all CPUs and VMCOREINFO, as pages after the last).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire import WireError

PORT = 6666
CHUNK = 1024  # bytes of a page in one reply
MAX_LOG = 1000
VERSIONS = (4, 5)
START_MAX = 5  # info of a START: the highest version

REQUEST = Struct(">QIIII")  # magic, nr, command, from, to
REPLY = Struct(">BIII")  # version, nr, code, info


class Command(enum.IntEnum):
    """What the collector asks for (COMM_*)."""

    NONE = 0
    SEND_MEM = 1
    EXIT = 2
    REBOOT = 3
    HELLO = 4
    GET_NR_PAGES = 5
    GET_PAGE_SIZE = 6
    START_NETDUMP_ACK = 7
    GET_REGS = 8
    SHOW_STATE = 9


class Code(enum.IntEnum):
    """What the crashed machine says (REPLY_*)."""

    NONE = 0
    ERROR = 1
    LOG = 2
    MEM = 3
    RESERVED = 4
    HELLO = 5
    NR_PAGES = 6
    PAGE_SIZE = 7
    START_NETDUMP = 8
    END_NETDUMP = 9
    REGS = 10
    MAGIC = 11
    SHOW_STATE = 12


@dataclass(frozen=True, slots=True)
class Request:
    """`first` and `last` are `from` and `to`: page numbers, or the collector's version."""

    magic: int
    nr: int
    command: int
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """`nr` is the request's; what `info` is depends on the code."""

    version: int
    nr: int
    code: int
    info: int
    payload: bytes = b""


def emit_request(request: Request) -> bytes:
    """The datagram."""
    return REQUEST.pack(request.magic, request.nr, request.command, request.first, request.last)


def parse_request(datagram: bytes) -> Request:
    """Longer is accepted, as the kernel does. Raises WireError."""
    if len(datagram) < REQUEST.size:
        raise WireError("shorter than a request")
    return Request(*REQUEST.unpack_from(datagram))


def emit_reply(reply: Reply) -> bytes:
    """The datagram."""
    return REPLY.pack(reply.version, reply.nr, reply.code, reply.info) + reply.payload


def parse_reply(datagram: bytes) -> Reply:
    """Raises WireError."""
    if len(datagram) < REPLY.size:
        raise WireError("shorter than a reply")
    if len(datagram) > REPLY.size + CHUNK:
        raise WireError("longer than a reply")
    version, nr, code, info = REPLY.unpack_from(datagram)
    if version not in VERSIONS:
        raise WireError("of no known version")
    if code not in Code.__members__.values():
        raise WireError("with no known code")
    return Reply(version, nr, code, info, datagram[REPLY.size :])


_ITEM = re.compile(rb"([a-z_]{1,32}):0x([0-9a-fA-F]{1,16})")


def emit_start(items: dict[str, int]) -> bytes:
    """The line of a START."""
    return " ".join(f"{key}:{value:#x}" for key, value in items.items()).encode() + b"\n"


def parse_start(payload: bytes) -> dict[str, int]:
    """The items of its line; what is none is passed over."""
    return {key.decode(): int(value, 16) for key, value in _ITEM.findall(payload)}
