"""The bonding device: a NetDevice over others.

In: slaves (enslave, release), frames from above and, through skb_bond(), from below, the time. Out:
frames on slaves and to the bond's clients; carrier and queue state that follow from the slaves'. The one
rule: nothing here waits. What takes time is a deadline that tick() looks at, in process context.

Time comes from net.context.clock. tick(now) does what is due, next_deadline() says when it next is;
between dev_open() and dev_close() the bond has itself called through the context's timers.

The bond behaves like a driver: its queue stops when the slave that a frame needs cannot take it, or no
slave is there, and wakes when one can - noticed by poll_controller(), which polls every slave that is up,
and by tick(). While the machine is quiesced nobody calls tick(). poll_controller() then runs the link
monitor when it is due, so that last words find the surviving cable, and after a crash LACP too, so that
the partner does not drop us (Linux goes on with what it last knew, until the partner times out).

While netpoll is on the bond it is on each slave (slave_netpoll.py, queue_xmit.py).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

from guest.netpoll.bonding import alb
from guest.netpoll.bonding.ad import AdSystem
from guest.netpoll.bonding.enslave import bond_enslave, bond_release
from guest.netpoll.bonding.miimon import bond_mii_monitor
from guest.netpoll.bonding.params import BondParams, Mode, parse_options
from guest.netpoll.bonding.queue_xmit import dev_hard_start_xmit
from guest.netpoll.bonding.receive import bond_handle_frame
from guest.netpoll.bonding.slave import Link, Slave
from guest.netpoll.bonding.slave_netpoll import bond_netpoll_setup
from guest.netpoll.bonding.xmit import BOND_XMIT
from guest.netpoll.netdevice import (
    IFF_MASTER,
    Net,
    NetdevEvent,
    NetDevice,
    NetdevTx,
    NetpollHook,
    NetpollSender,
    dev_open,
    netif_carrier_off,
    netif_carrier_on,
    netif_start_queue,
    netif_stop_queue,
    netif_wake_queue,
    register_netdev,
    unregister_netdev,
)
from guest.netpoll.poll import netpoll_poll_dev
from guest.netpoll.skbuff import SkBuff, kfree_skb


class Bond(NetDevice):
    """A bond without slaves yet, to be registered like any device. `params` may be a mode's word alone.

    Without `dev_addr` it takes the first slave's address.
    """

    def __init__(
        self,
        net: Net,
        name: str = "bond0",
        params: BondParams | str = Mode.ROUNDROBIN.value,
        *,
        dev_addr: bytes = b"",
    ) -> None:
        self.slaves: list[Slave] = []
        self._npinfo: NetpollHook | None = None
        super().__init__(net, name, dev_addr or bytes(6))
        self.params = parse_options({"mode": params}) if isinstance(params, str) else params
        self.mode = self.params.mode
        self.flags |= IFF_MASTER
        self.carrier = False
        self.xoff = True
        self.netpoll_start_xmit = self._netpoll_start_xmit
        self.netpoll: NetpollSender | None = None  # who sends at the moment
        self.mode_lock = threading.RLock()
        self.usable_slaves: tuple[Slave, ...] = ()
        self.curr_active_slave: Slave | None = None
        self.primary_slave: Slave | None = None
        self.force_primary = False
        self.rr_tx_counter = 0
        self.tlb = alb.TlbInfo()
        self.ad: AdSystem | None = None
        self.by_dev: dict[NetDevice, Slave] = {}
        self._postponed: list[tuple[Slave, bytes]] = []
        self._mii_due = self._alb_due = 0.0
        self._armed: float | None = None
        net.netdev_chain.append(self._netdev_event)

    # Slaves

    def enslave(self, dev: NetDevice, *, speed: int = 1000, full_duplex: bool = True) -> Slave:
        """Bring `dev` up and make it a slave; raises NetdevError. Process context.

        `speed` (Mbit/s) and duplex are what ethtool would say of it; LACP aggregates equal ones only.
        """
        return bond_enslave(self, dev, speed, full_duplex)

    def release(self, dev: NetDevice) -> None:
        """Take a slave out, give it its own address back and close it; raises NetdevError. Process context."""
        bond_release(self, dev)

    def set_slave_inactive(self, slave: Slave) -> None:
        """bond_set_slave_inactive_flags()."""
        slave.set_inactive(lb=self.mode.is_lb, all_slaves_active=self.params.all_slaves_active)

    def set_dev_addr(self, addr: bytes) -> None:
        """bond_set_dev_addr()."""
        self.dev_addr = addr
        self.net.call_netdevice_notifiers(NetdevEvent.CHANGEADDR, self)
        if self.ad is not None:
            self.ad.set_system(addr, self.ctx.clock())

    def follow_mtu(self) -> None:
        """The bond's MTU is the smallest of its slaves' (the kernel gives the slaves the bond's)."""
        mtu = min((slave.dev.mtu for slave in self.slaves), default=self.mtu)
        if mtu != self.mtu:
            self.mtu = mtu
            self.net.call_netdevice_notifiers(NetdevEvent.CHANGEMTU, self)

    def link_changed(self, slave: Slave) -> None:
        """A slave's `link` is UP or is no longer: bond_miimon_link_change()."""
        if self.ad is not None and slave.port is not None:
            up = slave.link is Link.UP
            self.ad.handle_link_change(slave.port, up, slave.speed, slave.full_duplex, self.ctx.clock())
            self.follow_ad()
        if self.mode.is_lb and slave.link is not Link.UP:
            alb.tlb_clear_slave(self, slave, save_load=False)

    def follow_ad(self) -> None:
        """Take over which ports carry frames."""
        if self.ad is None:
            return
        for slave in self.slaves:
            if slave.port is not None and slave.port.usable and slave.link is Link.UP:
                slave.set_active()
            else:
                self.set_slave_inactive(slave)
        self.update_slave_arr()
        self.set_carrier()

    def update_slave_arr(self) -> None:
        """bond_update_slave_arr(): what the hash chooses from."""
        self.usable_slaves = tuple(slave for slave in self.slaves if slave.can_tx)

    def set_carrier(self) -> None:
        """bond_set_carrier(): with an active aggregator of min_links ports, or with any link that is up."""
        if self.ad is not None:
            active = self.ad.active
            up = active is not None and len(active.active_ports) >= max(1, self.params.min_links)
        else:
            up = any(slave.link is Link.UP for slave in self.slaves)
        if up:
            netif_carrier_on(self)
            self.wake_queue()
        else:
            netif_stop_queue(self)
            netif_carrier_off(self)

    # Frames

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """The mode's function chooses; BUSY, the queue being stopped, if no slave took it."""
        status = BOND_XMIT[self.mode](self, skb)
        if status is not NetdevTx.OK:
            netif_stop_queue(self)
        return status

    def _netpoll_start_xmit(self, np: NetpollSender, skb: SkBuff) -> NetdevTx:
        """bond_netpoll_start_xmit(): the same, and the slave is sent to by netpoll as well."""
        self.netpoll = np
        try:
            return self.hard_start_xmit(skb)
        finally:
            self.netpoll = None

    def doorbell(self) -> None:
        """Ring the slaves'."""
        for slave in self.slaves:
            slave.dev.xmit_more = False
            slave.dev.doorbell()

    def skb_bond(self, slave: NetDevice, skb: SkBuff) -> bool:
        """A frame that `slave` received: True if it is the bond's, its device then being the bond."""
        return bond_handle_frame(self, slave, skb)

    def poll_controller(self) -> None:
        """bond_poll_controller(): poll every slave that runs, then do what is due and nobody else does.

        Slaves without carrier too (the kernel leaves them out): else a link that comes back is not seen.
        """
        for slave in list(self.slaves):
            if slave.dev.running:
                netpoll_poll_dev(slave.dev)
        if self.running and self.mode_lock.acquire(blocking=False):
            try:
                self._quiesced(self.ctx.clock())
            finally:
                self.mode_lock.release()
        self.wake_queue()

    def _quiesced(self, now: float) -> None:
        """The link monitor; after a crash all that tick() does, since there is no process context to leave it to."""
        if self.ctx.crashed:
            self._run_due(now)
            self.transmit()
        else:
            self._look(now)

    def wake_queue(self) -> None:
        """Wake the queue if a slave that could be chosen takes frames."""
        if self.xoff and self.running and any(not slave.dev.xoff for slave in self._candidates()):
            netif_wake_queue(self)

    def _candidates(self) -> Sequence[Slave]:
        if self.mode is Mode.ACTIVEBACKUP:
            return () if self.curr_active_slave is None else (self.curr_active_slave,)
        return [slave for slave in self.slaves if slave.can_tx]

    def send_control(self, slave: Slave, frame: bytes) -> bool:
        """Send a frame of the bond's own on one slave; False, and it is lost, if that cannot be done now.

        With interrupts off it is left to process context, as long as there is one.
        """
        if self.ctx.irqs_disabled() and not self.ctx.crashed:
            self._postponed.append((slave, frame))
            self.ctx.schedule_work(self.work)
            return True
        skb = SkBuff(frame, slave.dev, int.from_bytes(frame[12:14], "big"))
        if dev_hard_start_xmit(slave.dev, skb) is NetdevTx.OK:
            return True
        self.stats["control_dropped"] += 1
        kfree_skb(skb)
        return False

    # Netpoll on the slaves

    @property
    def npinfo(self) -> NetpollHook | None:
        """Netpoll's hook; the slaves get netpoll as long as the bond has it: bond_netpoll_setup()."""
        return self._npinfo

    @npinfo.setter
    def npinfo(self, npinfo: NetpollHook | None) -> None:
        self._npinfo = npinfo
        bond_netpoll_setup(self)

    # Time and events

    def open(self) -> None:
        """bond_open(): the monitors start."""
        now = self.ctx.clock()
        self._mii_due = self._alb_due = now
        netif_start_queue(self)
        self.set_carrier()
        self.rearm()

    def stop(self) -> None:
        """bond_close(): they stop; the slaves stay as they are."""
        netif_stop_queue(self)
        self._armed = None

    def next_deadline(self) -> float | None:
        """When tick() has something to do, on the context's clock; None while the bond is down or idle."""
        if not self.running:
            return None
        due = [self._mii_due] if self.params.miimon else []
        due += [self._alb_due] if self.mode.is_lb else []
        ad = self.ad.next_deadline() if self.ad is not None else None
        return min(due if ad is None else [*due, ad], default=None)

    def tick(self, now: float) -> None:
        """Do what is due at `now`: link monitor, LACP, load balancing. Process context; too often does no harm."""
        if not self.running:
            return
        with self.mode_lock:
            self._run_due(now)
        self.transmit()
        self.wake_queue()

    def _run_due(self, now: float) -> None:
        self._look(now)
        if self.ad is not None:
            self.ad.settle(now)
            self.follow_ad()
        if self.mode.is_lb and now >= self._alb_due:
            self._alb_due = now + alb.ALB_INTERVAL
            alb.bond_alb_monitor(self)

    def _look(self, now: float) -> None:
        if self.params.miimon and now >= self._mii_due:
            self._mii_due = now + self.params.miimon / 1000
            bond_mii_monitor(self)

    def transmit(self) -> None:
        """Send what was left to process context, and what LACP has to say; that is said again if a slave refused."""
        postponed, self._postponed = self._postponed, []
        for slave, frame in postponed:
            self.send_control(slave, frame)
        by_number = {slave.number: slave for slave in self.slaves}
        for number, frame in self.ad.drain() if self.ad is not None else ():
            sender = by_number.get(number)
            if sender is not None and not self.send_control(sender, frame) and sender.port is not None:
                sender.port.ntt = True

    def work(self) -> None:
        """In process context: catch up, and come again in time."""
        self.tick(self.ctx.clock())
        self.rearm()

    def rearm(self) -> None:
        """Have _work() called at next_deadline(), unless that is arranged already."""
        due = self.next_deadline()
        if due is not None and (self._armed is None or due < self._armed):
            self._armed = due
            self.ctx.call_later(max(0.0, due - self.ctx.clock()), functools.partial(self._timer, due))

    def _timer(self, due: float) -> None:
        if self._armed == due:
            self._armed = None
            self.work()

    def _netdev_event(self, event: NetdevEvent, dev: NetDevice) -> None:
        """bond_netdev_event(): slaves that come up, go down or vanish; and our own end."""
        if dev is self and event is NetdevEvent.UNREGISTER:
            for slave in list(self.slaves):
                self.release(slave.dev)
            self.net.netdev_chain.remove(self._netdev_event)
        elif dev in self.by_dev:
            if event is NetdevEvent.UNREGISTER:
                self.release(dev)
            elif event is NetdevEvent.CHANGEMTU:
                self.follow_mtu()
            elif event in (NetdevEvent.CHANGE, NetdevEvent.UP, NetdevEvent.DOWN):
                self.update_slave_arr()


def bond_create(
    net: Net,
    name: str,
    params: BondParams | str,
    slaves: Sequence[NetDevice] = (),
    *,
    dev_addr: bytes = b"",
) -> Bond:
    """A registered bond over `slaves`, up; raises NetdevError, nothing then being left behind."""
    bond = Bond(net, name, params, dev_addr=dev_addr)
    register_netdev(bond)
    try:
        for dev in slaves:
            bond.enslave(dev)
        dev_open(bond)
    except BaseException:
        unregister_netdev(bond)
        raise
    return bond
