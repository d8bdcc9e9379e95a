"""Ready-made headers of one connection: what netpoll_send_udp() puts before a message.

In: addresses and ports, once; then messages. Out: whole frames. The one rule: everything that does not
change from message to message - addresses, ports, their share of both checksums - is computed once.

Values as in netpoll_send_udp(): no IP options, no fragmentation, TTL 64 (IPv6: hop limit 32), an IP
identification that counts from 1 (as kernels since 3.12 do), and a UDP checksum, which 2.6.12 left 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Literal

from guest.netpoll.lanes import checksums, column, series
from guest.netpoll.netdevice import IPAddress
from guest.netpoll.skbuff import FrameRun
from guest.netpoll.wire import ethernet
from guest.netpoll.wire.checksum import ones_sum
from guest.netpoll.wire.udp import HEADER_LEN as UDP_LEN
from guest.netpoll.wire.udp import IPPROTO_UDP

Message = bytes | bytearray | memoryview
# Of one client and length: its FrameV4; the store of everything from TOT_LEN on, that is tot_len, identification, mid, IP checksum, tail, UDP length
# and checksum, message; tot_len; the IP checksum but for the identification; the UDP length; the UDP checksum but for the message; whether the
# length is odd. Checksums are not yet modulo 65535
Shape = tuple["FrameV4", Callable[..., None], int, int, int, int, bool]
# What a descriptor stands for: a message of a shape, in the slot's buffer; or a frame of a run, None, then its first slot, stride and size; or anything
Stamp = Shape | tuple[None, int, int, int] | None

# Fields in a run's frames: their offset, struct's name for them, values
Column = tuple[int, Literal["H", "Q"], memoryview]

TOT_LEN = 16  # where it is in a frame
_V4 = Struct(">16sHH4sH12sHH")  # Ethernet+0x4500, tot_len, id, frag+ttl+proto, check, addresses+ports, len, check
_pack_v4 = _V4.pack
_from_bytes = int.from_bytes  # big-endian by default since Python 3.11
_V6 = Struct(">18sH38sHH")  # Ethernet+version, payload_len, next+hop+addresses+ports, len, check
_TTL_UDP = 64 << 8 | IPPROTO_UDP
_HOPS_UDP = IPPROTO_UDP << 8 | 32
# Where fields are that differ within a run; from the first to the IP checksum it is 64 bits
_IDENT, _UDP_CHECK_V4, _UDP_CHECK_V6 = 18, 40, 60


@dataclass(frozen=True, slots=True)
class Endpoints:
    """One connection's addresses as they go on the wire. Both IP addresses are of one version."""

    local_mac: bytes
    remote_mac: bytes
    local_ip: IPAddress
    remote_ip: IPAddress
    local_port: int
    remote_port: int

    @property
    def ports(self) -> bytes:
        """Source and destination port, 4 octets."""
        return self.local_port.to_bytes(2, "big") + self.remote_port.to_bytes(2, "big")

    @property
    def addresses(self) -> bytes:
        """Source and destination address, 8 or 32 octets."""
        return self.local_ip.packed + self.remote_ip.packed


