"""The BCM5787 model in one process: rings, status block, interrupts and their coalescing. Driven as Linux' tg3 drives it
(harness.tests.tg3_rig)."""

from __future__ import annotations

import random

import pytest

from guest.netpoll.layout import bcm5787 as hw
from guest.netpoll.layout.bcm5787 import Reg, StatusBlock
from harness.nic.faults import Setting
from harness.nic.tg3.status import STREAM
from harness.tests.tg3_rig import MAC, PEER, STD, Driver, frame


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_a_frame_leaves_and_its_descriptor_comes_back(driver: Driver) -> None:
    sent = frame(b"last words" * 10, PEER, MAC)
    before = driver.bus.interrupts
    driver.send(sent)
    assert driver.wire.sent == [sent]
    assert driver.index(StatusBlock.TX_CONSUMER) == 1
    assert driver.status_word(StatusBlock.STATUS) & hw.Status.UPDATED
    assert driver.bus.interrupts == before + 1
    assert driver.counts["doorbells"] == 1


def test_scattered_frames_a_whole_ring_of_them(driver: Driver) -> None:
    rng = random.Random(5)
    wanted = []
    for _ in range(400):
        pieces = [frame(rng.randbytes(30), PEER, MAC), *(rng.randbytes(rng.randint(9, 300)) for _ in range(2))]
        wanted.append(b"".join(pieces))
        driver.queue(pieces)
        driver.bell()
    assert driver.wire.sent == wanted
    assert driver.index(StatusBlock.TX_CONSUMER) == 1200 % hw.TX_RING


def test_a_frame_without_its_end_waits_for_it(driver: Driver) -> None:
    driver.queue([frame(b"a" * 50, PEER, MAC), b"b" * 50])
    driver.write(Reg.MAILBOX_SNDHOST_PROD_IDX_0, 1)
    assert driver.wire.sent == []
    driver.bell()
    assert len(driver.wire.sent) == 1


def test_descriptors_of_a_frame_that_is_not_all_there_are_not_given_back(driver: Driver) -> None:
    driver.queue([frame(b"a" * 50, PEER, MAC)])
    driver.queue([frame(b"b" * 50, PEER, MAC), b"b" * 50])
    driver.write(Reg.MAILBOX_SNDHOST_PROD_IDX_0, 2)
    assert len(driver.wire.sent) == 1
    assert driver.index(StatusBlock.TX_CONSUMER) == 1
    driver.bell()
    assert len(driver.wire.sent) == 2
    assert driver.index(StatusBlock.TX_CONSUMER) == 3


def test_one_bell_for_many_frames_completes_as_often_as_the_driver_has_asked_for(driver: Driver) -> None:
    driver.write(Reg.HOSTCC_TXMAX_FRAMES, 10)
    driver.write(Reg.HOSTCC_TXCOL_TICKS, 100_000)
    before = driver.chip.status.tag
    for number in range(25):
        driver.queue([frame(bytes([number]) * 50, PEER, MAC)])
    driver.bell()
    assert [sent[14] for sent in driver.wire.sent] == list(range(25))
    assert (driver.chip.status.tag - before, driver.index(StatusBlock.TX_CONSUMER)) == (2, 20)
    driver.bus.advance(0.1)
    assert driver.index(StatusBlock.TX_CONSUMER) == 25


def test_only_the_newest_producer_counts_unless_something_goes_wrong_on_purpose(driver: Driver) -> None:
    assert driver.chip.superseded(Reg.MAILBOX_SNDHOST_PROD_IDX_0, 3)
    assert driver.counts["doorbells"] == 3, "those that are passed over were rung, too"
    assert not driver.chip.superseded(Reg.MAILBOX_INTERRUPT_0, 3)
    driver.chip.fault("slow", Setting(seconds=0.5))
    assert not driver.chip.superseded(Reg.MAILBOX_SNDHOST_PROD_IDX_0, 3), "each access takes its time"
    assert driver.counts["doorbells"] == 3


def test_short_frames_are_padded_both_ways(driver: Driver) -> None:
    driver.send(frame(b"x", PEER, MAC))
    assert [len(each) for each in driver.wire.sent] == [60]
    driver.arrive(frame(b"x"))
    assert [len(data) for data, _ in driver.receive()] == [60]


def test_descriptors_that_point_nowhere_lose_their_frame_and_nothing_else(driver: Driver) -> None:
    driver.bus.memory.write(0x2000, hw.TX_BD.pack(0xFFFF, 0, 100 << 16 | hw.TxFlag.END, 0))
    driver.tx_producer = 1
    driver.bell()
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert len(driver.wire.sent) == 1
    assert driver.counts["dma_faults"] == 1
    assert driver.index(StatusBlock.TX_CONSUMER) == 2


