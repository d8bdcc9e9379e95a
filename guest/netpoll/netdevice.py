"""net_device, its queue and carrier state, and the namespace (struct net) that devices are registered in.

In: a driver's calls (netif_stop_queue, netif_carrier_off, ...) and the stack's (dev_open, notifiers).
Out: state that the send path reads and events that listeners get. The one rule: a queue's state is the
driver's to set and everybody's to read; hard_start_xmit() is called with xmit_lock held and never while
the queue is stopped.
"""

from __future__ import annotations

import enum
import errno
import functools
import ipaddress
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from guest.netpoll.context import Context, LockLike, smp_processor_id
from guest.netpoll.skbuff import FrameRun, SkbPool, SkBuff
from guest.netpoll.stats import NetpollStats

if TYPE_CHECKING:
    from guest.netpoll.direct import DirectTx

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

IFF_UP = 0x1
IFF_BROADCAST = 0x2
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
IFF_NOARP = 0x80
IFF_PROMISC = 0x100
IFF_MASTER = 0x400
IFF_SLAVE = 0x800
IFF_MULTICAST = 0x1000

ARPHRD_ETHER = 1
IFNAMSIZ = 16
CLOSE_PATIENCE = 0.1  # seconds

NETIF_F_GSO_UDP_L4 = 1 << 17  # skb.gso_size is honoured: one frame in, many datagrams out
NETIF_F_HW_CSUM = (
    1 << 3
)  # frames given to xmit_many() have the pseudo header's sum for a UDP checksum: the device does the rest
NETIF_F_XMIT_MANY = 1 << 63  # no bit of the kernel's: xmit_many() is there
NETIF_F_XMIT_RUN = 1 << 62  # nor this: and xmit_run()

NET_RX_SUCCESS = 0
NET_RX_DROP = 1


class NetdevTx(enum.IntEnum):
    """What hard_start_xmit() returns: who owns the skb now."""

    OK = 0  # the driver
    BUSY = 1  # the caller; the queue should be stopped
    LOCKED = -1  # the caller; the driver's own lock was taken (NETIF_F_LLTX drivers)


NETDEV_TX_OK, NETDEV_TX_BUSY = NetdevTx.OK, NetdevTx.BUSY  # for hot paths: a global is cheaper than an enum's member


class NetdevEvent(enum.IntEnum):
    """Notifier chain events (linux/netdevice.h numbers)."""

    UP = 1
    DOWN = 2
    CHANGE = 4  # carrier
    REGISTER = 5
    UNREGISTER = 6
    CHANGEMTU = 7
    CHANGEADDR = 8
    GOING_DOWN = 9
    CHANGENAME = 10


class NetdevError(OSError):
    """A device that cannot do what it was asked for; errno says why, as the kernel's return codes do."""


class NetpollHook(Protocol):
    """What the receive path sees of a device's netpoll clients: core.NetpollInfo."""

    irq_owner: int  # the CPU that is in the interrupt routine, or 0

    @property
    def rx_drop(self) -> bool:
        """True while netpoll's own poll is under way."""

    def netpoll_rx(self, skb: SkBuff) -> bool:
        """True if the frame was consumed."""

    def netpoll_rx_run(self, frames: Sequence[bytes], first: int) -> int:
        """How many frames from `first` on were consumed; the next goes to netpoll_rx()."""

    def netpoll_poll_lock(self) -> bool:
        """Claim the right to run this device's poll routine; False if another CPU has it."""

    def netpoll_poll_unlock(self) -> None:
        """Give it back."""

    def queue_woken(self, dev: NetDevice) -> None:
        """`dev` takes frames again: what netpoll_queue() holds can leave."""

    def operations_changed(self) -> None:
        """The device's operations are others from now on: what was made of them is made anew."""


class NetpollSender(Protocol):
    """What a device that stacks on others sees of the client that sends: core.Netpoll."""

    stats: NetpollStats
    late: Callable[[SkBuff], None] | None

    def send_skb(self, skb: SkBuff) -> int:
        """netpoll_send_skb() on skb.dev."""


Notifier = Callable[[NetdevEvent, "NetDevice"], None]
PacketHandler = Callable[[SkBuff], None]
QueueWatcher = Callable[["NetDevice", bool], None]  # is it stopped now; any context, xmit_lock may be held


