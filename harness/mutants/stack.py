"""Defects of the stack itself: sending, polling, queueing, receiving, bonding and the clients on top.

In: guest.netpoll and guest.client. Out: a table. Rule: as in drivers.
"""

from __future__ import annotations

from typing import Any

from guest.netpoll import send
from guest.netpoll.bonding.queue_xmit import bond_dev_queue_xmit
from guest.netpoll.skbuff import DropReason, SkBuff, kfree_skb
from guest.netpoll.txq import netpoll_queue
from guest.netpoll.wire.checksum import checksum
from harness.mutants.defect import Break, Defect, each
from harness.mutants.drivers import IN, OUT, RING

NOT_OURS, TRAPPED, PING = "receive/not-ours[nic=e1000]", "receive/trapped[nic=e1000]", "receive/ping-pong[nic=e1000]"
RECORDS, QUEUES = "drop/our-stack-records[nic=e1000]", "drop/our-stack-queues[nic=e1000]"
ACTIVE, ROBIN = (f"bonding/our-stack-fails-over[mode={mode}]" for mode in ("active-backup", "balance-rr"))
STRANGERS = "sysrq/strangers[nic=e1000]"
BUILD = "guest.netpoll.frame.FrameV4.build"
RX = "guest.netpoll.core.NetpollInfo.netpoll_rx"


def _nothing(_sound: Any) -> Any:
    return lambda *_args, **_keys: None


def _always(value: Any) -> Break:
    return lambda _sound: lambda *_args: value


def _framed(change: Any) -> Break:
    """Each 50th message is framed wrongly."""

    def broken(sound: Any) -> Any:
        due = each(50)

        def build(self: Any, msg: Any) -> bytes:
            frame: bytes = sound(self, msg)
            return change(bytearray(frame)) if due() else frame

        return build

    return broken


def _plus(place: int) -> Any:
    def change(frame: bytearray) -> bytes:
        frame[place] = frame[place] + 1 & 0xFF
        return bytes(frame)

    return change


def _other_port(frame: bytearray) -> bytes:
    """With right checksums: the port's gain is the checksum's loss."""
    port, check = int.from_bytes(frame[34:36], "big"), int.from_bytes(frame[40:42], "big")
    frame[34:36], frame[40:42] = (port + 1).to_bytes(2, "big"), ((check - 1) % 65535).to_bytes(2, "big")
    return bytes(frame)


def _forgets(nth: int) -> Break:
    def broken(sound: Any) -> Any:
        due = each(nth)
        return lambda np, msg: 0 if due() else sound(np, msg)

    return broken


def _no_poll(_sound: Any) -> Any:
    return lambda _np, dev, pause: dev.ctx.delay(pause)


def _drops_in_silence(_sound: Any) -> Any:
    def drop(np: Any, skb: SkBuff, _reason: Any) -> int:
        np.stats.lost += 1
        kfree_skb(skb)
        return 1

    return drop


def _drops_and_sends(sound: Any) -> Any:
    """What the drop routine has been told is lost leaves later all the same."""

    def drop(self: Any, skb: SkBuff) -> None:
        sound(self, skb)
        skb.np = None
        netpoll_queue(skb)

    return drop


def _last_first(_sound: Any) -> Any:
    def queue(skb: SkBuff) -> None:
        netpoll_queue(skb)
        txq = skb.dev.npinfo.txq  # type: ignore[union-attr]
        if txq and txq[-1] is skb:
            txq.rotate(1)

    return queue


def _queue_forgets(_sound: Any) -> Any:
    due = each(3)

    def queue(skb: SkBuff) -> None:
        skb.drop_reason = None
        if not due():
            netpoll_queue(skb)

    return queue


def _flush_loses(_sound: Any) -> Any:
    def flush(npinfo: Any) -> bool:
        if npinfo.dev.xoff:
            return False
        npinfo.txq.clear()
        return True

    return flush


def _mended(change: Any) -> Break:
    """The receive path sees another frame than came, with a right header checksum."""

    def broken(sound: Any) -> Any:
        def netpoll_rx(npinfo: Any, skb: SkBuff) -> bool:
            frame = bytearray(skb.data)
            if frame[12:14] != b"\x08\x00":
                return sound(npinfo, skb)  # type: ignore[no-any-return]
            change(frame)
            frame[24:26] = bytes(2)
            frame[24:26] = checksum(frame[14:34]).to_bytes(2, "big")
            whole, skb.data = skb.data, bytes(frame)
            taken: bool = sound(npinfo, skb)
            skb.data = whole
            return taken

        return netpoll_rx

    return broken


def _whole(frame: bytearray) -> None:
    frame[20:22] = bytes(2)
    frame[40:42] = bytes(2)


def _matches(*ignored: str) -> Break:
    def broken(_sound: Any) -> Any:
        def matches(np: Any, src: bytes, dst: bytes, dest: int) -> bool:
            local, remote = np.rx_match
            port = "port" in ignored or np.local_port in (0, dest)
            peer = "peer" in ignored or remote is None or src == remote
            return port and peer and ("address" in ignored or dst == local)

        return matches

    return broken


def _eats_all(sound: Any) -> Any:
    def netpoll_rx(npinfo: Any, skb: SkBuff) -> bool:
        if not sound(npinfo, skb):
            kfree_skb(skb)
        return True

    return netpoll_rx


def _short_payload(sound: Any) -> Any:
    due = each(20)
    return lambda self, np, port, data: sound(self, np, port, data[:-1] if due() else data)


