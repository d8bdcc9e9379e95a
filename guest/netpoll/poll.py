"""netpoll_poll(): drive a device whose interrupts nobody serves.

In: a device. Out: whatever its interrupt and poll routines achieve: TX descriptors reclaimed, frames
received. The one rule: no poll inside a poll. The CPU that is in a device's poll routine is `poll_owner`;
on it, and while another CPU holds poll_lock, the poll step is left out, never waited for.

`trapped` (Net.trapped) counts who wants all traffic eaten: netpoll's own polls, and netpoll_set_trap().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.netpoll.context import smp_processor_id
from guest.netpoll.napi import do_softirq, run_irq_routine
from guest.netpoll.netdevice import Net, NetDevice

if TYPE_CHECKING:
    from guest.netpoll.core import Netpoll, NetpollInfo

NETPOLL_POLL_BUDGET = 16  # netpoll.c: poll_napi()


def netpoll_poll(np: Netpoll) -> None:
    """poll_controller, then the NAPI poll; afterwards, where the context allows, the pending softirqs.

    No effect if the device is gone, down or without poll_controller. Any context.
    """
    dev = np.dev
    if dev is not None:
        netpoll_poll_dev(dev)
        do_softirq(dev.ctx)


def netpoll_poll_dev(dev: NetDevice) -> None:
    """One round of polling, as the retry loop does it; bonding calls it for each slave."""
    if not dev.running or not dev.supports_netpoll:
        return
    cpu = dev.ctx.cpu()
    cpu.irqs_disabled += 1  # local_irq_save()
    try:
        run_irq_routine(dev, dev.poll_controller)
    finally:
        cpu.irqs_disabled -= 1
    if dev.weight and dev.running:
        poll_napi(dev)


def poll_napi(dev: NetDevice) -> int:
    """Run dev->poll if it is scheduled and nobody is in it; all frames it yields are netpoll's (trapped)."""
    npinfo: NetpollInfo = dev.npinfo  # type: ignore[assignment]  # netpoll_setup() put one there
    me = smp_processor_id()
    if npinfo is None or not dev.rx_sched or npinfo.poll_owner == me:
        return 0
    if not npinfo.poll_lock.acquire(blocking=False):
        return 0
    npinfo.poll_owner = me
    npinfo.rx_drop = True
    netpoll_set_trap(dev.net, 1)
    try:
        return dev.poll(NETPOLL_POLL_BUDGET)
    finally:
        netpoll_set_trap(dev.net, -1)
        npinfo.rx_drop = False
        npinfo.poll_owner = 0
        npinfo.poll_lock.release()


def netpoll_trap(net: Net) -> int:
    """How many want traffic eaten; 0 means that frames which are not netpoll's pass on."""
    return net.trapped


def netpoll_set_trap(net: Net, trap: int) -> None:
    """Start (+1) or stop (-1) eating all traffic on devices with a receiving client, and answering ARP.

    A -1 without its +1 raises ValueError.
    """
    with net.trap_lock:
        if net.trapped + trap < 0:
            raise ValueError("netpoll_set_trap(-1) without netpoll_set_trap(+1) before")
        net.trapped += trap
