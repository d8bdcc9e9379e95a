"""The MAC address of a peer that the option string gives none for: ARP, with retries.

In: a client that is set up. Out: the same with its peer's MAC. The one rule: the answer must come from the peer's address, to ours.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address

from guest.netpoll.core import Netpoll
from guest.netpoll.errors import SetupError
from guest.netpoll.send import netpoll_send_skb
from guest.netpoll.skbuff import SkBuff
from guest.netpoll.tool.session import Session
from guest.netpoll.wire import WireError, arp, ethernet
from guest.netpoll.wire.ethernet import BROADCAST, ETH_P_ARP

TRIES = 5
PATIENCE = 1.0  # seconds for each


def resolve(current: Session) -> None:
    """Nothing if a MAC was given. Raises SetupError when nobody answers, or the peer is not IPv4."""
    np = current.np
    if np.remote_mac != BROADCAST:
        return
    if not isinstance(np.remote_ip, IPv4Address):
        raise SetupError(errno.EHOSTUNREACH, f"{np.remote_ip}: give its MAC address, ARP is of IPv4 only")
    found: list[bytes] = []

    def handler(skb: SkBuff) -> None:
        if (mac := answer(np, skb)) is not None:
            found.append(mac)

    np.net.ptype_all.append(handler)
    try:
        for _ in range(TRIES):
            ask(np)
            if current.wait(lambda: bool(found), PATIENCE):
                break
    finally:
        np.net.ptype_all.remove(handler)
    if not found:
        raise SetupError(
            errno.EHOSTUNREACH, f"{np.remote_ip} answers no ARP on {np.dev_name} in {TRIES * PATIENCE:g} s"
        )
    use(np, found[0])


def use(np: Netpoll, mac: bytes) -> None:
    """From here on the peer has this MAC address."""
    assert np.dev is not None  # it is set up
    assert np.local_ip is not None
    assert np.remote_ip is not None
    np.remote_mac = mac
    np.prepare(np.dev, np.local_ip, np.remote_ip)


def ask(np: Netpoll) -> None:
    """One request."""
    assert np.local_ip is not None  # it is set up
    assert np.remote_ip is not None
    frame = bytearray(ethernet.HEADER_LEN + arp.HEADER_LEN)
    at = ethernet.emit(ethernet.Header(BROADCAST, np.local_mac, ETH_P_ARP), frame)
    arp.emit(arp.Packet(arp.ARPOP_REQUEST, np.local_mac, np.local_ip.packed, bytes(6), np.remote_ip.packed), frame, at)
    skb = SkBuff(bytes(frame), np.dev, ETH_P_ARP)
    skb.np = np
    netpoll_send_skb(np, skb)


def answer(np: Netpoll, skb: SkBuff) -> bytes | None:
    """The peer's MAC, if this frame is its answer to us."""
    if skb.protocol != ETH_P_ARP or np.remote_ip is None or np.local_ip is None:
        return None
    try:
        packet = arp.parse(skb.data[ethernet.HEADER_LEN :])
    except WireError:
        return None
    ours = (packet.operation, packet.spa, packet.tpa) == (arp.ARPOP_REPLY, np.remote_ip.packed, np.local_ip.packed)
    return packet.sha if ours and not packet.sha[0] & 1 else None
