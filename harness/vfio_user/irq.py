"""Interrupts of a PCI device: eventfds that the client binds, and the level of INTx.

In: DEVICE_SET_IRQS, checked by the session; `trigger` and `level` from the device. Out: writes to eventfds. Rule: a write never
blocks and never fails loudly; an interrupt that nobody is bound to is remembered only where PCI would (INTx is a level).

INTx is automasked: once told, it is masked until the client unmasks it, and told again then if the device still asserts it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Mapping

from harness.vfio_user.errors import Refused
from harness.vfio_user.session import IrqSet
from harness.vfio_user.wire import Irq, IrqFlags, SetIrqs

_INTX = (Irq.INTX, 0)
FLAGS: Mapping[int, int] = {
    Irq.INTX: IrqFlags.EVENTFD | IrqFlags.MASKABLE | IrqFlags.AUTOMASKED,
    Irq.MSI: IrqFlags.EVENTFD | IrqFlags.NORESIZE,
    Irq.MSIX: IrqFlags.EVENTFD | IrqFlags.NORESIZE,
    Irq.ERR: IrqFlags.EVENTFD | IrqFlags.NORESIZE,
    Irq.REQ: IrqFlags.EVENTFD | IrqFlags.NORESIZE,
}


class Interrupts:
    """`counts`: how many interrupts of each kind there are. `disabled`: whether config space says that INTx stays quiet."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self._counts = counts
        self._bound: dict[tuple[int, int], int] = {}
        self.asserted = False
        self._masked = False
        self.disabled: Callable[[], bool] = lambda: False
        self.triggered = 0  # interrupts that reached an eventfd
        self.told: Callable[[], None] = lambda: None  # called after each

    def info(self, index: int) -> tuple[int, int]:
        return self._counts.get(index, 0), FLAGS[index]

    def bound(self, index: int, vector: int = 0) -> bool:
        """Whether somebody would hear it: for MSI, whether the guest has enabled it."""
        return (index, vector) in self._bound

    def set(self, request: IrqSet, fds: list[int]) -> None:
        """Apply a checked request; takes the descriptors it keeps out of `fds`. Raises Refused."""
        vectors = [(request.index, request.start + n) for n in range(request.count)]
        if request.count == 0:
            self._unbind([key for key in self._bound if key[0] == request.index])
        elif request.flags.data == SetIrqs.DATA_EVENTFD:
            self._bind(request, vectors, fds)
        else:
            chosen = [key for n, key in enumerate(vectors) if not request.data or request.data[n]]
            self._act(request.flags.action, chosen)

    def _bind(self, request: IrqSet, vectors: list[tuple[int, int]], fds: list[int]) -> None:
        if request.flags.action != SetIrqs.ACTION_TRIGGER:
            raise Refused(errno.EOPNOTSUPP, "an eventfd that masks")
        for fd in fds:
            _check_eventfd(fd)
        self._unbind(vectors)
        self._bound.update(zip(vectors, fds, strict=False))
        fds.clear()
        if _INTX in vectors:
            self._masked = False
            self.tell_level()

    def _act(self, action: SetIrqs, vectors: list[tuple[int, int]]) -> None:
        if action == SetIrqs.ACTION_TRIGGER:
            for key in vectors:
                self.trigger(*key)
            return
        if any(key != _INTX for key in vectors):
            raise Refused(errno.EINVAL, "only INTx can be masked")
        if vectors:
            self._masked = action == SetIrqs.ACTION_MASK
            self.tell_level()

    def trigger(self, index: int, vector: int = 0) -> bool:
        """Tell the client of one edge; False if nobody is bound."""
        fd = self._bound.get((index, vector))
        if fd is None:
            return False
        with contextlib.suppress(OSError):  # a full counter is an interrupt that is pending anyway
            os.write(fd, b"\1\0\0\0\0\0\0\0")
        self.triggered += 1
        self.told()
        return True

    def level(self, asserted: bool) -> None:
        """Drive INTx."""
        self.asserted = asserted
        self.tell_level()

    def tell_level(self) -> None:
        """Tell of INTx if the device asserts it and nobody has told it to be quiet."""
        if self.asserted and not self._masked and not self.disabled() and self.trigger(*_INTX):
            self._masked = True

    def _unbind(self, keys: list[tuple[int, int]]) -> None:
        for key in keys:
            if (fd := self._bound.pop(key, None)) is not None:
                os.close(fd)

    def close(self) -> None:
        """Forget all clients and levels: the connection is gone."""
        self._unbind(list(self._bound))
        self.asserted = self._masked = False


def _check_eventfd(fd: int) -> None:
    """Anything else could block us or end us; a blocking eventfd is made one that does not."""
    if os.readlink(f"/proc/self/fd/{fd}") != "anon_inode:[eventfd]":
        raise Refused(errno.EINVAL, "the descriptor is no eventfd")
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
