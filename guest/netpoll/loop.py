"""The event loop: interrupts when descriptors are ready, softirqs after them, then process context.

In: devices registered in a Net; wake() from any thread. Out: do_irq(), net_rx_action(), the netpoll_queue
worker, timers - in the order in which a CPU would run them. The one rule: it waits in epoll for a
descriptor, a timer or the deadline, and nowhere else.

The thread that runs the loop is one CPU. Other threads may send, poll and set up meanwhile; softirqs that
they leave behind are run by them, work that they schedule by the loop.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from types import TracebackType

from guest.netpoll.context import ContextError
from guest.netpoll.napi import do_irq, do_softirq
from guest.netpoll.netdevice import Net, NetdevEvent, NetDevice


class LoopTimeout(TimeoutError):
    """What was awaited did not come before the deadline."""


class Loop:
    """Use as a context manager; one loop for each Net. Devices are followed as they come, open and go."""

    def __init__(self, net: Net) -> None:
        if net.irq_sync is not None:
            raise ContextError("this Net has a loop already")
        self.net = net
        self.ctx = net.context
        self._epoll = select.epoll()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._owner: dict[int, NetDevice] = {}
        self._watched: dict[NetDevice, dict[int, int]] = {}
        self._stopped = False
        self._lock = threading.Lock()
        self._epoll.register(self._wakeup, select.EPOLLIN)
        net.irq_sync = self.irq_sync
        net.netdev_chain.append(self._netdev_event)
        self.ctx.on_work = self.wake
        for dev in net.devices.values():
            self.irq_sync(dev)

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop following devices and release the descriptors of the loop (not those of the devices)."""
        if self._epoll.closed:
            return
        self.net.irq_sync = None
        self.net.netdev_chain.remove(self._netdev_event)
        self.ctx.on_work = None
        self._epoll.close()
        os.close(self._wakeup)

    def wake(self) -> None:
        """Have run_once() return soon; from any thread and any context."""
        if not self._epoll.closed:
            os.eventfd_write(self._wakeup, 1)

    def wake_on(self, fd: int) -> None:
        """Have run_once() return, once, when `fd` can be read or has ended; to be asked for again each time."""
        events = select.EPOLLIN | select.EPOLLONESHOT
        try:
            self._epoll.modify(fd, events)
        except FileNotFoundError:
            self._epoll.register(fd, events)

    def stop(self) -> None:
        """Have run() return; from any thread."""
        self._stopped = True
        self.wake()

    def irq_sync(self, dev: NetDevice) -> None:
        """Wait for exactly the descriptors that `dev` interrupts with: none while masked or down. Any thread."""
        with self._lock:
            self._sync(dev)

    def _sync(self, dev: NetDevice) -> None:
        wanted = {} if dev.irq_masked or not dev.running else dict(dev.irq_fds())
        watched = self._watched.get(dev, {})
        if wanted == watched:
            return
        for fd in watched.keys() - wanted.keys():
            self._forget(fd)
        for fd, events in wanted.items():
            if fd not in watched:
                self._epoll.register(fd, events)
                self._owner[fd] = dev
            elif watched[fd] != events:
                self._epoll.modify(fd, events)
        self._watched[dev] = wanted

    def _forget(self, fd: int) -> None:
        self._owner.pop(fd, None)
        with contextlib.suppress(OSError):  # closed already: the kernel forgot it by itself
            self._epoll.unregister(fd)

    def _netdev_event(self, event: NetdevEvent, dev: NetDevice) -> None:
        if event in (NetdevEvent.UP, NetdevEvent.GOING_DOWN):
            with self._lock:
                for fd in self._watched.pop(dev, {}):
                    self._forget(fd)
        if event is NetdevEvent.UP:
            self.irq_sync(dev)

    def run_once(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds (None: for ever) and serve what came; True if anything did.

        Raises ContextError after a crash: then nobody serves interrupts, and netpoll_poll() is left.
        """
        if self.ctx.crashed:
            raise ContextError("the event loop does not run after a crash; use netpoll_poll()")
        busy = self._process_context()
        ready = self._epoll.poll(self._patience(timeout, busy))
        for dev in {self._owner[fd] for fd, _ in ready if fd in self._owner}:
            do_irq(dev)
        if any(fd == self._wakeup for fd, _ in ready):
            os.eventfd_read(self._wakeup)
        busy |= self._process_context()  # an interrupt has its softirq behind it: timers are between that and the next
        do_softirq(self.ctx)
        return self._process_context() or busy or bool(ready)

    def _patience(self, timeout: float | None, busy: bool) -> float:
        """Seconds to wait in epoll: none with softirqs pending, else until a timer or the caller's limit."""
        if busy or self.ctx.cpu().softirq_pending or self.ctx.work:
            return 0
        limits = [limit for limit in (timeout, self.ctx.run_timers()) if limit is not None]
        return max(0.0, min(limits)) if limits else -1

    def _process_context(self) -> bool:
        """Timers and work that are due; True if there was any."""
        if self.ctx.crashed:
            return False
        self.ctx.run_timers()
        return self.ctx.run_work() > 0 if self.ctx.work else False

    def run(self) -> None:
        """Serve until stop()."""
        self._stopped = False
        while not self._stopped:
            self.run_once()

    def run_until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Serve until `condition()` holds; raises LoopTimeout naming `what` after `timeout` seconds."""
        deadline = self.ctx.clock() + timeout
        while not condition():
            left = deadline - self.ctx.clock()
            if left <= 0:
                raise LoopTimeout(f"{what}: not within {timeout:g} s")
            self.run_once(left)

    def run_for(self, seconds: float) -> None:
        """Serve for that long."""
        deadline = self.ctx.clock() + seconds
        while (left := deadline - self.ctx.clock()) > 0:
            self.run_once(left)