class Net:
    """A network namespace of ours: its devices, who is told about them, who gets frames netpoll leaves.

    `ptype_all` are the protocol handlers: each sees every frame that was not consumed; the frame is freed
    after the last. `irq_sync(dev)` is set by the loop and called when a device's interrupt mask changes.
    `trapped` is netpoll's global counter (netpoll.c: trapped).
    """

    def __init__(self, context: Context | None = None) -> None:
        self.context = context or Context()
        self.devices: dict[str, NetDevice] = {}
        self.netdev_chain: list[Notifier] = []
        self.ptype_all: list[PacketHandler] = []
        self.queue_chain: list[QueueWatcher] = []
        self.irq_sync: Callable[[NetDevice], None] | None = None
        self.trapped = 0
        self.trap_lock = threading.Lock()
        self.era_recursion = False  # see send.py
        self.skb_pool = SkbPool()
        self.netdev_max_backlog = 300

    def dev_get_by_name(self, name: str) -> NetDevice | None:
        """The registered device of that name."""
        return self.devices.get(name)

    def call_netdevice_notifiers(self, event: NetdevEvent, dev: NetDevice) -> None:
        """Tell every listener, in order of registration."""
        for notifier in list(self.netdev_chain):
            notifier(event, dev)


class NetDevice:
    """Base class of every device. A driver overrides the operations; state is set by netif_* below.

    Operations (all but hard_start_xmit may be left as they are):
      open() / stop()          make ready / release; open() raises NetdevError
      hard_start_xmit(skb)     xmit_lock held, queue not stopped; returns NetdevTx
      doorbell()               only for a driver that reads `xmit_more`; it also rings when it stops the queue
      interrupt()              the interrupt routine: acknowledge, then netif_rx (non-NAPI: also clean TX)
                               or disable_irq + netif_rx_schedule (NAPI)
      poll(budget)             NAPI, `weight` > 0: receive at most `budget` frames and clean TX; if fewer
                               were there: netif_rx_complete, enable_irq; returns how many
      poll_controller()        netpoll's door: runs the interrupt routine with interrupts unable to race
      irq_fds()                (fd, EPOLL* events) pairs whose readiness is this device's interrupt
    """

    weight = 0  # NAPI drivers set their own; 0 means poll() is not there, as dev->poll == NULL
    type = ARPHRD_ETHER
    supports_netpoll = True  # False: no poll_controller, netpoll_setup() refuses

    def __init__(self, net: Net, name: str, dev_addr: bytes = bytes(6), mtu: int = 1500) -> None:
        self.net = net
        self.ctx = net.context
        self.name = name
        self.dev_addr = dev_addr
        self.mtu = mtu
        self.flags = IFF_BROADCAST | IFF_MULTICAST
        self.features = 0  # NETIF_F_ bits
        self.needed_headroom = 0  # octets before each frame of a run, an even number
        self.present = True
        self.running = False  # netif_running(): opened and not stopped
        self.carrier = True
        self.xoff = False  # __LINK_STATE_XOFF
        self.rx_sched = False  # __LINK_STATE_RX_SCHED
        self.irq_masked = False
        self.irq_lock = threading.Lock()  # one interrupt routine at a time, and not inside itself
        self.poll_list: deque[NetDevice] = deque()  # the CPU's list that it is or was on
        self.xmit_lock: LockLike = threading.Lock()
        self.xmit_lock_owner = 0  # smp_processor_id() or 0
        self.xmit_more = False  # netdev_xmit_more(): another frame follows at once, the doorbell can wait
        self.npinfo: NetpollHook | None = None
        self.netpoll_start_xmit: Callable[[NetpollSender, SkBuff], NetdevTx] | None = None
        self.master: NetDevice | None = None
        self.addresses: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = []
        self.stats: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def open(self) -> None:
        """Make the device ready to send and receive; raises NetdevError."""
        netif_start_queue(self)

    def stop(self) -> None:
        """Release what open() took; nothing is sent or received after."""
        netif_stop_queue(self)

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """Hand one frame to the hardware; see NetdevTx for who owns it afterwards."""
        raise NotImplementedError

    def xmit_many(self, frames: Sequence[bytes]) -> int:
        """hard_start_xmit() for several frames and one doorbell: as many as there is room for; how many these are. Same rules."""
        raise NotImplementedError

    def xmit_run(self, run: FrameRun) -> int:
        """xmit_many() for frames of one length, made in one piece with `needed_headroom` octets before each."""
        raise NotImplementedError

    def direct_tx(self) -> DirectTx | None:
        """For direct.py: the ring that it may write frames into; None: hard_start_xmit() for each."""
        return None

    def doorbell(self) -> None:
        """Tell the hardware of frames that hard_start_xmit() took while `xmit_more` was set."""

    def interrupt(self) -> None:
        """The interrupt routine, in hardirq context or called by poll_controller()."""

    def poll_controller(self) -> None:
        """Run the interrupt routine whatever the state of the machine (slides: tg3_poll_controller)."""
        self.interrupt()

    def poll(self, budget: int) -> int:
        """NAPI's poll routine; never called if `weight` is 0."""
        raise NotImplementedError

    def irq_fds(self) -> Sequence[tuple[int, int]]:
        """Descriptors to wait on, with their epoll event masks; empty for a device without any."""
        return ()

    def inet_select_addr(self, remote: IPAddress) -> IPAddress | None:
        """The local address to speak to `remote` from: its version; link-local only to link-local (v6)."""
        for interface in self.addresses:
            if interface.version == 4 and remote.version == 4:
                return interface.ip
            if interface.version == 6 and interface.is_link_local == remote.is_link_local:
                return interface.ip
        return None

    def skb_bond(self, slave: NetDevice, skb: SkBuff) -> bool:  # noqa: ARG002  # overriders look at it
        """Called on a master for each frame its slave received; False drops the frame. Sets skb.dev."""
        skb.dev = self
        return True

    @property
    def operstate(self) -> str:
        """RFC 2863 state in sysfs's words."""
        if not self.present:
            return "notpresent"
        return "up" if self.running and self.carrier else "down"


