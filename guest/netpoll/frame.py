"""Ready-made headers of one connection: what netpoll_send_udp() puts before a message.

In: addresses and ports, once; then messages. Out: whole frames. The one rule: everything that does not
change from message to message - addresses, ports, their share of both checksums - is computed once.

Values as in netpoll_send_udp(): no IP options, no fragmentation, TTL 64 (IPv6: hop limit 32), an IP
identification that counts from 1 (as kernels since 3.12 do), and a UDP checksum, which 2.6.12 left 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct, pack

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

TOT_LEN = 16  # where it is in a frame
_V4 = Struct(">16sHH4sH12sHH")  # Ethernet+0x4500, tot_len, id, frag+ttl+proto, check, addresses+ports, len, check
_pack_v4 = _V4.pack
_from_bytes = int.from_bytes  # big-endian by default since Python 3.11
_V6 = Struct(">18sH38sHH")  # Ethernet+version, payload_len, next+hop+addresses+ports, len, check
_TTL_UDP = 64 << 8 | IPPROTO_UDP
_HOPS_UDP = IPPROTO_UDP << 8 | 32
_IDENT, _IP_CHECK, _UDP_CHECK_V4, _UDP_CHECK_V6 = (
    18,
    24,
    40,
    60,
)  # where 16-bit fields of a frame are that differ within a run


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
        """`build` of each, all of one length, for half of `build_many`."""
        head, mid, tail, ip_sum, udp_sum = self._parts
        size, first = len(messages[0]), self.ident + 1
        last = first + len(messages) - 1
        idents: Sequence[int] = range(first, last + 1)
        ip_check, udp_sum = -(ip_sum + size + first) % 65535, udp_sum + 2 * size
        ip_checks: Sequence[int] = range(ip_check, ip_check - len(messages), -1)  # one less for one more (RFC 1624)
        if last > 0xFFFF or ip_checks[-1] < 0:
            idents = [ident & 0xFFFF for ident in idents]
            ip_checks = [-(ip_sum + size + ident) % 65535 for ident in idents]
        self.ident = last & 0xFFFF
        columns = {
            _IDENT: idents,
            _IP_CHECK: ip_checks,
            _UDP_CHECK_V4: [65535 - (udp_sum + total) % 65535 for total in _totals(messages)],
        }
        return _run(_pack_v4(head, size + 28, 0, mid, 0, tail, size + 8, 0), messages, headroom, columns)

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
        udp_sum = self._udp_sum + 2 * length
        checks = [65535 - (udp_sum + total) % 65535 for total in _totals(messages)]
        return _run(_V6.pack(self._head, length, self._tail, length, 0), messages, headroom, {_UDP_CHECK_V6: checks})

    def build_partial(self, messages: Sequence[bytes]) -> list[bytes]:
        """As FrameV4's."""
        return [self.build_gso([msg]) for msg in messages]

    def build_gso(self, messages: Sequence[bytes]) -> bytes:
        """One frame for a device that cuts it up: UDP checksum left at the pseudo header's sum for it."""
        length = sum(map(len, messages)) + UDP_LEN
        pseudo = (IPPROTO_UDP + ones_sum(self._tail[2:34]) + length) % 65535
        return _V6.pack(self._head, length, self._tail, length, pseudo) + b"".join(messages)


def _totals(messages: Sequence[bytes]) -> Iterable[int]:
    """What each adds to a checksum, modulo 65535; all are of one length."""
    totals = map(_from_bytes, messages)
    return map((256).__mul__, totals) if len(messages[0]) & 1 else totals


def _run(header: bytes, messages: Sequence[bytes], headroom: int, columns: Mapping[int, Iterable[int]]) -> FrameRun:
    """`header` before each message; then each field that differs, {its offset: its values}, in one store for all frames.

    Frames start at even distances, so that their fields are the items of one strided view: a frame of an odd length gets an octet before its
    headroom. No bytecode runs for a frame, and no object is made of one.
    """
    odd = headroom + len(header) + len(messages[0]) & 1
    before = bytes(odd + headroom) + header
    octets = bytearray(before.join((b"", *messages)))
    stride, first = len(before) + len(messages[0]), odd + headroom
    column = f">{len(messages)}H"  # struct makes it in half the time that array takes
    with memoryview(octets) as view, view[odd : len(octets) - odd].cast("H") as fields:
        for offset, values in columns.items():
            fields[(headroom + offset) // 2 :: stride // 2] = memoryview(pack(column, *values)).cast("H")
    return FrameRun(octets, first, stride - first, stride, len(messages))


def make_frame(ends: Endpoints) -> FrameV4 | FrameV6:
    """The template for the family of `ends`."""
    return FrameV4(ends) if ends.remote_ip.version == 4 else FrameV6(ends)


Builder = Callable[[Message], bytes]

ManyBuilder = Callable[[Sequence[bytes]], list[bytes]]

RunBuilder = Callable[[Sequence[bytes], int], FrameRun]

GsoBuilder = Callable[[Sequence[bytes]], bytes]
