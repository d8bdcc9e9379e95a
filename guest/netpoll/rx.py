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
from struct import Struct
from typing import TYPE_CHECKING

from guest.netpoll.netdevice import ARPHRD_ETHER, IFF_NOARP
from guest.netpoll.send import netpoll_send_skb
from guest.netpoll.skbuff import CHECKSUM_NONE, PACKET_OTHERHOST, SkBuff, kfree_skb
from guest.netpoll.wire import WireError, arp, ethernet, icmpv6, ipv6
from guest.netpoll.wire.ethernet import ETH_P_ARP, ETH_P_IP, ETH_P_IPV6

if TYPE_CHECKING:
    from guest.netpoll.core import Netpoll, NetpollInfo

log = logging.getLogger("netpoll")

IPPROTO_UDP = 17
_IPV4 = Struct(">14xBxHxxHxBxx4s4s").unpack_from  # ihl, tot_len, frag, protocol, src, dst
_IPV6 = Struct(">14xBxxxHB").unpack_from  # version, payload_len, next header
_UDP = Struct(">HHHH").unpack_from  # source, dest, len, check


def netpoll_rx(npinfo: NetpollInfo, skb: SkBuff) -> bool:
    """True if the frame was consumed (then it is freed); the caller keeps it otherwise. Any context."""
    if not npinfo.rx_np and not npinfo.rx_drop:
        return False
    net = npinfo.net
    if npinfo.rx_np and npinfo.dev.type == ARPHRD_ETHER:
        protocol = skb.protocol
        if protocol == ETH_P_IP:
            if skb.pkt_type != PACKET_OTHERHOST and skb.users == 1 and _rx_ipv4(npinfo, skb):
                skb.users = 0
                return True
        elif protocol == ETH_P_ARP and net.trapped:
            arp_reply(npinfo, skb)
            kfree_skb(skb)
            return True
        elif protocol == ETH_P_IPV6 and skb.pkt_type != PACKET_OTHERHOST and skb.users == 1 and _rx_ipv6(npinfo, skb):
            skb.users = 0
            return True
    if net.trapped:
        npinfo.dev.stats["rx_trapped"] += 1
        kfree_skb(skb)
        return True
    return False


def _rx_ipv4(npinfo: NetpollInfo, skb: SkBuff) -> bool:
    """Steps 5 to 11 for IPv4: True if a client's hook was called."""
    data = skb.data
    if len(data) < 34:
        return False
    ihl, tot_len, frag, protocol, src, dst = _IPV4(data)
    udp = 14 + ((ihl & 15) << 2)
    if ihl != 0x45 and (udp < 34 or ihl >> 4 != 4 or len(data) < udp):
        return False
    if int.from_bytes(data[14:udp], "big") % 65535:
        return False
    end = 14 + tot_len
    if end > len(data) or tot_len < 28 or protocol != IPPROTO_UDP or frag & 0x3FFF or end < udp + 8:
        return False
    source, dest, ulen, check = _UDP(data, udp)
    if ulen != end - udp:
        return False
    if check and skb.ip_summed == CHECKSUM_NONE:
        total = int.from_bytes(data[udp:end], "big")
        if ulen & 1:
            total <<= 8
        if (total + int.from_bytes(src + dst, "big") + IPPROTO_UDP + ulen) % 65535:
            npinfo.dev.stats["rx_csum_errors"] += 1
            return False
    return _to_clients(npinfo, skb, (src, dst, source, dest), bytes(data[udp + 8 : end]))


def _rx_ipv6(npinfo: NetpollInfo, skb: SkBuff) -> bool:
    """The same for IPv6, where a UDP checksum is mandatory; neighbour solicitations while trapped."""
    data = skb.data
    if len(data) < 54:
        return False
    version, payload_len, next_header = _IPV6(data)
    end = 54 + payload_len
    if version >> 4 != 6 or end > len(data):
        return False
    if next_header == icmpv6.IPPROTO_ICMPV6 and npinfo.net.trapped:
        return neigh_reply(npinfo, skb)
    if next_header != IPPROTO_UDP or payload_len < 8:
        return False
    source, dest, ulen, check = _UDP(data, 54)
    if ulen != payload_len or not check:
        return False
    if skb.ip_summed == CHECKSUM_NONE:
        total = int.from_bytes(data[22:end], "big") << (8 if ulen & 1 else 0)
        if (total + IPPROTO_UDP + ulen) % 65535:
            npinfo.dev.stats["rx_csum_errors"] += 1
            return False
    ends = (bytes(data[22:38]), bytes(data[38:54]), source, dest)
    return _to_clients(npinfo, skb, ends, bytes(data[62:end]))


def _to_clients(npinfo: NetpollInfo, skb: SkBuff, ends: tuple[bytes, bytes, int, int], payload: bytes) -> bool:
    """Call the hook of each client that (src, dst, source port, dest port) matches; True if there was one."""
    src, dst, source, dest = ends
    consumed = False
    for np in npinfo.rx_np:
        local, remote = np.rx_match
        if dst == local and (remote is None or src == remote) and (np.local_port == dest or not np.local_port):
            consumed = True
            _call_hook(np, skb, source, payload)
    return consumed


def _call_hook(np: Netpoll, skb: SkBuff, source: int, payload: bytes) -> None:
    """rx_hook(np, source port, data); np.rx_skb is the frame, while the hook runs. A raising hook is logged."""
    np.stats.received += 1
    np.rx_skb = skb
    try:
        if np.rx_hook is not None:
            np.rx_hook(np, source, payload)
    except Exception:
        np.stats.hook_errors += 1
        log.exception("%s: rx_hook failed", np.name)
    finally:
        np.rx_skb = None


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
