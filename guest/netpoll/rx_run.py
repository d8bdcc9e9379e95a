"""netpoll_rx_run(): datagrams that are alike, taken from a driver's run of frames without asking everything of each.

In: frames from a NAPI poll routine, in their order. Out: how many of them were netpoll's; the next goes the whole way (rx.py). The one rule: a
frame is taken here only if netpoll_rx() would have taken it, and called the same hook with the same octets.

The first frame of a run is parsed: a datagram without anything to remark, of a flow that was met before, for one client. As long as what cannot
differ does not - MAC addresses, lengths, TTL, addresses, ports - three comparisons and the two checksums are all that a frame costs, as UDP GRO
(udp_gro_receive()) has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from guest.netpoll.rx import hook_failed
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.wire.ethernet import ETH_P_IP

if TYPE_CHECKING:
    from guest.netpoll.core import Netpoll, NetpollInfo

# MAC addresses, type, version, tos and tot_len; id; frag, ttl and protocol; check; addresses, ports and UDP length; UDP check
_ALIKE = Struct(">18sH4sH14sH").unpack_from
_PLAIN = b"\x08\x00\x45\x00"
_HEADERS, _UDP = 42, 17
_from_bytes = int.from_bytes


class _Pattern(NamedTuple):
    """What the frames of a run have in common. `end`: of the payload; padding may follow. `ip_sum` and `udp_sum`: what all but the id, the payload
    and the checksums add to a checksum. `odd`: so is the payload, its last octet is the upper half of a word."""

    np: Netpoll
    source: int
    end: int
    ip_sum: int
    udp_sum: int
    odd: int


def netpoll_rx_run(npinfo: NetpollInfo, frames: Sequence[bytes], first: int) -> int:
    """How many frames from `first` on were taken; 0 if already that one has to go the whole way. Any context."""
    data = frames[first]
    size = len(data)
    if size < _HEADERS:
        return 0
    same_head, _, same_middle, _, same_tail, _ = _ALIKE(data)
    pattern = _pattern(npinfo, size, same_head, same_middle, same_tail)
    if pattern is None:
        return 0
    np, source, end, ip_sum, udp_sum, odd = pattern
    dev, flows, stats = npinfo.dev, npinfo.flows, np.stats
    skb = SkBuff(data, dev, ETH_P_IP)
    taken = 0
    for data in islice(frames, first, None):
        if len(data) != size or not dev.running or npinfo.flows is not flows:
            break
        head, ident, middle, ip_check, tail, check = _ALIKE(data)
        if tail != same_tail or head != same_head or middle != same_middle or (ip_sum + ident + ip_check) % 65535:
            break
        payload = data[_HEADERS:end]
        if check and (udp_sum + check + (_from_bytes(payload) << odd)) % 65535:
            break
        taken += 1
        stats.received += 1
        skb.data, skb.users = data, 1
        np.rx_skb = skb
        try:
            np.rx_hook(np, source, payload)  # type: ignore[misc]  # receivers have one
        except Exception:
            hook_failed(np)
        np.rx_skb = None
    skb.users = 0
    return taken


def _pattern(npinfo: NetpollInfo, size: int, head: bytes, middle: bytes, tail: bytes) -> _Pattern | None:
    """None if such a frame is not for us, not plain, or of no flow that was met."""
    flow = npinfo.flows.get(tail[:12])
    tot_len, length = _from_bytes(head[16:]), _from_bytes(tail[12:])
    if flow is None or len(flow[1]) != 1 or flow[2] != middle or head[12:16] != _PLAIN:
        return None
    if head[:6] != npinfo.dev.dev_addr or not 8 <= length == tot_len - 20 <= size - 34:
        return None
    udp_sum = _UDP + length + _from_bytes(tail) % 65535
    return _Pattern(flow[1][0], flow[0], tot_len + 14, flow[3] + tot_len, udp_sum, 8 * (length & 1))
