"""Status block, coalescing and interrupts.

In: consumers and producers that the engines moved, link changes, the interrupt mailbox. Out: stores into the status block in guest
memory and interrupts. Rule: indices first, status next, the tag last, each in one store, then the interrupt: a guest that sees a tag
sees everything the tag stands for.

One-shot interrupts with tagged status: writing 0 to the mailbox arms, an interrupt disarms; the tag in the mailbox's top byte says up
to where the driver has looked, and if that is not the newest, the interrupt comes at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from guest.netpoll.layout.bcm5787 import HostccMode, MacStatus, MiscHostCtrl, Reg, Status, StatusBlock
from harness.nic.bus import Bus
from harness.nic.faults import Faults
from harness.vfio_user.errors import DmaFault

_ENABLE, _LINK, _MASKED = int(HostccMode.ENABLE), int(MacStatus.LNKSTATE_CHANGED), int(MiscHostCtrl.MASK_PCI_INT)
_UPDATED, _UPDATED_LINK = int(Status.UPDATED), int(Status.UPDATED | Status.LINK_CHG)
# Plain numbers: to look a member of an enum up costs as much as to use it.
_TX_FRAMES, _RX_FRAMES = int(Reg.HOSTCC_TXMAX_FRAMES) >> 2, int(Reg.HOSTCC_RXMAX_FRAMES) >> 2
_TX_TICKS, _RX_TICKS = int(Reg.HOSTCC_TXCOL_TICKS) >> 2, int(Reg.HOSTCC_RXCOL_TICKS) >> 2
_HIGH, _LOW = int(Reg.HOSTCC_STATUS_BLK_HOST_ADDR_HIGH) >> 2, int(Reg.HOSTCC_STATUS_BLK_HOST_ADDR_LOW) >> 2
_MODE, _CONTROL = int(Reg.HOSTCC_MODE) >> 2, int(Reg.TG3PCI_MISC_HOST_CTRL) >> 2
_MAC_STATUS, _MAC_EVENT = int(Reg.MAC_STATUS) >> 2, int(Reg.MAC_EVENT) >> 2
_AT_STATUS, _AT_TAG, _AT_TX = int(StatusBlock.STATUS), int(StatusBlock.TAG), int(StatusBlock.TX_CONSUMER)
_AT_RX, _AT_STD = int(StatusBlock.RX_PRODUCER), int(StatusBlock.RX_STD_CONSUMER)
_NEVER = float("inf")
STREAM = 500e-6  # seconds that a sender who goes on sending is told of nothing unless it has asked for it by frames
PROMPT = 200e-6  # seconds: a delay of received frames up to this is over by the time we have done a burst


class HostCoalescing:
    """`values()`: the register file. `tell(name)` counts for the evidence."""

    def __init__(self, values: Callable[[], array[int]], bus: Bus, faults: Faults, tell: Callable[[str], None]) -> None:
        self._values, self._bus, self._faults, self._tell = values, bus, faults, tell
        self.reset()

    def reset(self) -> None:
        self.tag = 0
        self.tx_consumer = self.rx_producer = self.rx_std_consumer = 0
        self._tx_written = 0  # what the status block says, which a fault may keep behind
        self._dirty_tx = self._dirty_rx = 0
        self._seen = 1  # sent frames when the timer was started
        self._waited = 0.0  # seconds that it has run since the status block was written
        self._armed = self._asserted = self._withheld = self._timer = False
        self._bus.intx(False)

    @property
    def asserted(self) -> bool:
        """Whether the interrupt pin is driven."""
        return self._asserted

    def due(self) -> int:
        """After how many more sent frames the status block is to be written, in the middle of a burst, too; less than 1: not by their number."""
        return self._values()[_TX_FRAMES] - self._dirty_tx

    def sent(self, frames: int) -> None:
        """So many frames were sent, at most as many as are `due`."""
        self._dirty_tx += frames
        if self._dirty_tx == self._values()[_TX_FRAMES]:
            self.update()

    def rx_due(self) -> int:
        """The same of received frames."""
        return self._values()[_RX_FRAMES] - self._dirty_rx

    def received(self, frames: int) -> None:
        """So many frames were received, at most as many as are `rx_due`."""
        self._dirty_rx += frames
        if frames and self._dirty_rx == self._values()[_RX_FRAMES]:
            self.update()

    def settle(self) -> None:
        """A burst of work is over: write the status block if coalescing's limits say so, else when its time has come."""
        if not (self._dirty_tx or self._dirty_rx) or not self._enabled():
            return
        rx, tx = self._wait(self._dirty_rx, _RX_FRAMES, _RX_TICKS), self._wait(self._dirty_tx, _TX_FRAMES, _TX_TICKS)
        if rx <= PROMPT or not tx:
            self.update()
        elif not self._timer:
            self._start(rx if rx < tx else tx)

    def _start(self, seconds: float) -> None:
        self._timer, self._seen = True, self._dirty_tx
        self._waited += seconds
        self._bus.call_later(seconds, self._expired)

    def _wait(self, dirty: int, most: int, ticks: int) -> float:
        """Seconds until so many frames are to be told: none if as many as the driver has asked for, for ever if there are none."""
        values = self._values()
        return _NEVER if not dirty else 0.0 if 0 < values[most] <= dirty else values[ticks] * 1e-6

    def _expired(self) -> None:
        """The time has come, unless frames go on being sent: the driver sizes its delay so that silicon's burst is over by then, and under
        emulation a burst takes ten times as long."""
        self._timer = False
        more = self._dirty_tx > self._seen and not self._dirty_rx
        if more and self._waited + (delay := self._values()[_TX_TICKS] * 1e-6) <= STREAM:
            self._start(delay)
        elif self._dirty_tx or self._dirty_rx:
            self.update()

    def _enabled(self) -> bool:
        return bool(self._values()[_MODE] & _ENABLE)

    def update(self) -> None:
        """Write the status block and interrupt."""
        if not self._enabled():
            return
        self._dirty_tx = self._dirty_rx = 0
        self._seen, self._waited = 1, 0.0  # of those that are sent from now on the first begins no burst
        self.tag = (self.tag + 1) & 0xFF
        if not self._faults.strikes("stale-status"):
            try:
                self._write()
            except DmaFault:
                self._tell("dma_faults")
                return
        self.fire()

    def _write(self) -> None:
        values, memory = self._values(), self._bus.memory
        base = values[_HIGH] << 32 | values[_LOW]
        if self._tx_written == self.tx_consumer or not self._faults.strikes("no-completions"):
            self._tx_written = self.tx_consumer
        memory.store16(base + _AT_STD, self.rx_std_consumer)
        memory.store16(base + _AT_RX, self.rx_producer)
        memory.store16(base + _AT_TX, self._tx_written)
        link = values[_MAC_STATUS] & values[_MAC_EVENT] & _LINK
        memory.store32(base + _AT_STATUS, _UPDATED_LINK if link else _UPDATED)
        memory.store32(base + _AT_TAG, self.tag)

    def fire(self) -> None:
        """Interrupt, if the driver has armed it and nothing masks it."""
        if not self._armed or self._values()[_CONTROL] & _MASKED:
            return
        self._armed = False
        if self._faults.strikes("no-interrupts"):
            self._withheld = True
            return
        self._raise()

    def _raise(self) -> None:
        if self._bus.msi():
            self._tell("msi")
            return
        self._asserted = True
        self._bus.intx(True)
        self._tell("intx")

    def spurious(self) -> None:
        """An interrupt without a reason (on request of a testcase)."""
        self._tell("spurious-interrupt")
        self._raise()

    def release(self) -> None:
        """`no-interrupts` has ended."""
        if self._withheld:
            self._withheld = False
            self._raise()

    def mailbox(self, value: int) -> None:
        """MAILBOX_INTERRUPT_0 was written."""
        self.clear()
        self._withheld = False  # the driver has looked by itself
        self._armed = value & 0xFF_FFFF == 0
        if self._armed and value >> 24 != self.tag:
            self.update()  # and not only an interrupt: tg3_test_isr wants to see SD_STATUS_UPDATED

    def clear(self) -> None:
        """Let go of the interrupt pin."""
        if self._asserted:
            self._asserted = False
            self._bus.intx(False)
