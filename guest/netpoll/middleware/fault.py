"""A net_device that misbehaves on purpose, as wires, NICs and interrupt controllers do.

In: frames both ways. Out: most of them, some dropped, damaged, doubled, swapped or late; a TX queue that stays stopped;
interrupts that do not come. The rule it keeps: every decision follows from the seed and the order of frames, every fault
is counted, and time is only what the context's clock says.

A late frame leaves by a timer of the context, or when something happens on the device after its time has come: a frame, an
interrupt, a poll, so also after a crash. The slides' arrows go on through it: a stopped queue is polled by poll_controller,
and withheld interrupts do not keep netpoll from polling.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from guest.netpoll.context import Level, smp_processor_id
from guest.netpoll.middleware.around import AroundDevice
from guest.netpoll.napi import do_softirq, netif_rx
from guest.netpoll.netdevice import NetDevice, NetdevTx
from guest.netpoll.skbuff import SkBuff, kfree_skb

SWAP_HOLD = 0.05  # seconds that a frame waits for another to be swapped with
MAX_HELD = 1024  # frames waiting in one direction; a further one passes at once


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to frames of one direction: probabilities 0..1, each drawn for each frame."""

    drop: float = 0.0
    corrupt: float = 0.0  # one bit, anywhere in the frame
    duplicate: float = 0.0
    reorder: float = 0.0  # swapped with the next frame
    delay: float = 0.0
    delay_seconds: tuple[float, float] = (0.001, 0.01)  # drawn evenly between the two

    def __post_init__(self) -> None:
        for name in ("drop", "corrupt", "duplicate", "reorder", "delay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: a probability is 0..1")
        if not 0 <= self.delay_seconds[0] <= self.delay_seconds[1]:
            raise ValueError(f"delay_seconds={self.delay_seconds}: need 0 <= least <= most")


@dataclass(frozen=True, slots=True)
class Fate:
    """What was drawn for one frame. `hold` seconds of delay; `bit` to flip, as a fraction of the frame."""

    drop: bool
    duplicate: bool
    swap: bool
    bit: float | None
    hold: float | None


def draw(faults: Faults, rng: random.Random) -> Fate:
    """Always the same number of draws, so that one probability does not shift the others' sequence."""
    drop, corrupt, duplicate, reorder, delay, where, how_long = (rng.random() for _ in range(7))
    least, most = faults.delay_seconds
    return Fate(
        drop=drop < faults.drop,
        duplicate=duplicate < faults.duplicate,
        swap=reorder < faults.reorder,
        bit=where if corrupt < faults.corrupt else None,
        hold=least + how_long * (most - least) if delay < faults.delay else None,
    )


