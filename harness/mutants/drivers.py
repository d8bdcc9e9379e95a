"""Defects of a NIC's driver and of NAPI: what netpoll leans on, broken.

In: the in-process driver of guest.netpoll and its bottom half. Out: a table. Rule: as in a driver's history, one mistake each.
"""

from __future__ import annotations

from typing import Any, cast

from guest.netpoll.netdevice import NetdevTx, netif_stop_queue
from guest.netpoll.skbuff import SkBuff, kfree_skb
from harness.mutants.defect import Break, Defect, each

DRIVER = "guest.netpoll.drivers.loopback.LoopbackDevice"
LOOPBACK = "guest.netpoll.drivers.loopback"
OUT, IN = "send/datagrams-out[nic=e1000]", "send/datagrams-in[nic=e1000]"
RING = "poll/ring-runs-out[nic=e1000]"


def _nothing(_sound: Any) -> Any:
    return lambda *_args: None


def _drops(nth: int) -> Break:
    def broken(sound: Any) -> Any:
        due = each(nth)

        def hard_start_xmit(self: Any, skb: SkBuff) -> NetdevTx:
            if not due():
                return cast(NetdevTx, sound(self, skb))
            kfree_skb(skb)
            return NetdevTx.OK

        return hard_start_xmit

    return broken


def _swaps(sound: Any) -> Any:
    due, held = each(50), list[SkBuff]()

    def hard_start_xmit(self: Any, skb: SkBuff) -> NetdevTx:
        if due():
            held.append(SkBuff(bytes(skb.data), skb.dev, skb.protocol))
            kfree_skb(skb)
            return NetdevTx.OK
        status: NetdevTx = sound(self, skb)
        while held:
            sound(self, held.pop())
        return status

    return hard_start_xmit


def _doubles(sound: Any) -> Any:
    due = each(100)

    def hard_start_xmit(self: Any, skb: SkBuff) -> NetdevTx:
        if due():
            sound(self, SkBuff(bytes(skb.data), skb.dev, skb.protocol))
        return cast(NetdevTx, sound(self, skb))

    return hard_start_xmit


def _changes(nth: int, change: Any) -> Break:
    """Each nth frame leaves as `change` makes it."""

    def broken(sound: Any) -> Any:
        due = each(nth)

        def hard_start_xmit(self: Any, skb: SkBuff) -> NetdevTx:
            if due():
                skb.data = change(bytes(skb.data))
            return cast(NetdevTx, sound(self, skb))

        return hard_start_xmit

    return broken


def _loses_when_full(sound: Any) -> Any:
    def hard_start_xmit(self: Any, skb: SkBuff) -> NetdevTx:
        if self._free() > 1:
            return cast(NetdevTx, sound(self, skb))
        netif_stop_queue(self)
        kfree_skb(skb)
        return NetdevTx.OK

    return hard_start_xmit


def _refuses_awake(sound: Any) -> Any:
    due = each(10)
    return lambda self, skb: NetdevTx.BUSY if due() else sound(self, skb)


def _ignores_budget(sound: Any) -> Any:
    return lambda self, _budget: sound(self, 1_000_000)


def _completes_early(sound: Any) -> Any:
    """One frame a poll, and then the interrupt is taken for served."""

    def poll(self: Any, budget: int) -> int:
        done: int = sound(self, min(budget, 1))
        if done:
            from guest.netpoll.napi import enable_irq, netif_rx_complete

            netif_rx_complete(self)
            enable_irq(self)
        return done

    return poll


def _bit(place: int) -> Any:
    return lambda frame: frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :]


TABLE = (
    Defect("a driver never wakes its queue", f"{LOOPBACK}.netif_wake_queue", _nothing, RING, "polled"),
    Defect("a driver drops each 100th frame and says that it was sent", f"{DRIVER}.hard_start_xmit", _drops(100), OUT, "delivered"),
    Defect("a driver swaps two frames", f"{DRIVER}.hard_start_xmit", _swaps, OUT, "delivered"),
    Defect("a driver sends a frame twice", f"{DRIVER}.hard_start_xmit", _doubles, OUT, "delivered"),
    Defect("a driver sends a frame with a wrong bit", f"{DRIVER}.hard_start_xmit", _changes(100, _bit(50)), OUT, "checksums"),
    Defect("a driver cuts off a frame's last byte", f"{DRIVER}.hard_start_xmit", _changes(100, lambda f: f[:-1]), OUT, "delivered"),
    Defect("a driver sends with a MAC that is not its own", f"{DRIVER}.hard_start_xmit", _changes(100, _bit(11)), OUT, "macs"),
    Defect("a driver sends to a MAC that is not the peer's", f"{DRIVER}.hard_start_xmit", _changes(100, _bit(5)), OUT, "delivered"),
    Defect("a driver whose ring is full frees the frame instead of refusing it", f"{DRIVER}.hard_start_xmit", _loses_when_full, RING, "delivered"),
    Defect("a driver refuses a frame with its queue awake", f"{DRIVER}.hard_start_xmit", _refuses_awake, OUT, "kernel"),
    Defect("a driver never stops its queue", f"{LOOPBACK}.netif_stop_queue", _nothing, RING, "kernel"),
    Defect("a poll routine ignores its budget", f"{DRIVER}.poll", _ignores_budget, IN, "kernel", moderation=0.2),
    Defect("a poll routine says that it is done after one frame", f"{DRIVER}.poll", _completes_early, IN, "delivered", moderation=0.2),
    Defect("a poll routine never unmasks its interrupt", f"{LOOPBACK}.enable_irq", _nothing, IN, "delivered"),
    Defect("a poll controller does nothing", "guest.netpoll.netdevice.NetDevice.poll_controller", _nothing, RING, "polled"),
)  # fmt: skip
