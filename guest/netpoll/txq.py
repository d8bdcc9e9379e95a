"""netpoll_queue(): keep a frame for later. Its worker sends it in process context - or whoever comes first.

In: an skb that could not be sent (netpoll_queue is a drop routine). Out: the same skb to the driver, in
order, as soon as the queue takes frames. The one rule: FIFO per device, at most MAX_QUEUE_DEPTH frames,
and no direct send overtakes what is queued.

In the kernel of 2.6.12 only keventd emptied the queue, so that after a panic what was queued was lost.
Here every direct send empties it first, and so does the CPU that leaves hard_start_xmit (see send.py);
the worker serves the case that nothing is sent any more. One queue per device, not one for all: a dead
device holds up nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.netpoll.netdevice import NETDEV_TX_OK, NetDevice, NetdevTx
from guest.netpoll.skbuff import DropReason, SkBuff, kfree_skb

if TYPE_CHECKING:
    from guest.netpoll.core import NetpollInfo

MAX_QUEUE_DEPTH = 16
RETRY_DELAY = 0.1  # seconds: HZ/10 in later kernels' queue_process()


def netpoll_queue(skb: SkBuff) -> None:
    """Take `skb` and send it later, in order; at full depth it is freed and counted as lost. Any context."""
    npinfo = _info_of(skb)
    if npinfo is None or len(npinfo.txq) >= npinfo.queue_depth:
        lose(skb, DropReason.QUEUE_FULL)
        return
    skb.drop_reason = None
    npinfo.txq.append(skb)
    if skb.np is not None:
        skb.np.stats.queued += 1
    npinfo.dev.ctx.schedule_work(npinfo.queue_process)


def _info_of(skb: SkBuff) -> NetpollInfo | None:
    dev = skb.dev
    return dev.npinfo if dev is not None else None  # type: ignore[return-value]  # see poll_napi()


def lose(skb: SkBuff, reason: DropReason) -> None:
    """Free an skb that nobody will deliver, and count it."""
    skb.drop_reason = reason
    if skb.np is not None:
        skb.np.stats.lost += 1
    kfree_skb(skb)


def flush(npinfo: NetpollInfo) -> bool:
    """Send queued frames in order while the driver takes them; xmit_lock held. True if none is left."""
    txq = npinfo.txq
    while txq:
        skb = txq.popleft()
        dev = skb.dev
        if dev is None or not dev.running or dev.xoff or start_xmit(dev, skb) is not NETDEV_TX_OK:
            txq.appendleft(skb)
            return False
        if skb.np is not None:
            skb.np.stats.late += 1
            if skb.np.late is not None:
                skb.np.late(skb)
    return True


def start_xmit(dev: NetDevice, skb: SkBuff) -> NetdevTx:
    """hard_start_xmit, or the netpoll variant of a device that stacks on others."""
    if dev.netpoll_start_xmit is not None and skb.np is not None:
        return dev.netpoll_start_xmit(skb.np, skb)
    return dev.hard_start_xmit(skb)
