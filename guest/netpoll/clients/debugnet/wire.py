"""debugnet on the wire: a 24-byte header before everything the client sends, a 4-byte acknowledgement for each (debugnet.h).

In: UDP payloads. Out: fields, or WireError. The one rule: what FreeBSD's kernel or netdumpd could say is parsed as they do; what is
ours alone is only ever sent to who has shown to know it.

Ours is this. A HERALD whose aux2 is not 0 names the dump (netdumpd looks at no aux2). A server that knows the name answers in a
longer form, `seqno u32, name u32, status u8, tail`, to this HERALD and from then on to everything: many datagrams by one answer
(SEEN: all below `seqno` are written, and those above it whose bit in the tail is set), and what became of the dump after a restart.
A 4-byte answer says that the server is not ours.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from struct import Struct

from guest.netpoll.wire import WireError

SERVER_PORT, CLIENT_PORT = 20023, 20024
NETGDB = 0x2515F095  # aux2 of a HERALD of netgdb
MAX_DATA = 4096  # netdumpd.h: NETDUMP_DATASIZE
SPREAD = 1024  # numbers from the lowest unacknowledged one that a client of ours may be ahead

HEADER = Struct(">IIQII")  # type, seqno, offset, len, aux2
ACK = Struct(">I")
ANSWER = Struct(">IIB")  # seqno, name, status; then the tail
HEADER_LEN = HEADER.size


class Type(enum.IntEnum):
    """struct debugnet_msg_hdr: mh_type."""

    HERALD = 1
    FINISHED = 2
    VMCORE = 3
    KDH = 4
    EKCD_KEY = 5


class Status(enum.IntEnum):
    """What a server of ours says in its longer answers."""

    SEEN = 0  # tail: bits, the first byte's lowest is seqno+1
    NEW = 1  # to a HERALD: nothing of this dump is here
    RESUMED = 2  # to a HERALD: what was acknowledged before is here
    COMPLETE = 3  # to a HERALD: the dump is here, finished
    REFUSED = 4  # to anything: tail is why, as text; the dump has ended


@dataclass(frozen=True, slots=True)
class Message:
    """One datagram of a client's."""

    type: int
    seqno: int
    offset: int
    data: bytes
    aux2: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One of a server's; `name` is 0 and `status` SEEN in the 4-byte form, which speaks for `seqno` alone."""

    seqno: int
    name: int = 0
    status: Status = Status.SEEN
    tail: bytes = b""


def emit(message: Message) -> bytes:
    """The datagram."""
    return HEADER.pack(message.type, message.seqno, message.offset, len(message.data), message.aux2) + message.data


def parse(datagram: bytes) -> Message:
    """As netdumpd does: the length must be what the header says, and no more than MAX_DATA. Raises WireError."""
    if len(datagram) < HEADER_LEN:
        raise WireError("shorter than a header")
    kind, seqno, offset, size, aux2 = HEADER.unpack_from(datagram)
    if size != len(datagram) - HEADER_LEN:
        raise WireError("not as long as its header says")
    if size > MAX_DATA:
        raise WireError("longer than a server takes")
    if kind not in Type.__members__.values():
        raise WireError("of no known type")
    return Message(kind, seqno, offset, datagram[HEADER_LEN:], aux2)


def emit_answer(answer: Answer) -> bytes:
    """The datagram: 4 bytes where nothing is named."""
    if not answer.name:
        return ACK.pack(answer.seqno)
    return ANSWER.pack(answer.seqno, answer.name, answer.status) + answer.tail


def parse_answer(datagram: bytes) -> Answer:
    """Raises WireError. Anything of 4 bytes is an acknowledgement (debugnet.c: debugnet_handle_ack)."""
    if len(datagram) == ACK.size:
        return Answer(ACK.unpack(datagram)[0])
    if len(datagram) < ANSWER.size:
        raise WireError("no acknowledgement by its length")
    seqno, name, status = ANSWER.unpack_from(datagram)
    if not name or status not in Status.__members__.values():
        raise WireError("no answer that is known")
    tail = datagram[ANSWER.size :]
    if status == Status.SEEN and len(tail) > SPREAD // 8:
        raise WireError("an answer about more than was sent")
    return Answer(seqno, name, Status(status), tail)


def path_of(message: Message) -> str | None:
    """The path that a HERALD asks for, None if it asks for none (netdumpd: only with its NUL at the end). Raises WireError."""
    if not message.data:
        return None
    if message.data[-1]:
        raise WireError("a path without its NUL")
    try:
        return message.data[:-1].decode()
    except UnicodeDecodeError:
        raise WireError("a path that is no text") from None
