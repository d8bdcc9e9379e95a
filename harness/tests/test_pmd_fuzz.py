"""Models and drivers that do not trust each other, with randomness from a seed.

A guest may write anything into registers and rings: the model neither raises nor touches what is not its memory, and works after a
reset. A device may write anything into the memory that it was given: the driver neither raises nor believes it, and goes on, or says that
the device is broken.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest

from guest.netpoll import netpoll_poll, netpoll_send_udp
from guest.netpoll.netdevice import dev_close, dev_open
from guest.netpoll.skbuff import SkBuff
from harness.nic.inprocess import Bar, Buffer, Clock, Slot, Tape
from harness.tests.pmd_rig import DRIVERS, MAC, NotReached, Rig

BARS = {"e1000": (0, 128 << 10), "tg3": (0, 64 << 10), "virtio-net": (4, 16 << 10)}
ROUNDS = 60


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("netpoll").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("netpoll").setLevel(logging.NOTSET)


def anything(rng: random.Random, width: int) -> int:
    """A value: small, all ones, one bit, or any."""
    top = (1 << 8 * width) - 1
    return rng.choice((rng.randrange(16), top, 1 << rng.randrange(8 * width), rng.randint(0, top)))


def poke(rng: random.Random, bar: Bar, known: list[int]) -> None:
    width = rng.choice((1, 2, 4, 4, 4))
    offset = rng.choice(known) if rng.random() < 0.7 else rng.randrange(bar.size)
    offset = min(offset, bar.size - 4) & ~3 | rng.randrange(0, 4, width)
    if rng.random() < 0.3:
        (bar.read8, bar.read16, bar.read32)[width.bit_length() - 1](offset)
    else:
        (bar.write8, bar.write16, bar.write32)[width.bit_length() - 1](offset, anything(rng, width))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", DRIVERS)
def test_a_model_takes_whatever_is_written_to_its_registers(model: str, seed: int) -> None:
    """After a driver has set it up, so that there are rings to be pointed elsewhere."""
    rng = random.Random(seed)
    rig = Rig(model)
    index, size = BARS[model]
    bar = rig.slot.bar(index, size)
    known = touched(bar, rig)
    for _ in range(1500):
        poke(rng, bar, known)
        if rng.random() < 0.1:
            rig.arrive_frame(rng.randbytes(rng.randint(14, 1514)))
        if rng.random() < 0.02:
            rig.slot.chip.plug(rng.random() < 0.5)
        if rng.random() < 0.05:
            rig.clock.advance(0.03)
    revived(rig)


def touched(bar: Bar, rig: Rig) -> list[int]:
    """The registers that the driver uses when it starts and sends."""
    seen: set[int] = set()
    device = rig.slot.pci
    read, write = device.region_read, device.region_write

    def reading(index: int, offset: int, count: int) -> bytes:
        seen.add(offset)
        return read(index, offset, count)

    def writing(index: int, offset: int, data: bytes) -> None:
        seen.add(offset)
        write(index, offset, data)

    device.region_read, device.region_write = reading, writing  # type: ignore[method-assign]
    dev_close(rig.dev)
    dev_open(rig.dev)
    netpoll_send_udp(rig.np, b"x")
    device.region_read, device.region_write = read, write  # type: ignore[method-assign]
    return sorted(offset for offset in seen if offset < bar.size)


def revived(rig: Rig) -> None:
    """The machine resets the device, and a driver gets it to work."""
    rig.slot.chip.plug(True)
    rig.slot.pci.reset()
    rig.slot.wire = rig.tape
    rig.tape.sent.clear()
    dev_close(rig.dev)
    rig.dev.irq_masked = rig.dev.rx_sched = False
    rig.dev.poll_list.clear()
    rig.net.context.cpu().poll_list.clear()
    rig.slot.write_config(4, b"\x02\x00")
    dev_open(rig.dev)
    rig.until(lambda: rig.dev.carrier, "carrier")
    assert netpoll_send_udp(rig.np, b"alive") == 0
    rig.got.clear()
    assert rig.arrive(b"alive")
    rig.serve()
    assert rig.payloads()[-1:] == rig.got[-1:] == [b"alive"]
    rig.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", DRIVERS)
def test_a_model_takes_whatever_is_in_its_rings(model: str, seed: int) -> None:
    """The driver's own memory, rewritten while the device runs; the device reaches nothing but that memory."""
    rng = random.Random(seed)
    rig = Rig(model)
    rings = small(rig)
    for _ in range(ROUNDS):
        scribble(rng, rings)
        for _ in range(rng.randint(1, 10)):
            if not rig.dev.xoff and rig.dev.running:
                rig.dev.hard_start_xmit(SkBuff(rng.randbytes(60)))
        rig.arrive_frame(MAC + rng.randbytes(rng.randint(50, 1400)))
        rig.clock.advance(0.001)
    if rig.dev.present:
        revived(rig)