def test_what_arrives_is_in_the_buffer_with_its_length_and_opaque(driver: Driver) -> None:
    for n in range(700):  # more than the ring holds
        wanted = frame(bytes([n % 256]) * (50 + n))
        assert driver.arrive(wanted)
        ((data, bd),) = driver.receive()
        assert data == wanted
        assert bd[7] == 0x10000 | n % hw.RX_STD_RING
        driver.post(1)


def test_without_buffers_a_frame_is_not_taken_and_offered_again(driver: Driver) -> None:
    taken = [driver.arrive(frame(bytes([n]) * 60)) for n in range(201)]
    assert taken == [True] * 200 + [False]
    assert driver.wire.resumed == 0
    assert len(driver.receive()) == 200
    driver.post(10)
    assert driver.wire.resumed == 1
    assert driver.read(Reg.RCVLPC_NO_RCV_BD_CNT) == 1


def test_interrupts_are_one_shot_and_a_newer_tag_comes_at_once(driver: Driver) -> None:
    driver.write(Reg.MAILBOX_INTERRUPT_0, 1)
    before = driver.bus.interrupts
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert driver.bus.interrupts == before, "masked by the mailbox"
    driver.write(Reg.MAILBOX_INTERRUPT_0, (driver.status_word(StatusBlock.TAG) - 1 & 0xFF) << 24)
    assert driver.bus.interrupts == before + 1, "the driver has not seen the newest tag"
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert driver.bus.interrupts == before + 1, "disarmed by the last one"
    driver.arm()
    assert driver.bus.interrupts == before + 1, "nothing new"
    driver.write(Reg.TG3PCI_MISC_HOST_CTRL, hw.MiscHostCtrl.MASK_PCI_INT)
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert driver.bus.interrupts == before + 1, "masked in MISC_HOST_CTRL"


def test_intx_is_a_pin_that_the_mailbox_lets_go(driver: Driver) -> None:
    driver.bus.msi_enabled = False
    driver.arm()
    assert driver.read(Reg.TG3PCI_PCISTATE) & hw.PciState.INT_NOT_ACTIVE
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert driver.bus.pin
    assert not driver.read(Reg.TG3PCI_PCISTATE) & hw.PciState.INT_NOT_ACTIVE
    driver.write(Reg.MAILBOX_INTERRUPT_0, 1)
    assert not driver.bus.pin


def test_coalescing_waits_for_frames_or_time(driver: Driver) -> None:
    driver.write(Reg.HOSTCC_RXMAX_FRAMES, 5)
    driver.write(Reg.HOSTCC_RXCOL_TICKS, 1000)
    before = driver.bus.interrupts
    for _ in range(4):
        driver.arrive(frame())
    assert driver.bus.interrupts == before
    driver.bus.advance(0.0011)
    assert driver.bus.interrupts == before + 1
    driver.arm()
    for _ in range(5):
        driver.arrive(frame())
    assert driver.bus.interrupts == before + 2, "the fifth frame is not kept waiting for the timer of the first four"
    driver.bus.advance(0.0011)
    assert driver.bus.interrupts == before + 2


def test_a_sent_frame_is_told_when_its_delay_is_over_or_with_the_next_that_comes(driver: Driver) -> None:
    """One interrupt a ping, not two."""
    driver.write(Reg.HOSTCC_TXMAX_FRAMES, 53)
    driver.write(Reg.HOSTCC_TXCOL_TICKS, 72)
    before = driver.bus.interrupts
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert (len(driver.wire.sent), driver.bus.interrupts) == (1, before)
    driver.arrive(frame())
    assert (driver.bus.interrupts, driver.index(StatusBlock.TX_CONSUMER)) == (before + 1, 1)
    driver.arm()
    driver.send(frame(b"x" * 50, PEER, MAC))
    driver.bus.advance(80e-6)
    assert (driver.bus.interrupts, driver.index(StatusBlock.TX_CONSUMER)) == (before + 2, 2)


def test_who_goes_on_sending_is_told_by_frames_and_not_by_time(driver: Driver) -> None:
    """53 frames or 72 us are a burst on silicon; under emulation the driver makes ten frames in that time."""
    driver.write(Reg.HOSTCC_TXMAX_FRAMES, 53)
    driver.write(Reg.HOSTCC_TXCOL_TICKS, 72)
    before = driver.chip.status.tag
    for _ in range(106):
        driver.send(frame(b"x" * 50, PEER, MAC))
        driver.bus.advance(8e-6)
    assert (driver.chip.status.tag - before, driver.index(StatusBlock.TX_CONSUMER)) == (2, 106)
    driver.send(frame(b"x" * 50, PEER, MAC))
    driver.bus.advance(2 * 72e-6)
    assert driver.index(StatusBlock.TX_CONSUMER) == 107, "who has stopped is told when the delay is over"


