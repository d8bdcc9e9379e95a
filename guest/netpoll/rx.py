"""netpoll_rx(): which received frames are netpoll's, and what happens to them.

In: an skb from netif_rx() (non-NAPI) or netif_receive_skb() (NAPI), before anybody else sees it. Out:
True, and the skb is netpoll's, or False, and it passes on. The one rule: what is not ours passes on
untouched - unless trapped, when everything is eaten.

The checks come in the kernel's order: a hook exists, Ethernet, ARP while trapped, IP and for us and not
shared, header length, version, options, header checksum, total length, UDP, UDP length, UDP checksum,
then each client's addresses and port. A UDP checksum of 0 is accepted over IPv4.

Against 2.6.12: wrong UDP checksums are refused (a sign error accepted them), fragments are left alone
(they were read as if they began with a UDP header), a UDP length under 8 is refused, ARP replies go to
who asked (they went to the configured peer), no lock is held while a hook runs (rx_lock was, so that a
second frame on the same CPU deadlocked), and there are as many receiving clients as there are hooks.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from struct import Struct
from typing import TYPE_CHECKING

from guest.netpoll.netdevice import ARPHRD_ETHER, IFF_NOARP
from guest.netpoll.send import netpoll_send_skb
from guest.netpoll.skbuff import CHECKSUM_NONE, PACKET_OTHERHOST, SkBuff, kfree_skb, skb_shared
from guest.netpoll.wire import WireError, arp, ethernet, icmpv6, ipv4, ipv6
from guest.netpoll.wire.ethernet import ETH_P_ARP, ETH_P_IP, ETH_P_IPV6

if TYPE_CHECKING:
    from guest.netpoll.core import Netpoll, NetpollInfo

log = logging.getLogger("netpoll")

IPPROTO_UDP = 17
MAX_FLOWS = 256

# From the start of a frame: version, ihl and tos; tot_len, id, (frag, ttl, protocol), check, (src, dst, source, dest), len, check
_UDP4 = Struct(">14xHHH4sH12sHH").unpack_from
# version, payload_len, next header, (src, dst, source, dest), len, check
_UDP6 = Struct(">14xBxxxHBx36sHH").unpack_from
_from_bytes = int.from_bytes  # big-endian by default since Python 3.11

_PLAIN = 0x4500  # IPv4 without options and without a type of service

# Source port; the clients that want it; over IPv4 (frag, ttl, protocol) of its frames, which _rx_ipv4() has found good, and what
# these, _PLAIN and the addresses add to a header checksum, modulo 65535.
Flow = tuple[int, tuple["Netpoll", ...], bytes, int]


def netpoll_rx(npinfo: NetpollInfo, skb: SkBuff) -> bool:
    """True if the frame was consumed (then it is freed); the caller keeps it otherwise. Any context.

    Frames of a flow that was met before, with nothing to remark about them, are done with here; all others
    go the whole way.
    """
    data = skb.data
    if skb.protocol == ETH_P_IP and len(data) >= 42 and skb.users == 1:
        version, tot_len, ident, rest, header_check, key, ulen, check = _UDP4(data)
        flow = npinfo.flows.get(key)
        if (
            flow is not None
            and version == _PLAIN
            and rest == flow[2]
            and 8 <= ulen == tot_len - 20 <= len(data) - 34
            and skb.pkt_type != PACKET_OTHERHOST
            and not (tot_len + ident + header_check + flow[3]) % 65535
            and (skb.ip_summed or not check or _sum_matches(data[26 : tot_len + 14], ulen))
        ):
            source, clients, _, _ = flow
            if len(clients) == 1 and type(data) is bytes:  # from here on _call_hooks() for the common case, in line
                np = clients[0]
                np.stats.received += 1
                np.rx_skb = skb
                try:
                    np.rx_hook(np, source, data[42 : tot_len + 14])  # type: ignore[misc]  # receivers have one
                except Exception:
                    hook_failed(np)
                np.rx_skb = None
            else:
                _call_hooks(skb, flow, data[42 : tot_len + 14])
            skb.users = 0
            return True
    return _netpoll_rx(npinfo, skb)


def _netpoll_rx(npinfo: NetpollInfo, skb: SkBuff) -> bool:
    """netpoll_rx() and __netpoll_rx() as the kernel has them."""
    flows, rx_np = npinfo.flows, npinfo.rx_np  # in this order: see NetpollInfo.set_receivers()
    if not rx_np and not npinfo.rx_drop:
        return False
    if rx_np and npinfo.dev.type == ARPHRD_ETHER:
        if skb.protocol == ETH_P_ARP and npinfo.net.trapped:
            arp_reply(npinfo, skb)
            kfree_skb(skb)
            return True
        receive = _BY_PROTOCOL.get(skb.protocol)
        if receive is not None and skb.pkt_type != PACKET_OTHERHOST and not skb_shared(skb):
            consumed = receive(npinfo, skb, flows, rx_np)
            if consumed:
                kfree_skb(skb)
                return True
    if npinfo.net.trapped:
        npinfo.dev.stats["rx_trapped"] += 1
        kfree_skb(skb)
        return True
    return False


def _rx_ipv4(npinfo: NetpollInfo, skb: SkBuff, flows: dict[bytes, Flow], rx_np: tuple[Netpoll, ...]) -> bool:
    """Steps 5 to 11 for IPv4: True if a client's hook was called."""
    data = skb.data
    if len(data) < 42:
        return False
    version, tot_len, _ident, rest, _header_check, key, ulen, check = _UDP4(data)
    if version >> 8 != 0x45:
        return _rx_ipv4_options(npinfo, skb, flows, rx_np)
    if _from_bytes(data[14:34]) % 65535:
        return False
    end = tot_len + 14
    frag, protocol = _from_bytes(rest[:2]), rest[3]
    if end > len(data) or protocol != IPPROTO_UDP or frag & 0x3FFF or ulen != tot_len - 20 or ulen < 8:
        return False
    if check and skb.ip_summed == CHECKSUM_NONE and not _sum_matches(data[26:end], ulen):
        npinfo.dev.stats["rx_csum_errors"] += 1
        return False
    flow = flows.get(key)
    if flow is None or flow[2] != rest:
        flow = _find_flow(key, flows, rx_np, rest)
    _call_hooks(skb, flow, data[42:end])
    return bool(flow[1])


