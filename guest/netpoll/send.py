"""netpoll_send_udp() and netpoll_send_skb(): from a message to the driver, whatever state the machine is in.

In: octets (send_udp) or a framed skb (send_skb). Out: the frame to hard_start_xmit, or, if that cannot
be, to the client's drop routine. The one rule: it always comes back, within the retry bound, and every
frame is accounted for: sent, or dropped (drop routine, or freed).

Locking, and the slides' "fix locking so that queuing is not necessary all of the time". The kernel of
2.6.12 sent every frame to the drop routine if its CPU was in the device's poll routine (poll_owner) or
held xmit_lock, hence every reply from an rx_hook was queued. Here:

* xmit_lock and poll_lock are independent. A send from inside poll or an rx_hook takes xmit_lock and
  transmits at once while the queue is open. Only polling is closed to it, since the poll routine is not
  re-entrant: if the queue is stopped, it goes to the drop routine without retries.
* A send from inside hard_start_xmit of the same device cannot transmit. It goes to the drop routine; if
  that is netpoll_queue, the CPU that holds xmit_lock sends it as soon as the driver returns, before it
  gives the lock up. No process context is needed, so this works after a panic too.
* Another CPU's xmit_lock is no recursion, from wherever it is met. It is waited for in steps of the retry
  loop, or at a stretch from inside poll, so that a CPU that died with the lock costs the retry bound and
  not the machine (the drop routine then hears LOCKED).

What it costs: drivers must allow hard_start_xmit from their own receive path, with none of their locks
held that it takes (true of those here; a driver where it is not returns NetdevTx.LOCKED), one owner
store for each send, and a look at the queue after each. Net.era_recursion = True gives the old rule.

An skb that its driver has freed by the time it returns serves for the client's next message, as drivers
had it with skb_recycle_check(): making and unmaking one costs a tenth of a send.

Retries: `tries` is per device and restored by the next success (2.6.13): a dead link costs its second
once, not for every message.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from guest.netpoll.context import smp_processor_id
from guest.netpoll.errors import MessageTooLong, SetupError
from guest.netpoll.napi import do_softirq
from guest.netpoll.netdevice import (
    NETDEV_TX_BUSY,
    NETDEV_TX_OK,
    NETIF_F_GSO_UDP_L4,
    NETIF_F_HW_CSUM,
    NETIF_F_XMIT_MANY,
    NETIF_F_XMIT_RUN,
    NetDevice,
    NetdevTx,
    netif_tx_lock,
    netif_tx_unlock,
)
from guest.netpoll.poll import netpoll_poll_dev
from guest.netpoll.skbuff import CHECKSUM_PARTIAL, DropReason, SkBuff, kfree_skb
from guest.netpoll.txq import flush

if TYPE_CHECKING:
    from guest.netpoll.core import Netpoll, NetpollInfo

NET_XMIT_SUCCESS = 0
NET_XMIT_DROP = 1
MAX_RETRIES = 20000
# messages that are sooner sent one by one where direct.py does it: a run of any length costs what 9 of them do
FEW = 12
FIND_SKB_TRIES = 10
UDP_MAX_SEGMENTS = 64  # linux/udp.h, before 6.8
MAX_GSO = 65535 - 20 - 8
USEC_PER_POLL = 50


def netpoll_send_udp(np: Netpoll, msg: bytes | bytearray | memoryview) -> int:
    """Send `msg` as one datagram to np's peer: NET_XMIT_SUCCESS, or NET_XMIT_DROP if it was dropped.

    Raises MessageTooLong beyond the MTU. Any context; process context is not needed.
    """
    direct = np.direct
    if direct is not None and direct(msg):
        return NET_XMIT_SUCCESS
    dev = np.dev
    frame = np.frame
    if dev is None or frame is None:
        return _send_unbound(np, msg)
    if len(msg) > np.max_payload:
        raise MessageTooLong(len(msg), np.max_payload, dev.name)
    spare = np.spare
    try:
        data = frame(msg)
        skb = spare.pop() if spare else _alloc_skb(np)
    except MemoryError:
        return _send_from_pool(np, dev, msg)
    except IndexError:  # another CPU took the last one
        return netpoll_send_udp(np, msg)
    skb.data = data
    skb.dev = dev
    skb.users = 1
    status = netpoll_send_skb(np, skb)
    if not skb.users and not status:
        spare.append(skb)
    return status


def _alloc_skb(np: Netpoll) -> SkBuff:
    """A new skb for frames of this client; raises MemoryError."""
    alloc = np.pool.alloc
    skb = alloc(b"", np.dev, np.protocol)
    skb.np = np
    return skb


def _send_from_pool(np: Netpoll, dev: NetDevice, msg: bytes | bytearray | memoryview) -> int:
    """No memory: send with an skb of the emergency pool, or drop."""
    skb = _find_skb(np, dev, msg)
    if skb is None:
        np.stats.dropped += 1
        return NET_XMIT_DROP
    return netpoll_send_skb(np, skb)


def _send_unbound(np: Netpoll, msg: bytes | bytearray | memoryview) -> int:
    """The device went away: a counted drop. Raises SetupError if there never was one."""
    if np.frame is None:
        raise SetupError(errno.ENOTCONN, f"{np.name}: netpoll_setup() has not been called")
    skb = SkBuff(np.frame(msg), None, np.protocol)
    skb.np = np
    return _drop(np, skb, DropReason.NOT_RUNNING)


def _find_skb(np: Netpoll, dev: NetDevice, msg: bytes | bytearray | memoryview) -> SkBuff | None:
    """Memory ran out: an skb of the pool; if that is empty too, poll and look again, FIND_SKB_TRIES times.

    The pool is refilled by process context (as in today's kernels), so not at all after a crash.
    """
    for _ in range(FIND_SKB_TRIES):
        skb = np.pool.take(np.header_len + len(msg))
        if skb is not None and np.frame is not None:
            dev.ctx.schedule_work(np.pool.refill_skbs)
            skb.dev, skb.protocol, skb.np = dev, np.protocol, np
            skb.data[:] = np.frame(msg)  # type: ignore[index]  # pool skbs are writable
            return skb
        netpoll_poll_dev(dev)
    return None


def netpoll_send_udp_batch(np: Netpoll, messages: Iterable[bytes]) -> int:
    """Send each message as netpoll_send_udp() would; returns how many were not dropped.

    The driver's doorbell rings once, at the end, unless they are FEW. A device with NETIF_F_XMIT_MANY gets the frames together, under one xmit_lock, and without
    an skb each, with NETIF_F_XMIT_RUN in one piece if all are of one length; what it has no room for is sent message by message. A device with
    NETIF_F_GSO_UDP_L4 gets runs of messages of
    one length as one frame each; what it refuses is sent message by message. One with NETIF_F_HW_CSUM besides XMIT_MANY computes UDP checksums.
    """
    dev = np.dev
    if dev is None:
        return sum(netpoll_send_udp(np, msg) == NET_XMIT_SUCCESS for msg in messages)
    if dev.features & NETIF_F_XMIT_MANY and np.frames is not None:
        return _send_many(np, dev, list(messages))
    dev.xmit_more = True
    try:
        if dev.features & NETIF_F_GSO_UDP_L4:
            return sum(_send_run(np, dev, run) for run in _runs(messages, np.max_payload))
        return sum(netpoll_send_udp(np, msg) == NET_XMIT_SUCCESS for msg in messages)
    finally:
        dev.xmit_more = False
        dev.doorbell()


def _send_many(np: Netpoll, dev: NetDevice, messages: list[bytes]) -> int:
    """What is queued goes first, and what the driver does not take at once goes the way of every other message. So do FEW, directly."""
    if len(messages) < FEW and np.direct is not None:
        return sum(netpoll_send_udp(np, msg) == NET_XMIT_SUCCESS for msg in messages)
    lengths, limit = set(map(len, messages)), np.max_payload
    fit = len(messages)
    if max(lengths, default=0) > limit:
        fit = next(n for n, msg in enumerate(messages) if len(msg) > limit)
    fitting = messages if fit == len(messages) else messages[:fit]
    together = _send_alike if len(lengths) == 1 and dev.features & NETIF_F_XMIT_RUN else _send_frames
    done = together(np, dev, fitting) if fitting else 0
    if fit < len(messages):
        raise MessageTooLong(len(messages[fit]), limit, dev.name)
    return done


def _send_alike(np: Netpoll, dev: NetDevice, messages: list[bytes]) -> int:
    """Messages of one length by xmit_run(); how many were sent."""
    assert np.run is not None
    run = np.run(messages, dev.needed_headroom)
    return _by_turns(np, dev, run.count, lambda done: dev.xmit_run(run.rest(done) if done else run), run.frame)


def _send_frames(np: Netpoll, dev: NetDevice, messages: list[bytes]) -> int:
    """Messages by xmit_many(); by itself a frame goes whole, checksum and all."""
    build = whole = np.frames
    if dev.features & NETIF_F_HW_CSUM:
        build = np.partial_frames
    assert build is not None
    assert whole is not None
    frames, made = build(messages), whole

    def alone(number: int) -> bytes:
        return frames[number] if build is made else made([messages[number]])[0]

    return _by_turns(np, dev, len(frames), lambda done: dev.xmit_many(frames[done:] if done else frames), alone)


def _by_turns(
    np: Netpoll, dev: NetDevice, count: int, together: Callable[[int], int], alone: Callable[[int], bytes]
) -> int:
    """Frames from number `done` on to the driver; the first that it has no room for goes as any message does, polls, retries, drop
    routine and all; then the rest together again, since a poll has made room. How many were sent."""
    done = sent = 0
    while done < count:
        taken = _hand_over(dev, together, done)
        np.stats.sent += taken
        sent, done = sent + taken, done + taken
        if done < count:
            sent += _send_frame(np, dev, alone(done)) == NET_XMIT_SUCCESS
            done += 1
    return sent


def _hand_over(dev: NetDevice, xmit: Callable[[int], int], done: int) -> int:
    """xmit_many() or xmit_run() where hard_start_xmit() could be called; how many frames the driver has taken."""
    npinfo: NetpollInfo = dev.npinfo  # type: ignore[assignment]  # see poll_napi()
    recursion = npinfo is not None and dev.net.era_recursion and npinfo.polled_by(smp_processor_id())
    if npinfo is None or npinfo.txq or recursion or not dev.running or not netif_tx_lock(dev, 0):
        return 0
    try:
        if dev.xoff:
            return 0
        taken = xmit(done)
        if taken:
            npinfo.tries = npinfo.max_retries
        if npinfo.txq:
            flush(npinfo)
        return taken
    finally:
        netif_tx_unlock(dev)


def _send_frame(np: Netpoll, dev: NetDevice, frame: bytes) -> int:
    skb = SkBuff(frame, dev, np.protocol)
    skb.np = np
    return netpoll_send_skb(np, skb)


def _runs(messages: Iterable[bytes], limit: int) -> Iterator[list[bytes]]:
    """Consecutive messages of one length, as many as fit one datagram before it is cut."""
    run: list[bytes] = []
    for msg in messages:
        size = len(run[0]) if run else 0
        if run and (len(msg) != size or len(run) == UDP_MAX_SEGMENTS or size * len(run) > MAX_GSO - size):
            yield run
            run = []
        run.append(msg)
        if not 0 < len(msg) <= limit:  # nothing to cut, or too long: an error for netpoll_send_udp() to raise
            yield run
            run = []
    if run:
        yield run


def _send_run(np: Netpoll, dev: NetDevice, run: list[bytes]) -> int:
    """One frame for all of `run` if the device takes that at once, else one for each; how many were sent."""
    npinfo: NetpollInfo = dev.npinfo  # type: ignore[assignment]  # see poll_napi()
    if len(run) > 1 and np.gso_frame is not None and dev.running and not dev.xoff:
        skb = SkBuff(np.gso_frame(run), dev, np.protocol)
        skb.np, skb.gso_size, skb.ip_summed = np, len(run[0]), CHECKSUM_PARTIAL
        if _attempt(np, dev, npinfo, skb, 0) is NETDEV_TX_OK:
            np.stats.sent += len(run)
            npinfo.tries = npinfo.max_retries
            return len(run)
    return sum(netpoll_send_udp(np, msg) == NET_XMIT_SUCCESS for msg in run)


def netpoll_send_skb(np: Netpoll, skb: SkBuff) -> int:
    """Send a framed skb on skb.dev; takes it. NET_XMIT_SUCCESS or NET_XMIT_DROP. Any context."""
    dev = skb.dev
    if dev is None or not dev.running:
        return _drop(np, skb, DropReason.NOT_RUNNING)
    npinfo: NetpollInfo | None = dev.npinfo  # type: ignore[assignment]  # see poll_napi()
    if npinfo is None:
        return _drop(np, skb, DropReason.NOT_RUNNING)
    me = smp_processor_id()
    if dev.xmit_lock_owner == me or (npinfo.poll_owner == me and dev.net.era_recursion):
        return _drop(np, skb, DropReason.RECURSION)
    if npinfo.txq or dev.netpoll_start_xmit is not None or not dev.xmit_lock.acquire(False):
        return _send_slow(np, dev, npinfo, skb)
    dev.xmit_lock_owner = me  # from here on _attempt() for the common case, in line
    try:
        status = NETDEV_TX_BUSY if dev.xoff else dev.hard_start_xmit(skb)
        if npinfo.txq:
            flush(npinfo)
    finally:
        dev.xmit_lock_owner = 0
        dev.xmit_lock.release()
    if status is not NETDEV_TX_OK:
        return _send_slow(np, dev, npinfo, skb, refused=True)
    np.stats.sent += 1
    npinfo.tries = npinfo.max_retries
    return NET_XMIT_SUCCESS


def _attempt(np: Netpoll, dev: NetDevice, npinfo: NetpollInfo, skb: SkBuff, timeout: float) -> NetdevTx | None:
    """One try, under xmit_lock: first what is queued, then `skb`, then what recursion queued meanwhile.

    None if another CPU kept the lock for `timeout` seconds.
    """
    if not netif_tx_lock(dev, timeout):
        return None
    try:
        if dev.xoff or (npinfo.txq and not flush(npinfo)):
            return NETDEV_TX_BUSY
        start = dev.netpoll_start_xmit
        status = dev.hard_start_xmit(skb) if start is None else start(np, skb)
        if npinfo.txq:
            flush(npinfo)
        return status
    finally:
        netif_tx_unlock(dev)


def _send_slow(np: Netpoll, dev: NetDevice, npinfo: NetpollInfo, skb: SkBuff, *, refused: bool = False) -> int:
    """The first attempt, unless it was `refused`, then the retry-and-poll loop, then the drop routine.

    At most npinfo.tries rounds; one, if those are used up.
    """
    pause = npinfo.usec_per_poll * 1e-6
    status = NETDEV_TX_BUSY if refused else _attempt(np, dev, npinfo, skb, pause)
    if status is NETDEV_TX_OK:
        return _sent(np, dev, npinfo)
    if npinfo.polled_by(smp_processor_id()):
        return _send_without_poll(np, dev, npinfo, skb, contended=status is None)
    clock = dev.ctx.clock
    tries = max(npinfo.tries, 1)
    deadline = clock() + tries * pause
    np.stats.retried += 1
    while tries > 0 and dev.running:
        tries = tries - 1 if clock() <= deadline else 0
        _poll_and_wait(np, dev, pause)
        status = _attempt(np, dev, npinfo, skb, pause)
        if status is NETDEV_TX_OK:
            return _sent(np, dev, npinfo)
    npinfo.tries = tries
    do_softirq(dev.ctx)
    if not dev.running:
        return _drop(np, skb, DropReason.NOT_RUNNING)
    return _drop(np, skb, DropReason.LOCKED if status is None else DropReason.RETRIES)


def _send_without_poll(np: Netpoll, dev: NetDevice, npinfo: NetpollInfo, skb: SkBuff, *, contended: bool) -> int:
    """From inside the poll or interrupt routine. The lock is waited for if it was `contended`, the queue is not."""
    reason = DropReason.RECURSION
    if contended:
        np.stats.retried += 1
        status = _attempt(np, dev, npinfo, skb, max(npinfo.tries, 1) * npinfo.usec_per_poll * 1e-6)
        if status is NETDEV_TX_OK:
            return _sent(np, dev, npinfo)
        if status is None:
            npinfo.tries = 0
            reason = DropReason.LOCKED
    return _drop(np, skb, reason)


def _sent(np: Netpoll, dev: NetDevice, npinfo: NetpollInfo) -> int:
    """The driver has it. What polling left for the softirq is done now, if this is no interrupt itself."""
    np.stats.sent += 1
    npinfo.tries = npinfo.max_retries
    do_softirq(dev.ctx)
    return NET_XMIT_SUCCESS


def _poll_and_wait(np: Netpoll, dev: NetDevice, pause: float) -> None:
    """Poll; then udelay(), unless that has just opened the queue."""
    stopped = dev.xoff
    np.stats.polled += 1
    netpoll_poll_dev(dev)
    if dev.running and (dev.xoff or not stopped):
        dev.ctx.delay(pause)


def _drop(np: Netpoll, skb: SkBuff, reason: DropReason) -> int:
    """Hand `skb` to the drop routine, which owns it from there, or free it."""
    np.stats.dropped += 1
    skb.drop_reason = reason
    if np.drop is not None:
        np.drop(skb)
    else:
        np.stats.lost += 1
        kfree_skb(skb)
    return NET_XMIT_DROP