class FrameV4:
    """Frames over IPv4: `header_len` octets before each message."""

    protocol = ethernet.ETH_P_IP
    header_len = _V4.size

    def __init__(self, ends: Endpoints) -> None:
        head = ends.remote_mac + ends.local_mac + b"\x08\x00\x45\x00"
        mid = bytes(2) + _TTL_UDP.to_bytes(2, "big")
        tail = ends.addresses + ends.ports
        ip_sum = 0x4500 + _TTL_UDP + ones_sum(ends.addresses) + 28
        udp_sum = IPPROTO_UDP + ones_sum(tail) + UDP_LEN + UDP_LEN
        self._parts = (head, mid, tail, ip_sum, udp_sum)
        self.mid, self.tail = mid, tail  # on either side of the IP checksum
        self.ident = 0  # of the last frame

    def build(self, msg: Message) -> bytes:
        """The whole frame for `msg`."""
        size = len(msg)
        payload = _from_bytes(msg) % 65535
        if size & 1:
            payload <<= 8
        self.ident = ident = self.ident + 1 & 0xFFFF
        head, mid, tail, ip_sum, udp_sum = self._parts
        return (
            _pack_v4(
                head,
                size + 28,
                ident,
                mid,
                -(ip_sum + size + ident) % 65535,
                tail,
                size + 8,
                65535 - (udp_sum + size + size + payload) % 65535,
            )
            + msg
        )

    def header(self) -> bytes:
        """What is before every message; lengths, identification and checksums are 0."""
        return _pack_v4(self._parts[0], 0, 0, self.mid, 0, self.tail, 0, 0)

    def shape(self, size: int) -> Shape:
        """What a message of `size` octets takes to be put behind a `header`, as direct.py does."""
        _, _, _, ip_sum, udp_sum = self._parts
        store = Struct(f">HH4sH12sHH{size}s")
        return self, store.pack_into, size + 28, -(ip_sum + size), size + 8, -(udp_sum + 2 * size), bool(size & 1)

    def build_many(self, messages: Sequence[bytes]) -> list[bytes]:
        """`build` of each, for a third less."""
        head, mid, tail, ip_sum, udp_sum = self._parts
        ident, from_bytes, pack_v4 = self.ident, _from_bytes, _pack_v4
        frames = []
        for msg in messages:
            size = len(msg)
            payload = from_bytes(msg) % 65535
            if size & 1:
                payload <<= 8
            ident = ident + 1 & 0xFFFF
            ip_check = -(ip_sum + size + ident) % 65535
            check = 65535 - (udp_sum + size + size + payload) % 65535
            frames.append(pack_v4(head, size + 28, ident, mid, ip_check, tail, size + 8, check) + msg)
        self.ident = ident
        return frames

    def build_run(self, messages: Sequence[bytes], headroom: int = 0) -> FrameRun:
        """`build` of each, all of one length, for a quarter of `build_many`."""
        head, mid, tail, ip_sum, udp_sum = self._parts
        size, count, first = len(messages[0]), len(messages), self.ident + 1
        last, fixed, ip_check = self.ident + count, _from_bytes(mid) << 16, -(ip_sum + size + first) % 65535
        if (
            last <= 0xFFFF and ip_check >= count - 1
        ):  # one more in the identification is one less in the checksum (RFC 1624)
            idents = series(first << 48 | fixed | ip_check, (1 << 48) - 1, count)
        else:
            counted = [ident & 0xFFFF for ident in range(first, last + 1)]
            idents = column([ident << 48 | fixed | -(ip_sum + size + ident) % 65535 for ident in counted], count)
        self.ident = last & 0xFFFF
        checks = checksums(messages, -(udp_sum + 2 * size) % 65535)
        header = _pack_v4(head, size + 28, 0, mid, 0, tail, size + 8, 0)
        return _run(header, messages, headroom, ((_IDENT, "Q", idents), (_UDP_CHECK_V4, "H", checks)))

    def build_partial(self, messages: Sequence[bytes]) -> list[bytes]:
        """A frame of each for a device that computes checksums: UDP's left at the pseudo header's sum for it."""
        head, mid, tail, ip_sum, _ = self._parts
        ident, pack_v4 = self.ident, _pack_v4
        pseudo = IPPROTO_UDP + ones_sum(tail[:8]) + UDP_LEN
        frames = []
        for msg in messages:
            size = len(msg)
            ident = ident + 1 & 0xFFFF
            ip_check = -(ip_sum + size + ident) % 65535
            frames.append(pack_v4(head, size + 28, ident, mid, ip_check, tail, size + 8, (pseudo + size) % 65535) + msg)
        self.ident = ident
        return frames

    def build_gso(self, messages: Sequence[bytes]) -> bytes:
        """One frame for a device that cuts it up: UDP checksum left at the pseudo header's sum for it."""
        head, mid, tail, ip_sum, _ = self._parts
        size = sum(map(len, messages))
        ident = self.ident + 1 & 0xFFFF
        self.ident = self.ident + len(messages) & 0xFFFF
        ip_check = -(ip_sum + size + ident) % 65535
        pseudo = (IPPROTO_UDP + ones_sum(tail[:8]) + UDP_LEN + size) % 65535
        return _V4.pack(head, size + 28, ident, mid, ip_check, tail, size + 8, pseudo) + b"".join(messages)