def _reply(change: Any, times: int = 1) -> Break:
    def broken(sound: Any) -> Any:
        def send(npinfo: Any, frame: bytearray, protocol: int) -> None:
            for _ in range(times):
                sound(npinfo, change(frame), protocol)

        return send

    return broken


def _another_mac(frame: bytearray) -> bytearray:
    frame[27] ^= 1
    return frame


def _era(sound: Any) -> Any:
    def init(self: Any, *args: Any) -> None:
        sound(self, *args)
        self.era_recursion = True

    return init


def _twice(sound: Any) -> Any:
    def press(self: Any, key: str) -> None:
        sound(self, key)
        sound(self, key)

    return press


def _looks_late(sound: Any) -> Any:
    """The link monitor is blind for its next 40 looks once a slave has lost its link."""
    blind = [40]

    def inspect(bond: Any) -> bool:
        if not all(slave.is_up for slave in bond.slaves) and blind[0]:
            blind[0] -= 1
            return False
        return sound(bond)  # type: ignore[no-any-return]

    return inspect


def _first_slave(sound: Any) -> Any:
    return dict.fromkeys(sound, lambda bond, skb: bond_dev_queue_xmit(bond, skb, bond.slaves[0]))


def _gives_up(_sound: Any) -> Any:
    return lambda np, _dev, _npinfo, skb, **_keys: send._drop(np, skb, DropReason.RETRIES)


TABLE = (
    Defect("each 100th message is taken and never sent", "guest.client.netpoll_send_udp", _forgets(100), OUT, "delivered"),
    Defect("a wrong UDP checksum", BUILD, _framed(_plus(41)), OUT, "checksums"),
    Defect("a wrong IP header checksum", BUILD, _framed(_plus(25)), OUT, "checksums"),
    Defect("another source port than the client's", BUILD, _framed(_other_port), OUT, "sources"),
    Defect("a source MAC of nobody's", BUILD, _framed(_plus(7)), OUT, "macs"),
    Defect("netpoll waits for its queue and does not poll", "guest.netpoll.send._poll_and_wait", _no_poll, RING, "delivered"),
    Defect("netpoll gives up at the first refusal", "guest.netpoll.send._send_slow", _gives_up, RING, "delivered"),
    Defect("what cannot be sent is freed without the drop routine", "guest.netpoll.send._drop", _drops_in_silence, RECORDS, "dropped"),
    Defect("what the drop routine was given leaves all the same", "guest.client.Client._drop", _drops_and_sends, RECORDS, "dropped"),
    Defect("netpoll_queue is last in, first out", "guest.client.netpoll_queue", _last_first, QUEUES, "queued_delivered"),
    Defect("netpoll_queue forgets each third message", "guest.client.netpoll_queue", _queue_forgets, QUEUES, "queued_delivered"),
    Defect("the queue's worker empties it without sending", "guest.netpoll.core.flush", _flush_loses, QUEUES, "queued_delivered",
           also=("guest.netpoll.send.flush",)),
    Defect("a wrong UDP checksum is received", "guest.netpoll.rx._sum_matches", _always(True), NOT_OURS, "not_received"),
    Defect("a wrong IP header checksum is received", RX, _mended(lambda _frame: None), NOT_OURS, "not_received"),
    Defect("a fragment is received as if it were whole", RX, _mended(_whole), NOT_OURS, "not_received"),
    Defect("datagrams to any port are received", "guest.netpoll.rx._matches", _matches("port"), NOT_OURS, "not_received"),
    Defect("datagrams from anybody are received", "guest.netpoll.rx._matches", _matches("peer"), NOT_OURS, "not_received"),
    Defect("datagrams to any address are received", "guest.netpoll.rx._matches", _matches("address"), NOT_OURS, "not_received"),
    Defect("what is not netpoll's is eaten", RX, _eats_all, NOT_OURS, "not_received"),
    Defect("the rx_hook is given one byte too few", "guest.client.Client._rx_hook", _short_payload, IN, "delivered"),
    Defect("ARP is answered with another MAC", "guest.netpoll.rx._send_reply", _reply(_another_mac), TRAPPED, "arp_answered"),
    Defect("ARP is answered twice", "guest.netpoll.rx._send_reply", _reply(lambda f: f, 2), TRAPPED, "arp_answered"),
    Defect("ARP is not answered", "guest.netpoll.rx._send_reply", _nothing, TRAPPED, "arp_answered"),
    Defect("the trap catches nothing", "guest.client.netpoll_set_trap", _nothing, TRAPPED, "not_received"),
    Defect("nothing is sent from the receive path, as in 2.6.12", "guest.netpoll.netdevice.Net.__init__", _era, PING, "echoed"),
    Defect("sysrq obeys strangers", "guest.netpoll.clients.sysrq.Peer.admits", _always(True), STRANGERS, "pressed"),
    Defect("sysrq presses each key twice", "guest.client.Client._press", _twice, STRANGERS, "pressed"),
    Defect("a bond keeps sending on the slave without a link", "guest.netpoll.bonding.miimon.bond_miimon_inspect", _always(False), ACTIVE, "failover"),
    Defect("a bond takes four seconds to see that a link is gone", "guest.netpoll.bonding.miimon.bond_miimon_inspect", _looks_late, ACTIVE, "failover"),
    Defect("a bond sends by its first slave whatever its link", "guest.netpoll.bonding.bond.BOND_XMIT", _first_slave, ROBIN, "failover"),
)  # fmt: skip
