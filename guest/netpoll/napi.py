"""Receive: irq -> schedule -> net_rx_action -> poll(budget) -> netif_receive_skb, and netif_rx without NAPI.

In: interrupts (do_irq), frames from drivers. Out: frames to netpoll first, then to the protocol handlers
(Net.ptype_all). The one rule: a device is on at most one CPU's poll list, so that one CPU runs its poll
routine and no poll runs inside another.

Against 2.6.12: poll() returns how many frames it processed (the contract since 2.6.24) instead of
subtracting from two counters, so that no driver can starve netpoll with a used-up quota.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence

from guest.netpoll.context import HARDIRQ, PROCESS, SOFTIRQ, Context, smp_processor_id
from guest.netpoll.netdevice import NET_RX_DROP, NET_RX_SUCCESS, NetDevice
from guest.netpoll.skbuff import SkBuff, eth_type_trans, kfree_skb

NETDEV_BUDGET = 300  # netdev_max_backlog in 2.6.12: frames per net_rx_action()
NETDEV_TIME = 0.002  # seconds: its two jiffies of 1/1000 s there; then timers have their turn


def disable_irq(dev: NetDevice) -> None:
    """Mask the device's interrupt: the loop stops waiting for its descriptors."""
    if not dev.irq_masked:
        dev.irq_masked = True
        if dev.net.irq_sync is not None:
            dev.net.irq_sync(dev)


def enable_irq(dev: NetDevice) -> None:
    """Unmask it. Descriptors are level-triggered: what arrived meanwhile interrupts at once."""
    if dev.irq_masked:
        dev.irq_masked = False
        if dev.net.irq_sync is not None:
            dev.net.irq_sync(dev)


def do_irq(dev: NetDevice) -> None:
    """Serve one interrupt of `dev`: its routine in hardirq context, then pending softirqs (irq_exit()).

    After a crash, or while interrupts are off on this CPU, nothing is served.
    """
    ctx = dev.ctx
    cpu = ctx.cpu()
    if ctx.crashed or cpu.irqs_disabled or cpu.level is HARDIRQ or dev.irq_masked or not dev.running:
        return
    before, cpu.level = cpu.level, HARDIRQ
    try:
        run_irq_routine(dev, dev.interrupt)
    finally:
        cpu.level = before
    do_softirq(ctx)


def run_irq_routine(dev: NetDevice, routine: Callable[[], None]) -> bool:
    """Run `routine` unless the device's interrupt routine runs already, here or on another CPU."""
    if not dev.irq_lock.acquire(blocking=False):
        return False
    npinfo = dev.npinfo
    before = npinfo.irq_owner if npinfo is not None else 0
    try:
        if npinfo is not None:
            npinfo.irq_owner = smp_processor_id()
        routine()
    finally:
        if npinfo is not None:
            npinfo.irq_owner = before
        dev.irq_lock.release()
    return True


def do_softirq(ctx: Context) -> None:
    """Run net_rx_action() if it is pending and may run here: not in interrupts, not after a crash."""
    cpu = ctx.cpu()
    if not (cpu.poll_list or cpu.backlog):
        cpu.softirq_pending = False  # netpoll has done the work meanwhile
    if cpu.softirq_pending and cpu.level is PROCESS and not (cpu.bh_disabled or ctx.crashed):
        cpu.level = SOFTIRQ
        try:
            net_rx_action(ctx)
        finally:
            cpu.level = PROCESS


def netif_rx_schedule(dev: NetDevice) -> bool:
    """Put `dev` on this CPU's poll list; False if it is down or on a list already."""
    if dev.rx_sched or not dev.running:
        return False
    dev.rx_sched = True
    cpu = dev.ctx.cpu()
    dev.poll_list = cpu.poll_list
    dev.poll_list.append(dev)
    cpu.softirq_pending = True
    return True


def netif_rx_complete(dev: NetDevice) -> None:
    """poll() has no more work: off whichever CPU's list it is on; may be scheduled anew."""
    with contextlib.suppress(ValueError):
        dev.poll_list.remove(dev)
    dev.rx_sched = False