def dev_valid_name(name: str) -> bool:
    """net/core/dev.c: fewer than IFNAMSIZ octets, not a folder's name, nothing that a shell or sysfs stumbles over."""
    try:
        octets = name.encode()
    except UnicodeEncodeError:
        return False
    strange = any(c.isspace() or c in "/:\0" for c in name)
    return 0 < len(octets) < IFNAMSIZ and name not in (".", "..") and not strange


def register_netdev(dev: NetDevice) -> None:
    """Make `dev` known by its name; raises NetdevError (EEXIST, EINVAL)."""
    devices = dev.net.devices
    if not dev_valid_name(dev.name):
        raise NetdevError(errno.EINVAL, f"{dev.name!r} is not a device name")
    if dev.name in devices:
        raise NetdevError(errno.EEXIST, f"a device {dev.name!r} is registered already")
    devices[dev.name] = dev
    dev.net.call_netdevice_notifiers(NetdevEvent.REGISTER, dev)


def unregister_netdev(dev: NetDevice) -> None:
    """Close `dev`, tell everybody, forget it. Doing it twice does no harm."""
    devices = dev.net.devices
    if devices.get(dev.name) is not dev:
        return
    dev_close(dev)
    dev.present = False
    dev.net.call_netdevice_notifiers(NetdevEvent.UNREGISTER, dev)
    del devices[dev.name]


def dev_open(dev: NetDevice) -> None:
    """Bring `dev` up (IFF_UP); no effect on one that is; raises NetdevError."""
    dev.ctx.might_sleep("dev_open")
    if dev.running:
        return
    if not dev.present:
        raise NetdevError(errno.ENODEV, f"{dev.name}: no such device any more")
    dev.running = True
    try:
        dev.open()
    except BaseException:
        dev.running = False
        raise
    dev.flags |= IFF_UP
    dev.net.call_netdevice_notifiers(NetdevEvent.UP, dev)