def _rx_ipv4_options(npinfo: NetpollInfo, skb: SkBuff, flows: dict[bytes, Flow], rx_np: tuple[Netpoll, ...]) -> bool:
    """A header with options: check it as a whole, then look at the same packet without them."""
    try:
        header = ipv4.parse(skb.data[14:])
        segment = bytes(ipv4.payload(skb.data[14:]))
    except WireError:
        return False
    plain = bytearray(skb.data[:34])
    ipv4.emit(replace(header, options=b"", total_len=20 + len(segment)), plain, 14)
    whole, skb.data = skb.data, bytes(plain) + segment
    try:
        return _rx_ipv4(npinfo, skb, flows, rx_np)
    finally:
        skb.data = whole


def _rx_ipv6(npinfo: NetpollInfo, skb: SkBuff, flows: dict[bytes, Flow], rx_np: tuple[Netpoll, ...]) -> bool:
    """The same for IPv6, where a UDP checksum is mandatory; neighbour solicitations while trapped."""
    data = skb.data
    if len(data) < 62:
        return False
    version, payload_len, next_header, key, ulen, check = _UDP6(data)
    end = 54 + payload_len
    if version >> 4 != 6 or end > len(data):
        return False
    if next_header == icmpv6.IPPROTO_ICMPV6 and npinfo.net.trapped:
        return neigh_reply(npinfo, skb)
    if next_header != IPPROTO_UDP or ulen != payload_len or ulen < 8 or not check:
        return False
    if skb.ip_summed == CHECKSUM_NONE and not _sum_matches(data[22:end], ulen):
        npinfo.dev.stats["rx_csum_errors"] += 1
        return False
    flow = flows.get(key) or _find_flow(key, flows, rx_np)
    _call_hooks(skb, flow, data[62:end])
    return bool(flow[1])


_BY_PROTOCOL = {ETH_P_IP: _rx_ipv4, ETH_P_IPV6: _rx_ipv6}


def _sum_matches(addresses_and_segment: bytes | bytearray | memoryview, ulen: int) -> bool:
    """The UDP checksum: addresses, segment and the rest of the pseudo header sum to (minus) zero."""
    total = _from_bytes(addresses_and_segment) % 65535
    return not ((total << 8 if ulen & 1 else total) + IPPROTO_UDP + ulen) % 65535


def _find_flow(key: bytes, flows: dict[bytes, Flow], rx_np: tuple[Netpoll, ...], rest: bytes = b"") -> Flow:
    """The clients that addresses and ports match; remembered, so that the next frame need not be matched. `rest`: see Flow."""
    size = (len(key) - 4) // 2
    src, dst, source, dest = key[:size], key[size:-4], _from_bytes(key[-4:-2]), _from_bytes(key[-2:])
    clients = tuple(np for np in rx_np if _matches(np, src, dst, dest))
    flow = source, clients, rest, (_PLAIN + _from_bytes(rest + key[:-4])) % 65535
    if clients:
        if len(flows) >= MAX_FLOWS:
            flows.clear()
        flows[key] = flow
    return flow


