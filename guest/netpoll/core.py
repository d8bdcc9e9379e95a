"""struct netpoll, its setup and its cleanup.

In: a description of one connection (a device by name, addresses, ports, hooks) and the devices of a Net.
Out: a client that netpoll_send_udp() and netpoll_rx() serve. The one rule: the fields of a Netpoll are
its owner's until netpoll_setup() and fixed from there to netpoll_cleanup().

Many clients may share a device, receiving ones too (the slides' TODO page; the kernel kept one rx_np):
each frame is offered to every client with an rx_hook, and is consumed if it matched any.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import select
import threading
from collections import deque
from collections.abc import Callable

from guest.netpoll import rx, rx_run
from guest.netpoll.context import smp_processor_id
from guest.netpoll.direct import DirectXmit, direct_xmit
from guest.netpoll.errors import CarrierTimeout, SetupError
from guest.netpoll.frame import Builder, Endpoints, FrameV4, FrameV6, GsoBuilder, ManyBuilder, RunBuilder, make_frame
from guest.netpoll.napi import do_irq
from guest.netpoll.netdevice import (
    IPAddress,
    Net,
    NetdevError,
    NetdevEvent,
    NetDevice,
    dev_open,
    netif_tx_lock,
    netif_tx_unlock,
)
from guest.netpoll.send import MAX_RETRIES, USEC_PER_POLL, netpoll_send_skb
from guest.netpoll.skbuff import DropReason, SkbPool, SkBuff
from guest.netpoll.stats import NetpollStats
from guest.netpoll.txq import MAX_QUEUE_DEPTH, RETRY_DELAY, flush, lose, netpoll_queue
from guest.netpoll.wire.ethernet import BROADCAST, ETH_P_IP

log = logging.getLogger("netpoll")

CARRIER_TIMEOUT = 4.0  # seconds: netpoll_setup() in 2.6.12
RxHook = Callable[["Netpoll", int, bytes], None]
DropRoutine = Callable[[SkBuff], None]


class Netpoll:
    """One netpoll client: one connection. Presets are netconsole's; see options.py for the string form.

    `rx_hook(np, source_port, data)` gets each payload for us; `np.rx_skb` is the frame while it runs.
    `drop(skb)` gets, and owns, each skb that could not be sent, skb.drop_reason saying why. Both may be
    called in any context, inside a send too, and must not wait. `late(skb)`, if set, is told of each
    queued skb that the driver has taken after all (xmit_lock is held; the skb is the driver's already).
    """

    __slots__ = (
        "dev", "dev_name", "direct", "drop", "frame", "frames", "gso_frame", "header_len", "late", "local_ip", "local_mac", "local_port", "mac_given",
        "max_payload", "name", "net", "partial_frames", "pool", "protocol", "remote_ip", "remote_mac", "remote_port", "run", "rx_hook",
        "rx_match", "rx_skb", "spare", "stats", "template",
    )  # fmt: skip

    def __init__(
        self,
        net: Net,
        name: str = "netpoll",
        *,
        rx_hook: RxHook | None = None,
        drop: DropRoutine | None = None,
        dev_name: str = "eth0",
        local_ip: IPAddress | None = None,
        remote_ip: IPAddress | None = None,
        local_port: int = 6665,
        remote_port: int = 6666,
        local_mac: bytes | None = None,
        remote_mac: bytes = BROADCAST,
    ) -> None:
        self.net = net
        self.name = name
        self.rx_hook = rx_hook
        self.drop = drop
        self.dev_name = dev_name
        self.local_ip = local_ip
        self.remote_ip = remote_ip
        self.local_port = local_port
        self.remote_port = remote_port
        self.late: Callable[[SkBuff], None] | None = None
        self.mac_given = local_mac is not None
        self.local_mac = local_mac or bytes(6)
        self.remote_mac = remote_mac
        self.dev: NetDevice | None = None
        self.stats = NetpollStats()
        self.pool: SkbPool = net.skb_pool
        self.direct: DirectXmit | None = None
        self.template: FrameV4 | FrameV6 | None = None
        self.frame: Builder | None = None
        self.frames: ManyBuilder | None = None
        self.partial_frames: ManyBuilder | None = None
        self.run: RunBuilder | None = None
        self.gso_frame: GsoBuilder | None = None
        self.protocol = ETH_P_IP
        self.header_len = 0
        self.max_payload = 0
        self.rx_match: tuple[bytes, bytes | None] = (b"", None)
        self.rx_skb: SkBuff | None = None
        self.spare: list[SkBuff] = []  # freed by drivers, for the next messages

    def __repr__(self) -> str:
        ends = f"{self.local_port}@{self.local_ip}/{self.dev_name},{self.remote_port}@{self.remote_ip}"
        return f"<Netpoll {self.name} {ends}/{self.remote_mac.hex(':')}>"

    def send_skb(self, skb: SkBuff) -> int:
        """netpoll_send_skb(), for devices that stack on others (bonding) and know only this object."""
        return netpoll_send_skb(self, skb)

    def prepare(self, dev: NetDevice, local: IPAddress, remote: IPAddress) -> None:
        """Compute what the hot paths need from the fields: header templates, limits, match keys."""
        if not self.mac_given:
            self.local_mac = dev.dev_addr
        ends = (self.local_mac, self.remote_mac, local, remote, self.local_port, self.remote_port)
        template = self.template = make_frame(Endpoints(*ends))
        self.spare = []
        self.frame = template.build
        self.frames = template.build_many
        self.partial_frames = template.build_partial
        self.run = template.build_run
        self.gso_frame = template.build_gso
        self.protocol = template.protocol
        self.header_len = template.header_len
        self.max_payload = min(dev.mtu, 65535) - (template.header_len - 14)
        self.rx_match = (local.packed, None if remote.is_unspecified else remote.packed)
        if self.dev is dev and isinstance(dev.npinfo, NetpollInfo):  # set up already: its ends have changed
            self.direct = direct_xmit(self, dev, dev.npinfo)


class NetpollInfo:
    """struct netpoll_info: what the clients of one device share."""

    def __init__(self, dev: NetDevice) -> None:
        self.dev = dev
        self.net = dev.net
        self.clients: list[Netpoll] = []
        self.rx_np: tuple[Netpoll, ...] = ()  # replaced, never changed: readers take no lock
        self.flows: dict[bytes, rx.Flow] = {}  # which of them want what, as far as it was met
        self.rx_drop = False
        self.poll_lock = threading.Lock()
        self.poll_owner = 0
        self.irq_owner = 0
        self.max_retries = MAX_RETRIES
        self.tries = MAX_RETRIES
        self.usec_per_poll = USEC_PER_POLL
        self.txq: deque[SkBuff] = deque()
        self.queue_depth = MAX_QUEUE_DEPTH
        self.responder = Netpoll(dev.net, "responder", drop=netpoll_queue)
        dev.net.netdev_chain.append(self.netdev_event)

    netpoll_rx = rx.netpoll_rx
    netpoll_rx_run = rx_run.netpoll_rx_run

    def polled_by(self, cpu: int) -> bool:
        """True if `cpu` is in the poll or interrupt routine of the device, or of a slave of it.

        To poll again would be recursion.
        """
        if cpu in (self.poll_owner, self.irq_owner):
            return True
        slaves = (dev.npinfo for dev in self.net.devices.values() if dev.master is self.dev)
        return any(isinstance(npinfo, NetpollInfo) and npinfo.polled_by(cpu) for npinfo in slaves)

    def netpoll_poll_lock(self) -> bool:
        """For net_rx_action(): wait for poll_lock, but not for a CPU that died with it."""
        if self.poll_owner == smp_processor_id() or not self.poll_lock.acquire(timeout=0.05):
            return False
        self.poll_owner = smp_processor_id()
        return True

    def netpoll_poll_unlock(self) -> None:
        """Owner first, then the lock (2.6.12 had it the other way round, and raced)."""
        self.poll_owner = 0
        self.poll_lock.release()

    def queue_woken(self, _dev: NetDevice) -> None:
        """netif_wake_queue(): have the worker send what is queued."""
        if self.txq:
            self.dev.ctx.schedule_work(self.queue_process)

    def queue_process(self) -> None:
        """The worker, in process context: send what can be sent, come again for the rest."""
        dev = self.dev
        if not self.txq:
            return
        if netif_tx_lock(dev, RETRY_DELAY):
            try:
                flush(self)
            finally:
                netif_tx_unlock(dev)
        if self.txq and dev.present:
            dev.ctx.call_later(RETRY_DELAY, self.queue_process)

    def netdev_event(self, event: NetdevEvent, dev: NetDevice) -> None:
        """Follow the device: new MTU or address, or it goes away and its clients with it."""
        if dev is not self.dev:
            return
        if event is NetdevEvent.UNREGISTER:
            for np in list(self.clients):
                netpoll_cleanup(np)
        elif event is NetdevEvent.CHANGENAME:
            for np in self.clients:
                np.dev_name = dev.name
        elif event in (NetdevEvent.CHANGEMTU, NetdevEvent.CHANGEADDR):
            for np in self.clients:
                if np.local_ip is not None and np.remote_ip is not None:
                    np.prepare(dev, np.local_ip, np.remote_ip)

    def operations_changed(self) -> None:
        """Somebody has put himself around the device's operations, or is gone."""
        for np in self.clients:
            np.direct = direct_xmit(np, self.dev, self)

    def slave_enable_netpoll(self, dev: NetDevice, drop: DropRoutine, tries: int) -> Netpoll:
        """A client for a slave of this device (bonding.c: slave_enable_netpoll), with `tries` retries of its own."""
        np = Netpoll(dev.net, dev.name, drop=drop, dev_name=dev.name)
        npinfo = NetpollInfo(dev)
        npinfo.max_retries = npinfo.tries = tries
        npinfo.attach(np)
        np.dev, dev.npinfo = dev, npinfo
        return np

    def slave_disable_netpoll(self, np: Netpoll) -> None:
        """The slave leaves, or the last client of this device goes."""
        netpoll_cleanup(np)

    def set_receivers(self, clients: tuple[Netpoll, ...]) -> None:
        """Publish a new set. Who reads `flows` before `rx_np` can never note an old client in the new flows."""
        self.rx_np = clients
        self.flows = {}

    def attach(self, np: Netpoll) -> None:
        """Add a client; its hook sees frames from here on."""
        self.clients.append(np)
        if np.rx_hook is not None:
            self.set_receivers((*self.rx_np, np))

    def detach(self, np: Netpoll) -> None:
        """Remove a client, lose what it has queued; the last one takes this object along."""
        self.clients.remove(np)
        self.set_receivers(tuple(other for other in self.rx_np if other is not np))
        for skb in [skb for skb in self.txq if skb.np is np]:
            with contextlib.suppress(ValueError):  # another CPU has just sent it
                self.txq.remove(skb)
                lose(skb, DropReason.FLUSHED)
        if not self.clients:
            self.dev.npinfo = None
            self.net.netdev_chain.remove(self.netdev_event)


def netpoll_setup(np: Netpoll, *, require_carrier: bool = False, timeout: float = CARRIER_TIMEOUT) -> None:
    """Bind `np` to its device; raises SetupError, `np` then being as it was.

    A device that is down is brought up and given `timeout` seconds for its carrier; if that does not come
    it is logged - or raised, with `require_carrier`. A local address that is not set is the device's.
    """
    np.net.context.might_sleep("netpoll_setup")
    if np.dev is not None:
        raise SetupError(errno.EBUSY, f"{np.name}: set up already, on {np.dev.name}")
    dev = _find_device(np)
    remote = np.remote_ip or ipaddress.IPv4Address(0)
    _bring_up(dev, timeout, require_carrier)
    given = None if np.local_ip is None or np.local_ip.is_unspecified else np.local_ip
    local = given or dev.inet_select_addr(remote)
    if local is None:
        raise SetupError(errno.EADDRNOTAVAIL, f"{dev.name}: no IPv{remote.version} address, none was given")
    if local.version != remote.version:
        raise SetupError(errno.EAFNOSUPPORT, f"{np.name}: {local} and {remote} are not of one family")
    np.local_ip, np.remote_ip = local, remote
    np.prepare(dev, local, remote)
    np.pool.refill_skbs()
    npinfo = dev.npinfo if isinstance(dev.npinfo, NetpollInfo) else NetpollInfo(dev)
    npinfo.attach(np)
    np.dev = dev
    dev.npinfo = npinfo
    np.direct = direct_xmit(np, dev, npinfo)


def _find_device(np: Netpoll) -> NetDevice:
    dev = np.net.dev_get_by_name(np.dev_name)
    if dev is None:
        raise SetupError(errno.ENODEV, f"{np.name}: {np.dev_name} doesn't exist")
    if not dev.supports_netpoll:
        raise SetupError(errno.EOPNOTSUPP, f"{np.name}: {dev.name} doesn't support polling")
    if dev.master is not None:
        raise SetupError(errno.EBUSY, f"{np.name}: {dev.name} is a slave of {dev.master.name}")
    return dev


def _bring_up(dev: NetDevice, timeout: float, require_carrier: bool) -> None:
    """dev_open() and the wait for carrier; on a device that runs already only a demanded carrier is waited for."""
    was_running = dev.running
    try:
        dev_open(dev)
    except NetdevError as error:
        raise SetupError(error.errno or errno.EIO, f"failed to open {dev.name}: {error.strerror}") from error
    if was_running and not require_carrier:
        return
    if not wait_for_carrier(dev, timeout):
        if not dev.running:
            raise SetupError(errno.ENODEV, f"{dev.name} went away before its carrier came")
        if require_carrier:
            raise CarrierTimeout(dev.name, timeout)
        log.warning("%s: no carrier after %g s, going on without", dev.name, timeout)


def wait_for_carrier(dev: NetDevice, timeout: float) -> bool:
    """Serve the device's interrupts until it has carrier; False if that took more than `timeout` seconds."""
    ctx = dev.ctx
    deadline = ctx.clock() + timeout
    while dev.running and not dev.carrier:
        left = deadline - ctx.clock()
        if left <= 0:
            return False
        _wait_for_interrupt(dev, left)
        do_irq(dev)
    return dev.running and dev.carrier


def _wait_for_interrupt(dev: NetDevice, seconds: float) -> None:
    fds = dev.irq_fds()
    if not fds:
        dev.ctx.delay(min(seconds, 0.001))
        return
    poller = select.poll()
    for fd, events in fds:
        poller.register(fd, events)
    poller.poll(seconds * 1000)


def netpoll_cleanup(np: Netpoll) -> None:
    """Unbind `np`: no hook is called after, what it has queued is lost (and counted). Twice does no harm.

    Returns once no other CPU is in the device's poll routine - unless called from inside that, or a CPU
    never leaves it.
    """
    np.net.context.might_sleep("netpoll_cleanup")
    dev, np.dev, np.direct = np.dev, None, None
    if dev is None or not isinstance(dev.npinfo, NetpollInfo):
        return
    npinfo = dev.npinfo
    npinfo.detach(np)
    if npinfo.poll_owner != smp_processor_id() and npinfo.poll_lock.acquire(timeout=1.0):
        npinfo.poll_lock.release()