def dev_close(dev: NetDevice) -> None:
    """Take `dev` down, once no other CPU is in its driver any more; no effect on one that is down."""
    dev.ctx.might_sleep("dev_close")
    if not dev.flags & IFF_UP:
        return
    dev.net.call_netdevice_notifiers(NetdevEvent.GOING_DOWN, dev)
    dev.running = False
    dev.flags &= ~IFF_UP
    if dev.ctx.may_sleep():
        _quiesce(dev)
    dev.stop()
    dev.net.call_netdevice_notifiers(NetdevEvent.DOWN, dev)


def _quiesce(dev: NetDevice) -> None:
    """netif_tx_disable() and netif_poll_disable(): wait for other CPUs, each CLOSE_PATIENCE at most (they may be dead)."""
    if netif_tx_lock(dev, CLOSE_PATIENCE):
        netif_stop_queue(dev)
        netif_tx_unlock(dev)
    if dev.irq_lock.acquire(timeout=CLOSE_PATIENCE):
        dev.irq_lock.release()
    if dev.npinfo is not None and dev.npinfo.netpoll_poll_lock():
        dev.npinfo.netpoll_poll_unlock()
    for _ in range(round(CLOSE_PATIENCE * 1000)):
        if not dev.rx_sched or dev.poll_list is dev.ctx.cpu().poll_list:
            break
        dev.ctx.delay(0.001)


def netif_tx_lock(dev: NetDevice, timeout: float) -> bool:
    """Take xmit_lock as its owner; False if this CPU has it already, or another keeps it for `timeout` seconds."""
    me = smp_processor_id()
    if dev.xmit_lock_owner == me or not dev.xmit_lock.acquire(timeout=timeout):
        return False
    dev.xmit_lock_owner = me
    return True


def netif_tx_unlock(dev: NetDevice) -> None:
    """Give it back."""
    dev.xmit_lock_owner = 0
    dev.xmit_lock.release()


def dev_change_name(dev: NetDevice, name: str) -> None:
    """Follow a device that was renamed below us; listeners hear of it, clients follow."""
    devices = dev.net.devices
    if devices.get(dev.name) is dev:
        del devices[dev.name]
        devices[name] = dev
    dev.name = name
    dev.net.call_netdevice_notifiers(NetdevEvent.CHANGENAME, dev)


def netif_device_detach(dev: NetDevice) -> None:
    """The hardware vanished (hot unplug, link deleted): nothing more runs on `dev`; any context.

    unregister_netdev() follows in process context, since it tells listeners and may wait.
    """
    if dev.present:
        dev.present = False
        dev.running = False
        dev.xoff = True
        dev.ctx.schedule_work(functools.partial(unregister_netdev, dev))


def netif_start_queue(dev: NetDevice) -> None:
    """Allow transmission, without telling anybody (open())."""
    dev.xoff = False


def netif_stop_queue(dev: NetDevice) -> None:
    """No more frames until netif_wake_queue(): descriptors ran out, the link went, the driver unloads."""
    was, dev.xoff = dev.xoff, True
    if not was:
        dev.stats["tx_stopped"] += 1
        for watcher in dev.net.queue_chain:
            watcher(dev, True)


def netif_wake_queue(dev: NetDevice) -> None:
    """Descriptors are back, or the link; whoever waits for this queue in process context is told."""
    if dev.xoff:
        dev.xoff = False
        dev.stats["tx_woken"] += 1
        for watcher in dev.net.queue_chain:
            watcher(dev, False)
        if dev.npinfo is not None:
            dev.npinfo.queue_woken(dev)


def netif_queue_stopped(dev: NetDevice) -> bool:
    """True if hard_start_xmit() may not be called now."""
    return dev.xoff


def netif_running(dev: NetDevice) -> bool:
    """True between dev_open() and dev_close()."""
    return dev.running


def netif_carrier_ok(dev: NetDevice) -> bool:
    """True if there is a link."""
    return dev.carrier


def netif_carrier_on(dev: NetDevice) -> None:
    """The link came; listeners hear of it once. The driver wakes its queue itself."""
    if not dev.carrier:
        dev.carrier = True
        dev.net.call_netdevice_notifiers(NetdevEvent.CHANGE, dev)


def netif_carrier_off(dev: NetDevice) -> None:
    """The link went; listeners hear of it once. The driver stops its queue itself."""
    if dev.carrier:
        dev.carrier = False
        dev.net.call_netdevice_notifiers(NetdevEvent.CHANGE, dev)