def test_who_goes_on_sending_slowly_is_told_at_times(driver: Driver) -> None:
    driver.write(Reg.HOSTCC_TXMAX_FRAMES, 53)
    driver.write(Reg.HOSTCC_TXCOL_TICKS, 72)
    before, began = driver.chip.status.tag, driver.bus.now
    for _ in range(40):
        driver.send(frame(b"x" * 50, PEER, MAC))
        driver.bus.advance(30e-6)
    told = driver.chip.status.tag - before
    assert 2 <= told <= 1 + (driver.bus.now - began) / (STREAM - 72e-6)


def test_frames_that_come_together_are_taken_in_order_as_far_as_there_is_room() -> None:
    driver = Driver(up=False)
    driver.bring_up(rx_buffers=10)
    frames = [frame(bytes([number]) * 50) for number in range(16)]
    assert driver.chip.receive_all(frames[:6]) == 6
    assert driver.chip.receive_all(frames[6:]) == 4, "the rest is offered again"
    driver.chip.settle()
    assert [data for data, _ in driver.receive()] == frames[:10]
    driver.post(20)
    assert driver.chip.receive_all(frames[10:]) == 6
    driver.chip.settle()
    assert [data for data, _ in driver.receive()] == frames[10:]


def test_frames_around_the_end_of_both_rings_and_those_for_others() -> None:
    driver = Driver(up=False)
    driver.bring_up(rx_buffers=300)
    wanted = []
    for number in range(100):
        burst = [frame(bytes([number, nth]) * 30, MAC if nth % 3 else PEER) for nth in range(16)]
        wanted += [each for each in burst if each[:6] == MAC]
        assert driver.chip.receive_all(burst) == 16
        driver.chip.settle()
        assert [data for data, _ in driver.receive()] == wanted[-10:]
        driver.post(10)
    assert (driver.counts["rx_frames"], len(wanted)) == (1000, 1000)


def test_a_buffer_that_is_nowhere_ends_a_burst_and_nothing_else(driver: Driver) -> None:
    driver.bus.memory.write(STD + 2 * hw.RX_BD.size, hw.RX_BD.pack(0xFFFF, 0, 1536, 0, 0, 0, 0, 0))
    assert driver.chip.receive_all([frame(bytes([number]) * 50) for number in range(4)]) == 4
    driver.chip.settle()
    assert [data[14] for data, _ in driver.receive()] == [0, 1]
    assert driver.counts["dma_faults"] > 0


def test_frame_limits_hold_within_a_burst(driver: Driver) -> None:
    """So that a guest takes frames while the chip still has more."""
    driver.write(Reg.HOSTCC_RXMAX_FRAMES, 5)
    driver.write(Reg.HOSTCC_TXMAX_FRAMES, 4)
    before = driver.bus.interrupts
    for _ in range(12):
        assert driver.chip.receive(frame())
    assert driver.index(StatusBlock.RX_PRODUCER) == 10
    assert driver.bus.interrupts == before + 1, "one-shot: the driver has not armed it again"
    driver.chip.settle()
    assert driver.index(StatusBlock.RX_PRODUCER) == 12
    written = driver.status_word(StatusBlock.TAG)
    for _ in range(9):
        driver.queue([frame()])
    driver.bell()
    assert driver.status_word(StatusBlock.TAG) == written + 3, "after four, after eight, at the end"
    assert driver.index(StatusBlock.TX_CONSUMER) == 9


def test_what_was_rung_for_leaves_whatever_comes_next(driver: Driver) -> None:
    """In one burst of accesses: the last words of a driver that is shut down."""
    for number, end in enumerate((Reg.MAC_TX_MODE, Reg.GRC_MISC_CFG), 1):
        driver.queue([frame()])
        driver.chip.write(Reg.MAILBOX_SNDHOST_PROD_IDX_0, driver.tx_producer.to_bytes(4, "little"))
        driver.chip.write(end, (hw.GRC_MISC_CFG_CORECLK_RESET if end == Reg.GRC_MISC_CFG else 0).to_bytes(4, "little"))
        assert len(driver.wire.sent) == number
        driver.write(Reg.MAC_TX_MODE, hw.MODE_ENABLE)