def net_rx_action(ctx: Context) -> int:
    """The network bottom half: backlog, then each scheduled device by turns; return the frames processed.

    Bounded by NETDEV_BUDGET frames, and by NETDEV_TIME once each poll routine's turn is over: what is left stays pending for the next
    softirq, before which timers and work run. LACP's partner gives a port up that was silent for three seconds.
    """
    cpu, until = ctx.cpu(), ctx.clock() + NETDEV_TIME
    cpu.softirq_pending = False
    budget = NETDEV_BUDGET - process_backlog(ctx)
    poll_list = cpu.poll_list
    for _ in range(NETDEV_BUDGET):  # turns: a poll routine that does nothing and does not complete ends here too
        dev = _first(poll_list)
        if dev is None or budget <= 0:
            break
        budget -= _poll_one(dev, min(dev.weight, budget))
        if _first(poll_list) is dev:
            poll_list.rotate(-1)
        if ctx.clock() > until:
            break
    if poll_list or cpu.backlog:
        cpu.softirq_pending = True
    return NETDEV_BUDGET - budget


def _first(poll_list: deque[NetDevice]) -> NetDevice | None:
    """In one step: netpoll on another CPU may take the only device off the list between a look and a grasp."""
    try:
        return poll_list[0]
    except IndexError:
        return None


def _poll_one(dev: NetDevice, budget: int) -> int:
    """dev->poll() between netpoll_poll_lock() and netpoll_poll_unlock(), if netpoll is on this device."""
    if not dev.running:
        netif_rx_complete(dev)
        return 0
    npinfo = dev.npinfo
    if npinfo is None:
        return dev.poll(budget)
    if not npinfo.netpoll_poll_lock():
        return budget  # the other CPU's poll took this turn
    try:
        return dev.poll(budget) if dev.rx_sched else 0  # netpoll on the other CPU may have done the work
    finally:
        npinfo.netpoll_poll_unlock()


def netif_rx(skb: SkBuff) -> int:
    """A frame from a non-NAPI interrupt routine: to its master, netpoll, else this CPU's backlog. Takes the skb."""
    dev: NetDevice = skb.dev  # type: ignore[assignment]  # a received skb has its device
    if dev.master is not None:
        if not dev.master.skb_bond(dev, skb):
            kfree_skb(skb)
            return NET_RX_DROP
        dev = skb.dev or dev
    if dev.npinfo is not None and dev.npinfo.netpoll_rx(skb):
        return NET_RX_DROP
    cpu = dev.ctx.cpu()
    if len(cpu.backlog) >= dev.net.netdev_max_backlog:
        dev.stats["rx_dropped"] += 1
        kfree_skb(skb)
        return NET_RX_DROP
    cpu.backlog.append(skb)
    cpu.softirq_pending = True
    return NET_RX_SUCCESS


def process_backlog(ctx: Context) -> int:
    """Hand the backlog's frames on, at most NETDEV_BUDGET; return how many. Netpoll saw them already."""
    backlog = ctx.cpu().backlog
    count = min(len(backlog), NETDEV_BUDGET)
    for _ in range(count):
        _deliver(backlog.popleft())
    return count


def netif_receive_skb(skb: SkBuff) -> int:
    """A frame from a NAPI poll routine: to its master, to netpoll, to the handlers. Takes the skb.

    The master (bonding) comes before netpoll, as in the kernels that netpoll over bonding was made for.
    """
    dev: NetDevice = skb.dev  # type: ignore[assignment]  # a received skb has its device
    if dev.master is not None:
        if not dev.master.skb_bond(dev, skb):
            kfree_skb(skb)
            return NET_RX_DROP
        dev = skb.dev or dev
    npinfo = dev.npinfo
    if npinfo is not None and npinfo.netpoll_rx(skb):
        return NET_RX_DROP
    return _deliver(skb)


def netif_receive_skb_list(dev: NetDevice, frames: Sequence[bytes]) -> None:
    """What a NAPI poll routine found, without FCS, in its order, as long as the device is up.

    Datagrams that are alike go to netpoll together (as kernels since 4.19 have it, and UDP GRO), all else as an skb of its own.
    """
    done = 0
    while done < len(frames) and dev.running:
        npinfo = dev.npinfo
        taken = npinfo.netpoll_rx_run(frames, done) if npinfo is not None and dev.master is None else 0
        if not taken:
            skb = SkBuff(frames[done])
            eth_type_trans(skb, dev)
            netif_receive_skb(skb)
            taken = 1
        done += taken


def _deliver(skb: SkBuff) -> int:
    """deliver_skb() to every protocol handler, then free; without any, the frame is dropped."""
    dev = skb.dev
    assert dev is not None
    handlers = dev.net.ptype_all
    for handler in handlers:
        handler(skb)
    kfree_skb(skb)
    return NET_RX_SUCCESS if handlers else NET_RX_DROP