def small(rig: Rig) -> list[Buffer]:
    """Rings and status blocks: the driver's allocations that are no packet buffers."""
    return [buffer for buffer in rig.slot.allocated if len(buffer.view) < 100_000]


def scribble(rng: random.Random, buffers: list[Buffer]) -> None:
    for _ in range(rng.randint(1, 20)):
        view = rng.choice(buffers).view
        width = rng.choice((1, 2, 4, 8))
        at = rng.randrange(0, max(1, len(view) - width), width)
        view[at : at + width] = anything(rng, width).to_bytes(width, "little")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("model", DRIVERS)
def test_a_driver_survives_a_device_that_lies(model: str, seed: int) -> None:
    """The device's side of the shared memory: interrupts, indices, ids, lengths, status words out of thin air."""
    rng = random.Random(seed)
    rig = Rig(model)
    rings = small(rig)
    for round_ in range(ROUNDS):
        scribble(rng, rings)
        rig.slot.chip.spurious()
        if rng.random() < 0.5:
            rig.serve()
        else:
            netpoll_poll(rig.np)
        if rig.dev.running and not rig.dev.xoff:
            netpoll_send_udp(rig.np, b"%d" % round_)
        rig.arrive(b"%d" % round_)
        rig.clock.advance(0.01)
        if not rig.dev.present:
            assert rig.dev.stats["broken"] == 1
            break
    in_flight = rig.dev.tx.in_flight()
    assert 0 <= in_flight <= rig.dev.tx.usable
    assert all(len(payload) <= 1500 for payload in rig.got)
    rig.close()


class Lies:
    """Registers that answer what they like: `value`, from the `after`th read on."""

    def __init__(self, real: Bar, rng: random.Random, after: int) -> None:
        self._real, self._rng, self._left, self.size = real, rng, after, real.size
        self.words, self.halves = real.words, real.halves

    def _value(self, width: int, real: int) -> int:
        self._left -= 1
        return real if self._left > 0 else anything(self._rng, width)

    def read8(self, offset: int) -> int:
        return self._value(1, self._real.read8(offset))

    def read16(self, offset: int) -> int:
        return self._value(2, self._real.read16(offset))

    def read32(self, offset: int) -> int:
        return self._value(4, self._real.read32(offset))

    def write8(self, offset: int, value: int) -> None:
        self._real.write8(offset, value)

    def write16(self, offset: int, value: int) -> None:
        self._real.write16(offset, value)

    def write32(self, offset: int, value: int) -> None:
        self._real.write32(offset, value)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("model", DRIVERS)
def test_a_driver_says_no_to_registers_that_lie(model: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some read on, in set-up or later. What is raised is an OSError that a caller of open() expects."""
    rng = random.Random(seed)
    real = Slot.bar
    monkeypatch.setattr(Slot, "bar", lambda self, index, least: Lies(real(self, index, least), rng, 1 + seed * 17))
    try:
        rig = Rig(model)
    except (OSError, NotReached):  # BusError or NetdevError
        return
    for round_ in range(20):
        if rig.dev.running and not rig.dev.xoff:
            netpoll_send_udp(rig.np, b"%d" % round_)
        netpoll_poll(rig.np)
        rig.clock.advance(0.5)
        rig.serve()


def test_a_slot_is_a_machine_of_its_own() -> None:
    """Two of them share a clock and nothing else."""
    clock = Clock()
    first, second = (Slot("virtio-net", MAC, Tape(), clock) for _ in range(2))
    buffer = first.dma_alloc(64)
    with pytest.raises(Exception, match="not mapped"):
        second.pci.dma.read(buffer.address, 1)
    assert len(second.faults) == 1
    assert first.faults == []