def _matches(np: Netpoll, src: bytes, dst: bytes, dest: int) -> bool:
    """Ours is the destination; the peer's address counts unless it is "any"; port 0 takes every port."""
    local, remote = np.rx_match
    return dst == local and (remote is None or src == remote) and np.local_port in (0, dest)


def _call_hooks(skb: SkBuff, flow: Flow, payload: bytes | bytearray | memoryview) -> None:
    """rx_hook(np, source port, data); np.rx_skb is the frame, while the hook runs. A raising hook is logged."""
    source, clients, _, _ = flow
    if type(payload) is not bytes:
        payload = bytes(payload)
    for np in clients:
        np.stats.received += 1
        np.rx_skb = skb
        hook = np.rx_hook
        try:
            hook(np, source, payload)  # type: ignore[misc]  # receivers have one
        except Exception:
            hook_failed(np)
        np.rx_skb = None


def hook_failed(np: Netpoll) -> None:
    """In an except clause: count and log it; the frame is consumed all the same."""
    np.stats.hook_errors += 1
    log.exception("%s: rx_hook failed", np.name)


def arp_reply(npinfo: NetpollInfo, skb: SkBuff) -> bool:
    """Answer an ARP request for a receiving client's address; False if there was none to answer."""
    if npinfo.dev.flags & IFF_NOARP:
        return False
    try:
        request = arp.parse(skb.data[ethernet.HEADER_LEN :])
    except WireError:
        return False
    np = _client_at(npinfo, request.tpa)
    if np is None or request.operation != arp.ARPOP_REQUEST:
        return False
    frame = bytearray(ethernet.HEADER_LEN + arp.HEADER_LEN)
    at = ethernet.emit(ethernet.Header(request.sha, np.local_mac, ETH_P_ARP), frame)
    reply = arp.Packet(arp.ARPOP_REPLY, np.local_mac, request.tpa, request.sha, request.spa)
    arp.emit(reply, frame, at)
    _send_reply(npinfo, frame, ETH_P_ARP)
    return True


def neigh_reply(npinfo: NetpollInfo, skb: SkBuff) -> bool:
    """Answer a neighbour solicitation for a receiving client's IPv6 address; True if it was one to answer."""
    data = skb.data
    try:
        header = ipv6.parse(data[ethernet.HEADER_LEN :])
        ask = icmpv6.parse(ipv6.payload(data[ethernet.HEADER_LEN :]), header.src, header.dst)
    except WireError:
        return False
    np = _client_at(npinfo, ask.target)
    if np is None or ask.type != icmpv6.NDISC_NEIGHBOUR_SOLICITATION or header.hop_limit != 255:
        return False
    probe = not any(header.src)  # duplicate address detection: answer to all nodes, unsolicited
    dst = b"\xff\x02" + bytes(13) + b"\x01" if probe else header.src
    mac = b"\x33\x33" + dst[12:] if probe else ask.lladdr or bytes(data[6:12])
    flags = icmpv6.FLAG_OVERRIDE | (0 if probe else icmpv6.FLAG_SOLICITED)
    answer = icmpv6.Neighbour(icmpv6.NDISC_NEIGHBOUR_ADVERTISEMENT, ask.target, np.local_mac, flags)
    frame = bytearray(ethernet.HEADER_LEN + ipv6.HEADER_LEN + icmpv6.buffer_len(answer))
    at = ethernet.emit(ethernet.Header(mac, np.local_mac, ETH_P_IPV6), frame)
    size = icmpv6.buffer_len(answer)
    at = ipv6.emit(ipv6.Header(ask.target, dst, icmpv6.IPPROTO_ICMPV6, size, 255), frame, at)
    icmpv6.emit(answer, ask.target, dst, frame, at)
    _send_reply(npinfo, frame, ETH_P_IPV6)
    return True


def _client_at(npinfo: NetpollInfo, address: bytes) -> Netpoll | None:
    """The receiving client whose local address this is; loopback and multicast are nobody's."""
    if address[0] in (127, 255) or (len(address) == 4 and address[0] >> 4 == 14):
        return None
    return next((np for np in npinfo.rx_np if np.rx_match[0] == address), None)


def _send_reply(npinfo: NetpollInfo, frame: bytearray, protocol: int) -> None:
    """Send on behalf of no client; what cannot leave now waits in the queue (arp_tx in later kernels)."""
    skb = SkBuff(bytes(frame), npinfo.dev, protocol)
    skb.np = npinfo.responder
    netpoll_send_skb(npinfo.responder, skb)