class FrameV6:
    """Frames over IPv6."""

    protocol = ethernet.ETH_P_IPV6
    header_len = _V6.size

    def __init__(self, ends: Endpoints) -> None:
        self._head = ends.remote_mac + ends.local_mac + b"\x86\xdd" + (6 << 28).to_bytes(4, "big")
        self._tail = _HOPS_UDP.to_bytes(2, "big") + ends.addresses + ends.ports
        self._udp_sum = IPPROTO_UDP + ones_sum(ends.addresses + ends.ports)

    def build(self, msg: Message) -> bytes:
        """The whole frame for `msg`."""
        length = len(msg) + UDP_LEN
        total = _from_bytes(msg)
        if length & 1:
            total <<= 8
        check = -(self._udp_sum + length + length + total) % 65535 or 0xFFFF
        return _V6.pack(self._head, length, self._tail, length, check) + msg

    def build_many(self, messages: Sequence[bytes]) -> list[bytes]:
        """`build` of each."""
        return [self.build(msg) for msg in messages]

    def build_run(self, messages: Sequence[bytes], headroom: int = 0) -> FrameRun:
        """As FrameV4's."""
        length = len(messages[0]) + UDP_LEN
        checks = checksums(messages, -(self._udp_sum + 2 * length) % 65535)
        header = _V6.pack(self._head, length, self._tail, length, 0)
        return _run(header, messages, headroom, ((_UDP_CHECK_V6, "H", checks),))

    def build_partial(self, messages: Sequence[bytes]) -> list[bytes]:
        """As FrameV4's."""
        return [self.build_gso([msg]) for msg in messages]

    def build_gso(self, messages: Sequence[bytes]) -> bytes:
        """One frame for a device that cuts it up: UDP checksum left at the pseudo header's sum for it."""
        length = sum(map(len, messages)) + UDP_LEN
        pseudo = (IPPROTO_UDP + ones_sum(self._tail[2:34]) + length) % 65535
        return _V6.pack(self._head, length, self._tail, length, pseudo) + b"".join(messages)


def _run(header: bytes, messages: Sequence[bytes], headroom: int, columns: Sequence[Column]) -> FrameRun:
    """`header` before each message; then the fields that differ, in one store for all frames.

    Frames start a multiple of 8 octets apart, what that takes being before the headroom: so their fields are the items of one strided view,
    however wide. No bytecode runs for a frame, and no object is made of one.
    """
    size = len(header) + len(messages[0])
    first = headroom + -(headroom + size) % 8
    octets = bytearray(bytes(first) + header).join((b"", *messages))
    stride, view = first + size, memoryview(octets)
    for offset, kind, values in columns:
        start, width = first + offset, values.itemsize
        view[start : len(octets) - -start % width].cast(kind)[:: stride // width] = values
    return FrameRun(octets, first, size, stride, len(messages))


def make_frame(ends: Endpoints) -> FrameV4 | FrameV6:
    """The template for the family of `ends`."""
    return FrameV4(ends) if ends.remote_ip.version == 4 else FrameV6(ends)


Builder = Callable[[Message], bytes]

ManyBuilder = Callable[[Sequence[bytes]], list[bytes]]

RunBuilder = Callable[[Sequence[bytes], int], FrameRun]

GsoBuilder = Callable[[Sequence[bytes]], bytes]
