"""The virtio-net model and what a driver may do to it: layouts, features, queues, interrupts, control queue, rings that break the rules."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import pytest

from guest.netpoll.layout import virtio as hw
from guest.netpoll.layout.virtio import Common, Ctrl, CtrlRx, Feature, Isr, Status
from harness.nic.faults import Setting
from harness.nic.inprocess import Bar, Buffer, Clock, Slot, Tape
from harness.nic.virtio_net.device import OFFERED, VirtioNet
from harness.nic.virtio_net.transport import COMMON_AT, DEVICE_AT, ISR_AT, NOTIFY_AT, NOTIFY_MULTIPLIER
from harness.vfio_user.session import IrqSet
from harness.vfio_user.wire import Irq, SetIrqs

MAC, PEER = bytes.fromhex("525400aabb01"), bytes.fromhex("525400aabb02")
FRAME = PEER + MAC + b"\x88\xb5" + b"last words" * 5
INCOMING = MAC + PEER + b"\x88\xb5" + b"an answer." * 10
SIZE = 8
ALL_BUT_EVENTS = OFFERED & ~hw.bits(Feature.RING_EVENT_IDX)


def test_golden_bytes_of_layouts_from_the_specification() -> None:
    """A shared layout hides mistakes that both ends make; these bytes are spelled out."""
    assert hw.DESC.pack(0x1122334455667788, 0x5DC, 0x0001, 0x0002).hex() == "8877665544332211dc05000001000200"
    assert hw.USED_ELEM.pack(3, 0x5E8).hex() == "03000000e8050000"
    assert hw.NET_HDR.pack(1, 0, 54, 1448, 34, 16, 1).hex() == "01003600a805220010000100"
    assert hw.PCI_CAP.pack(9, 0x50, 16, 1, 4, 0, 0x1000, 0x38).hex() == "09501001040000000010000038000000"
    assert (hw.avail_size(256), hw.used_size(256)) == (518, 2054)
    assert [int(field) for field in Common] == [0, 4, 8, 12, 16, 18, 20, 21, 22, 24, 26, 28, 30, 32, 40, 48]
    assert (hw.bits(Feature.VERSION_1), hw.bits(Feature.MAC, Feature.STATUS)) == (1 << 32, 0x10020)


EVENTS = {  # event, new, old: whether to tell (2.7.7.2)
    "passed": (5, 6, 5, True),
    "not yet": (6, 6, 5, False),
    "jumped over": (7, 10, 5, True),
    "wrapped": (0xFFFF, 1, 0xFFFE, True),
    "nothing new": (5, 5, 5, False),
}


@pytest.mark.parametrize(("event", "new", "old", "told"), EVENTS.values(), ids=EVENTS)
def test_event_indices_are_the_specification_s(event: int, new: int, old: int, told: bool) -> None:
    assert hw.need_event(event, new, old) is told


class Driver:
    """A driver that fits on a page and can do everything wrong."""

    def __init__(self, features: int = ALL_BUT_EVENTS, up: bool = True) -> None:
        self.clock, self.wire = Clock(), Tape()
        self.slot = Slot("virtio-net", MAC, self.wire, self.clock)
        self.slot.set_master(True)
        chip = self.slot.chip
        assert isinstance(chip, VirtioNet)
        self.chip, self.bar = chip, self.slot.bar(4, 0x4000)
        self.queues: list[Ring] = []
        if up:
            self.bring_up(features)

    def bring_up(self, features: int = ALL_BUT_EVENTS) -> None:
        self.put(Common.DEVICE_STATUS, 0)
        self.put(Common.DEVICE_STATUS, Status.ACKNOWLEDGE | Status.DRIVER)
        self.offer(features)
        self.put(Common.DEVICE_STATUS, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        self.queues = [Ring(self, number) for number in range(3)]
        self.put(Common.DEVICE_STATUS, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)

    def offer(self, features: int) -> None:
        for select in (0, 1):
            self.put(Common.DRIVER_FEATURE_SELECT, select)
            self.put(Common.DRIVER_FEATURE, features >> 32 * select & 0xFFFF_FFFF)

    def put(self, field: Common, value: int) -> None:
        write: dict[int, Callable[[int, int], None]] = {1: self.bar.write8, 2: self.bar.write16, 4: self.bar.write32}
        if hw.COMMON_WIDTH[field] == 8:
            self.bar.write32(COMMON_AT + field, value & 0xFFFF_FFFF)
            self.bar.write32(COMMON_AT + field + 4, value >> 32)
        else:
            write[hw.COMMON_WIDTH[field]](COMMON_AT + field, value)

    def get(self, field: Common) -> int:
        read: dict[int, Callable[[int], int]] = {1: self.bar.read8, 2: self.bar.read16, 4: self.bar.read32}
        return read[hw.COMMON_WIDTH[field]](COMMON_AT + field)

    def needs_reset(self) -> bool:
        return bool(self.get(Common.DEVICE_STATUS) & Status.NEEDS_RESET)

    def isr(self) -> int:
        return self.bar.read8(ISR_AT)

    def send(self, frame: bytes, header: bytes = bytes(12)) -> None:
        buffer = self.slot.dma_alloc(len(frame) + 12)
        buffer.view[:] = header + frame
        self.queues[1].give([(buffer.address, len(frame) + 12, 0)])

    def arrive(self, frame: bytes = INCOMING) -> bool:
        taken = self.chip.receive(frame)
        self.chip.settle()
        return taken

    def command(self, *data: int) -> int:
        out, answer = self.slot.dma_alloc(max(len(data), 1)), self.slot.dma_alloc(1)
        out.view[:] = bytes(data) or b"\0"
        answer.view[0] = 0xEE
        self.queues[2].give([(out.address, len(data), 0), (answer.address, 1, hw.DESC_F_WRITE)])
        return answer.view[0]


class Ring:
    """One queue of eight descriptors."""

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver, self.number = driver, number
        alloc: Callable[[int], Buffer] = driver.slot.dma_alloc
        self.desc, self.avail, self.used = alloc(16 * SIZE), alloc(hw.avail_size(SIZE)), alloc(hw.used_size(SIZE))
        self.next = self.index = 0
        driver.put(Common.QUEUE_SELECT, number)
        driver.put(Common.QUEUE_SIZE, SIZE)
        for field, area in ((Common.QUEUE_DESC, self.desc), (Common.QUEUE_DRIVER, self.avail), (Common.QUEUE_DEVICE, self.used)):  # fmt: skip
            driver.put(field, area.address)
        driver.put(Common.QUEUE_ENABLE, 1)

    def describe(self, at: int, address: int, length: int, flags: int, following: int = 0) -> None:
        hw.DESC.pack_into(self.desc.view, 16 * at, address, length, flags, following)

    def give(self, pieces: list[tuple[int, int, int]], ring: bool = True) -> None:
        """A chain of (address, length, flags), made available."""
        head = self.next
        for number, (address, length, flags) in enumerate(pieces):
            at = (head + number) % SIZE
            more = hw.DESC_F_NEXT if number < len(pieces) - 1 else 0
            self.describe(at, address, length, flags | more, (at + 1) % SIZE)
        self.next = (head + len(pieces)) % SIZE
        self.publish(head, ring)

    def publish(self, head: int, ring: bool = True) -> None:
        struct.pack_into("<H", self.avail.view, 4 + 2 * (self.index % SIZE), head)
        self.index += 1
        struct.pack_into("<H", self.avail.view, 2, self.index & 0xFFFF)
        if ring:
            self.driver.bar.write16(NOTIFY_AT + NOTIFY_MULTIPLIER * self.number, self.number)

    def done(self) -> int:
        return int(struct.unpack_from("<H", self.used.view, 2)[0])

    def element(self, at: int) -> tuple[int, int]:
        ident, length = struct.unpack_from("<II", self.used.view, 4 + 8 * (at % SIZE))
        return int(ident), int(length)


def test_what_is_offered_and_what_the_device_says_of_itself() -> None:
    driver = Driver(up=False)
    driver.put(Common.DEVICE_FEATURE_SELECT, 0)
    low = driver.get(Common.DEVICE_FEATURE)
    driver.put(Common.DEVICE_FEATURE_SELECT, 1)
    assert driver.get(Common.DEVICE_FEATURE) << 32 | low == OFFERED == 0x3_309F_8029
    assert driver.get(Common.NUM_QUEUES) == 3
    assert bytes(driver.bar.read8(DEVICE_AT + n) for n in range(12)) == MAC + b"\x01\x00" + b"\x01\x00" + b"\xdc\x05"
    assert (driver.slot.vendor, driver.slot.device) == (0x1AF4, 0x1041)


REFUSED = {
    "without VERSION_1": OFFERED & ~hw.bits(Feature.VERSION_1),
    "with what was not offered": OFFERED | hw.bits(Feature.GUEST_CSUM),
    "with unknown bits": OFFERED | 1 << 63,
}


@pytest.mark.parametrize("features", REFUSED.values(), ids=REFUSED)
def test_a_choice_that_makes_no_sense_is_not_confirmed(features: int) -> None:
    driver = Driver(up=False)
    driver.put(Common.DEVICE_STATUS, Status.ACKNOWLEDGE | Status.DRIVER)
    driver.offer(features)
    driver.put(Common.DEVICE_STATUS, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
    assert not driver.get(Common.DEVICE_STATUS) & Status.FEATURES_OK


def test_queue_sizes_that_are_no_powers_of_two_or_too_large_are_not_taken() -> None:
    driver = Driver(up=False)
    driver.put(Common.QUEUE_SELECT, 0)
    for size in (0, 3, 512):
        driver.put(Common.QUEUE_SIZE, size)
        assert driver.get(Common.QUEUE_SIZE) == 256
    driver.put(Common.QUEUE_SELECT, 9)
    assert driver.get(Common.QUEUE_SIZE) == 0, "there is no such queue"


def test_frames_leave_from_scattered_and_from_indirect_descriptors() -> None:
    driver = Driver()
    whole = driver.slot.dma_alloc(12 + len(FRAME))
    whole.view[12:] = FRAME
    at = whole.address
    driver.queues[1].give([(at, 5, 0), (at + 5, 20, 0), (at + 25, len(FRAME) - 13, 0)])
    table = driver.slot.dma_alloc(32)
    hw.DESC.pack_into(table.view, 0, at, 12, hw.DESC_F_NEXT, 1)
    hw.DESC.pack_into(table.view, 16, at + 12, len(FRAME), 0, 0)
    driver.queues[1].give([(table.address, 32, hw.DESC_F_INDIRECT)])
    assert driver.wire.sent == [FRAME, FRAME]
    assert driver.queues[1].done() == 2
    assert [driver.queues[1].element(n) for n in range(2)] == [(0, 0), (3, 0)]


def test_the_checksum_that_a_driver_leaves_is_filled_in() -> None:
    driver = Driver()
    packet = bytearray(FRAME[:14] + bytes(20) + b"\x12\x34\x00\x50" + b"\x00\x10\x00\x21" + b"12345678")
    driver.send(bytes(packet), hw.NET_HDR.pack(hw.NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 34, 6, 0))
    total = sum(struct.unpack("!8H", packet[34:50]))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    assert driver.wire.sent[0][40:42] == (~total & 0xFFFF).to_bytes(2, "big")


def test_a_frame_is_spread_over_merged_buffers() -> None:
    driver = Driver()
    buffers = [driver.slot.dma_alloc(40) for _ in range(4)]
    for buffer in buffers:
        driver.queues[0].give([(buffer.address, 40, hw.DESC_F_WRITE)])
    assert driver.arrive()
    assert driver.queues[0].done() == 4
    lengths = [driver.queues[0].element(n)[1] for n in range(4)]
    assert lengths == [40, 40, 40, 6]
    found = b"".join(bytes(buffer.view[:length]) for buffer, length in zip(buffers, lengths, strict=True))
    assert found == bytes(10) + b"\x04\x00" + INCOMING


def test_without_buffers_a_frame_is_not_taken_and_offered_again() -> None:
    driver = Driver()
    assert not driver.arrive()
    assert driver.wire.resumed == 0
    buffer = driver.slot.dma_alloc(1600)
    driver.queues[0].give([(buffer.address, 1600, hw.DESC_F_WRITE)])
    assert driver.wire.resumed == 1
    assert driver.arrive()


def test_an_interrupt_sets_the_isr_and_reading_lets_go() -> None:
    driver = Driver()
    driver.send(FRAME)
    assert driver.slot.pci.irqs.asserted
    assert driver.isr() == Isr.QUEUE
    assert not driver.slot.pci.irqs.asserted
    assert driver.isr() == 0
    driver.chip.plug(False)
    assert driver.isr() == Isr.CONFIG
    struct.pack_into("<H", driver.queues[1].avail.view, 0, hw.AVAIL_F_NO_INTERRUPT)
    driver.send(FRAME)
    assert driver.isr() == 0, "the driver wanted none"


def test_an_event_index_says_when_to_interrupt() -> None:
    driver = Driver(OFFERED)
    tx = driver.queues[1]
    struct.pack_into("<H", tx.avail.view, 4 + 2 * SIZE, 2)  # used_event
    for expected in (0, 0, Isr.QUEUE, 0):
        driver.send(FRAME)
        assert driver.isr() == expected
    assert struct.unpack_from("<H", tx.used.view, 4 + 8 * SIZE)[0] == 4, "avail_event: ring for the next one"


def test_msix_vectors_go_where_the_driver_says() -> None:
    driver = Driver()
    heard = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    driver.slot.pci.set_irqs(
        IrqSet(SetIrqs.DATA_EVENTFD | SetIrqs.ACTION_TRIGGER, Irq.MSIX, 0, 4, b""), [os.dup(fd) for fd in heard]
    )
    driver.slot.write_config(0x98 + 2, b"\x00\x80")
    driver.put(Common.QUEUE_SELECT, 1)
    driver.put(Common.QUEUE_MSIX_VECTOR, 2)
    driver.put(Common.CONFIG_MSIX_VECTOR, 3)
    driver.send(FRAME)
    driver.chip.plug(False)
    assert [told(fd) for fd in heard] == [0, 0, 1, 1]
    assert driver.isr() == 0
    driver.put(Common.QUEUE_MSIX_VECTOR, 4)
    assert driver.get(Common.QUEUE_MSIX_VECTOR) == hw.NO_VECTOR, "there are four"


def test_the_control_queue_filters_and_refuses() -> None:
    driver = Driver()
    multicast = bytes.fromhex("01005e000001")
    assert driver.command(Ctrl.RX, CtrlRx.PROMISC, 0) == hw.CTRL_OK
    assert driver.command(Ctrl.MAC, 0, 0, 0, 0, 0, 1, 0, 0, 0, *multicast) == hw.CTRL_OK
    assert driver.command(Ctrl.VLAN, 0, 5, 0) == hw.CTRL_OK
    bad = ([Ctrl.RX, 9, 0], [Ctrl.RX, 0], [Ctrl.MAC, 0, 1, 0, 0, 0], [Ctrl.MAC, 1, 1, 2], [77, 0, 0], [0])
    assert [driver.command(*each) for each in bad] == [hw.CTRL_ERR] * len(bad)
    for _ in range(SIZE):
        driver.queues[0].give([(driver.slot.dma_alloc(1600).address, 1600, hw.DESC_F_WRITE)])
    rest = INCOMING[6:]
    tagged = MAC + PEER + b"\x81\x00\x00\x05" + INCOMING[12:]
    stranger = MAC + PEER + b"\x81\x00\x00\x06" + INCOMING[12:]
    for frame in (
        INCOMING,
        multicast + rest,
        b"\xff" * 6 + rest,
        tagged,
        PEER + rest,
        b"\x01" + rest[1:6] + rest,
        stranger,
    ):
        assert driver.arrive(frame)
    assert driver.queues[0].done() == 4


def memory_of(driver: Driver, size: int = 64) -> int:
    return driver.slot.dma_alloc(size).address


BROKEN: dict[str, Callable[[Driver, Ring], None]] = {
    "a head beyond the ring": lambda _, ring: ring.publish(SIZE),
    "an index that runs ahead": lambda _, ring: (setattr(ring, "index", 100), ring.publish(0))[1],  # type: ignore[func-returns-value]
    "a loop": lambda driver, ring: (ring.describe(0, memory_of(driver), 64, hw.DESC_F_NEXT, 0), ring.publish(0))[1],  # type: ignore[func-returns-value]
    "a next beyond the ring": lambda driver, ring: (ring.describe(0, memory_of(driver), 64, hw.DESC_F_NEXT, SIZE), ring.publish(0))[1],  # type: ignore[func-returns-value]
    "memory that is not there": lambda _, ring: ring.give([(0xDEAD_0000, 64, 0)]),
    "memory that ends too early": lambda driver, ring: ring.give([(memory_of(driver), 65, 0)]),
    "a chain of gigabytes": lambda driver, ring: ring.give([(memory_of(driver), 0xFFFF_FFFF, 0)]),
    "an indirect table of no descriptors": lambda driver, ring: ring.give([(memory_of(driver), 0, hw.DESC_F_INDIRECT)]),
    "an indirect table inside itself": lambda driver, ring: ring.give([(nested(driver), 16, hw.DESC_F_INDIRECT)]),
    "to be read behind to be written": lambda driver, ring: ring.give([(memory_of(driver), 64, hw.DESC_F_WRITE), (memory_of(driver), 64, 0)]),
    "segmentation that was not offered": lambda driver, _: driver.send(FRAME, hw.NET_HDR.pack(0, 1, 54, 500, 0, 0, 0)),
    "a checksum outside of the frame": lambda driver, _: driver.send(FRAME, hw.NET_HDR.pack(1, 0, 0, 0, 60, 900, 0)),
}  # fmt: skip


def nested(driver: Driver) -> int:
    table = driver.slot.dma_alloc(16)
    hw.DESC.pack_into(table.view, 0, table.address, 16, hw.DESC_F_INDIRECT, 0)
    return table.address


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
def test_a_ring_that_breaks_the_rules_needs_a_reset_and_works_after_it(breaks: Callable[[Driver, Ring], None]) -> None:
    driver = Driver()
    breaks(driver, driver.queues[1])
    assert driver.needs_reset()
    assert driver.isr() & Isr.CONFIG, "the driver is told"
    assert [keys for kind, keys in driver.slot.told if kind == "remark"], "and so is the evidence"
    driver.send(FRAME)
    assert driver.wire.sent == [], "nothing more until the reset"
    driver.bring_up()
    driver.send(FRAME)
    assert driver.wire.sent == [FRAME]


def test_without_bus_mastering_nothing_is_touched() -> None:
    driver = Driver()
    driver.slot.set_master(False)
    driver.send(FRAME)
    assert driver.wire.sent == []
    driver.slot.set_master(True)
    driver.bar.write16(NOTIFY_AT + NOTIFY_MULTIPLIER, 1)
    assert driver.wire.sent == [FRAME]


def test_an_unknown_fault_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"virtio-net has no fault 'stale-status'; there are no-interrupts"):
        Driver().chip.fault("stale-status", Setting())


def test_a_bar_is_accessed_within_its_bounds() -> None:
    bar: Bar = Driver().bar
    for offset in (0x4000, -4, 2):
        with pytest.raises(ValueError, match="of a BAR of 0x4000"):
            bar.read32(offset)


def told(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0
    finally:
        os.close(fd)