def flip(data: bytes, where: float) -> bytes:
    """`data` with the bit at fraction `where` inverted."""
    bit = int(where * len(data) * 8)
    wrong = bytearray(data)
    wrong[bit // 8] ^= 0x80 >> bit % 8
    return bytes(wrong)


@dataclass(slots=True)
class _Held:
    due: float
    data: bytes
    protocol: int
    swapped: bool  # leaves after the next frame, or when due


@dataclass(slots=True)
class _Way:
    """One direction: its faults, its own random sequence, its frames in waiting."""

    name: str
    faults: Faults
    rng: random.Random
    held: list[_Held] = field(default_factory=list)
    refused: tuple[SkBuff, Fate] | None = None  # the driver was busy: the retry of this frame keeps its fate


class FaultDevice(AroundDevice):
    """Faults around `inner`. `counts` has tx_drop, tx_corrupt, tx_duplicate, tx_reorder, tx_delay, tx_lost (late or
    doubled, and nobody would take it any more), the same with rx_, stalls and withheld (interrupts).
    """

    def __init__(
        self,
        inner: NetDevice,
        *,
        seed: int,
        tx: Faults | None = None,
        rx: Faults | None = None,
    ) -> None:
        self._withheld = False
        super().__init__(inner)
        self.counts: Counter[str] = Counter()
        self._tx = _Way("tx", tx or Faults(), random.Random(f"{seed} tx"))
        self._rx = _Way("rx", rx or Faults(), random.Random(f"{seed} rx"))
        self._stall_after: int | None = None
        self._stall_seconds: float | None = None
        self._stall_until: float | None = None

    # -- the queue that stays stopped

    def stall_tx(self, after: int = 0, seconds: float | None = None) -> None:
        """Stop the TX queue after `after` more frames, for so long, or (None) until resume_tx()."""
        self._stall_after = after
        self._stall_seconds = seconds
        self._stall_if_time()

    def resume_tx(self) -> None:
        """Let the queue go on; who waits for it is told."""
        self._stall_after = self._stall_until = None
        if self._xoff:
            self._xoff = False
            self.stats["tx_woken"] += 1
            self.wake()

    def _stall_if_time(self) -> None:
        if self._stall_after is None or self._stall_after > 0:
            return
        self._stall_after = None
        self.counts["stalls"] += 1
        self.stats["tx_stopped"] += 1
        self._xoff = True
        if self._stall_seconds is not None:
            self._stall_until = self.ctx.clock() + self._stall_seconds
            self.ctx.call_later(self._stall_seconds, self.tick)

    # -- the interrupt that does not come

    def withhold_interrupts(self) -> None:
        """No interrupt is served until allow_interrupts(); poll_controller still works."""
        self._withheld = True
        self.counts["withheld"] += 1
        self.sync_irq()

    def allow_interrupts(self) -> None:
        """Interrupts come again, at once if one is pending."""
        self._withheld = False
        self.sync_irq()

    @property
    def irq_masked(self) -> bool:
        """Masked by the inner device, or withheld."""
        return self._withheld or self.inner.irq_masked

    @irq_masked.setter
    def irq_masked(self, masked: bool) -> None:
        """As AroundDevice's."""

    # -- frames out

    def hard_start_xmit(self, skb: SkBuff) -> NetdevTx:
        """As the driver's; BUSY while stalled. A dropped or held frame is OK: the caller cannot know."""
        if self._xoff:
            return NetdevTx.BUSY
        self._release_tx()
        way = self._tx
        fate = way.refused[1] if way.refused and way.refused[0] is skb else draw(way.faults, way.rng)
        way.refused = None
        status = self._xmit(skb, fate)
        if status is not NetdevTx.OK:
            way.refused = (skb, fate)
        elif self._stall_after is not None:
            self._stall_after -= 1
            self._stall_if_time()
        return status

    def _xmit(self, skb: SkBuff, fate: Fate) -> NetdevTx:
        if fate.drop or self._hold(self._tx, skb, fate):
            self.counts["tx_drop"] += fate.drop
            kfree_skb(skb)
            return NetdevTx.OK
        copy = bytes(skb.data)
        status = self._xmit_corrupt(skb, fate.bit) if fate.bit is not None else self.to_inner(skb)
        if status is NetdevTx.OK:
            swapped = self._take_swapped(self._tx)
            doubles = [_Held(0, copy, skb.protocol, False)] if fate.duplicate else []
            self.counts["tx_duplicate"] += fate.duplicate
            for held in doubles + swapped:
                self._xmit_held(held)
        return status

    def _xmit_corrupt(self, skb: SkBuff, bit: float) -> NetdevTx:
        """Send a damaged copy: a refused frame must go back to the caller as it was."""
        wrong = SkBuff(flip(bytes(skb.data), bit), self, skb.protocol)
        status = self.to_inner(wrong)
        if status is NetdevTx.OK:
            self.counts["tx_corrupt"] += 1
            kfree_skb(skb)
        else:
            kfree_skb(wrong)
        return status

    def _xmit_held(self, held: _Held) -> None:
        """Send a copy that nobody waits for; lost if the driver does not take it."""
        skb = SkBuff(held.data, self, held.protocol)
        if self.to_inner(skb) is not NetdevTx.OK:
            self.counts["tx_lost"] += 1
            kfree_skb(skb)

    def _release_tx(self) -> None:
        """Send what is due; xmit_lock held. Waits on while the queue is stopped."""
        while self.running and not self.xoff and (held := self._take_due(self._tx)):
            self._xmit_held(held)

    # -- frames in

    def from_inner(self, skb: SkBuff) -> None:
        """Deliver, or do to it what was drawn."""
        way = self._rx
        fate = draw(way.faults, way.rng)
        if fate.drop or self._hold(way, skb, fate):
            self.counts["rx_drop"] += fate.drop
            kfree_skb(skb)
            return
        if fate.bit is not None:
            self.counts["rx_corrupt"] += 1
            skb.data = flip(bytes(skb.data), fate.bit)
        doubles = [_Held(0, bytes(skb.data), skb.protocol, False)] if fate.duplicate else []
        self.counts["rx_duplicate"] += fate.duplicate
        protocol, kind = skb.protocol, skb.pkt_type
        self.deliver(skb)
        for held in doubles + self._take_swapped(way):
            again = SkBuff(held.data, self, protocol)
            again.pkt_type = kind
            self.deliver(again)

    def interrupt(self) -> None:
        """The inner interrupt routine, then what came late."""
        self.inner.interrupt()
        self._release_rx()

    def poll_controller(self) -> None:
        """The inner device's, then what came late; a stall whose time is over ends, as when descriptors return."""
        self._end_stall()
        self.inner.poll_controller()
        self._release_rx()

    def _release_rx(self) -> None:
        """Hand up what is due, as a non-NAPI interrupt routine would."""
        while held := self._take_due(self._rx):
            skb = SkBuff(held.data, self, held.protocol)
            netif_rx(skb)

    # -- frames in waiting, and time

    def _hold(self, way: _Way, skb: SkBuff, fate: Fate) -> bool:
        """Keep a copy of the frame for later, if that is its fate and there is room."""
        if (fate.hold is None and not fate.swap) or len(way.held) >= MAX_HELD:
            return False
        data = bytes(skb.data) if fate.bit is None else flip(bytes(skb.data), fate.bit)
        self.counts[f"{way.name}_corrupt"] += fate.bit is not None
        self.counts[f"{way.name}_{'reorder' if fate.hold is None else 'delay'}"] += 1
        wait = SWAP_HOLD if fate.hold is None else fate.hold
        way.held.append(_Held(self.ctx.clock() + wait, data, skb.protocol, fate.hold is None))
        self.ctx.call_later(wait, self.tick)
        return True

    def stop(self) -> None:
        """Close the inner device; what waits is lost."""
        for way in (self._tx, self._rx):
            self.counts[f"{way.name}_lost"] += len(way.held)
            way.held.clear()
            way.refused = None
        super().stop()

    def _take_due(self, way: _Way) -> _Held | None:
        now = self.ctx.clock()
        for at, held in enumerate(way.held):
            if held.due <= now:
                return way.held.pop(at)
        return None

    def _take_swapped(self, way: _Way) -> list[_Held]:
        swapped = [held for held in way.held if held.swapped]
        way.held = [held for held in way.held if not held.swapped]
        return swapped

    def _end_stall(self) -> None:
        if self._stall_until is not None and self.ctx.clock() >= self._stall_until:
            self.resume_tx()

    def tick(self) -> None:
        """Do what time has brought, in process context, as an interrupt would. No effect after a crash."""
        self._end_stall()
        if self.xmit_lock.acquire(blocking=False):
            self.xmit_lock_owner = smp_processor_id()
            try:
                self._release_tx()
            finally:
                self.xmit_lock_owner = 0
                self.xmit_lock.release()
        if not self.ctx.crashed and not self.ctx.in_interrupt():
            with self.ctx.enter(Level.HARDIRQ):
                self._release_rx()
            do_softirq(self.ctx)
