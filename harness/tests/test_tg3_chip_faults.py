"""The BCM5787 model in one process, with faults on purpose, and with whatever a driver or the wire may do to it."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from guest.netpoll.layout import bcm5787 as hw
from guest.netpoll.layout.bcm5787 import Reg, StatusBlock
from harness.nic.faults import FRAME_FAULTS, NAMES, Setting
from harness.scenario.words import FaultName
from harness.tests.tg3_rig import MAC, PEER, RX_BUFFERS, STATUS, Driver, frame


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_the_testcases_know_every_fault() -> None:
    assert {*NAMES, "silent-link", "spurious-interrupt"} == set(get_args(FaultName))
    assert set(FRAME_FAULTS) <= set(NAMES)


def test_withheld_interrupts_come_at_the_end_of_the_fault(driver: Driver) -> None:
    before = driver.bus.interrupts
    driver.chip.fault("no-interrupts", Setting())
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert (driver.bus.interrupts, driver.counts["no-interrupts"]) == (before, 1)
    assert driver.index(StatusBlock.TX_CONSUMER) == 1, "polling finds what was sent"
    driver.chip.fault("no-interrupts", None)
    assert driver.bus.interrupts == before + 1


def test_withheld_completions_and_a_stale_status_block(driver: Driver) -> None:
    driver.chip.fault("no-completions", Setting())
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert (len(driver.wire.sent), driver.index(StatusBlock.TX_CONSUMER)) == (1, 0)
    driver.chip.fault("no-completions", None)
    assert driver.index(StatusBlock.TX_CONSUMER) == 1
    tag = driver.status_word(StatusBlock.TAG)
    driver.arm()
    before = driver.bus.interrupts
    driver.chip.fault("stale-status", Setting())
    driver.arrive(frame())
    assert (driver.status_word(StatusBlock.TAG), driver.bus.interrupts) == (tag, before + 1)
    driver.chip.fault("stale-status", None)
    assert len(driver.receive()) == 1


def test_dma_that_hangs_goes_on_at_the_end_of_the_fault(driver: Driver) -> None:
    driver.chip.fault("no-dma", Setting())
    for n in range(3):
        driver.send(frame(bytes([n]) * 50, PEER, MAC))
    assert driver.wire.sent == []
    driver.chip.fault("no-dma", None)
    assert [each[14] for each in driver.wire.sent] == [0, 1, 2]


def test_a_device_that_is_gone_reads_as_ones_and_a_slow_one_keeps_waiting(driver: Driver) -> None:
    driver.chip.fault("slow", Setting(seconds=0.5))
    driver.read(Reg.MAC_MODE)
    assert driver.bus.slept == 0.5
    driver.chip.fault("gone", Setting())
    driver.write(Reg.MAC_MODE, 0x10)
    assert driver.read(Reg.MAC_MODE) == 0xFFFFFFFF
    driver.chip.fault("gone", None)
    assert driver.read(Reg.MAC_MODE) == 0


def test_a_reset_that_is_ignored(driver: Driver) -> None:
    driver.chip.fault("no-reset", Setting())
    driver.write(0x4000, 7)
    driver.write(Reg.GRC_MISC_CFG, hw.GRC_MISC_CFG_CORECLK_RESET)
    assert driver.read(0x4000) == 7


def test_frames_that_go_wrong_on_the_way(driver: Driver) -> None:
    def three(name: str, **setting: float) -> list[int]:
        driver.wire.sent.clear()
        driver.chip.fault(name, Setting(direction="tx", **setting))
        for n in range(3):
            driver.send(frame(bytes([n]) * 50, PEER, MAC))
        now = [each[14] for each in driver.wire.sent]
        driver.chip.fault(name, None)
        return now

    assert three("drop") == []
    assert three("duplicate") == [0, 0, 1, 1, 2, 2]
    assert three("reorder") == [1, 0]
    assert driver.wire.sent[-1][14] == 2, "who waits is let go at the end"
    assert three("delay", seconds=1.0) == []
    driver.bus.advance(1.1)
    assert len(driver.wire.sent) == 3
    three("corrupt")
    clean = [frame(bytes([n]) * 50, PEER, MAC) for n in range(3)]
    flips = [
        bin(int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).count("1")
        for a, b in zip(driver.wire.sent, clean, strict=True)
    ]
    assert flips == [1, 1, 1]
    assert len(driver.receive()) == 0


@pytest.mark.parametrize(
    ("name", "setting"),
    [("drpo", Setting()), ("drop", Setting(chance=2)), ("slow", Setting(seconds=9)), ("drop", Setting(direction="up"))],
)
def test_senseless_faults_are_refused(driver: Driver, name: str, setting: Setting) -> None:
    with pytest.raises(ValueError, match=name):
        driver.chip.fault(name, setting)
    assert driver.chip.faults.on == {}


@pytest.mark.parametrize("seed", range(60))
def test_no_access_and_no_frame_breaks_the_chip(seed: int) -> None:
    """Any register with any value and width, any descriptor, any frame: no exception, and a reset brings it back."""
    rng, driver = random.Random(seed), Driver()
    interesting = [int(register) for register in Reg]
    for _ in range(150):
        offset = rng.choice(interesting) if rng.random() < 0.7 else rng.randrange(hw.BAR_SIZE)
        width = min(rng.choice([1, 2, 4, 8]), hw.BAR_SIZE - offset)
        if rng.random() < 0.3:
            driver.chip.read(offset, width)
        else:
            driver.chip.write(offset, rng.randbytes(width))
        if rng.random() < 0.2:
            driver.bus.memory.write(rng.randrange(0x1000, 0x12000), rng.randbytes(64))
        if rng.random() < 0.2:
            driver.chip.receive(rng.randbytes(rng.randint(14, 1600)))
        driver.chip.settle()
    driver.bus.advance(1)
    driver.chip.power_on_reset()
    driver.bus.advance(1)
    driver.tx_producer = driver.rx_consumer = driver.std_producer = 0
    driver.bus.memory.write(STATUS, bytes(0x50))
    driver.bring_up()
    driver.wire.sent.clear()
    driver.send(frame(b"back" * 20, PEER, MAC))
    driver.arrive(frame(b"here" * 20))
    assert driver.wire.sent == [frame(b"back" * 20, PEER, MAC)]
    assert [data for data, _ in driver.receive()] == [frame(b"here" * 20)]
    assert driver.bus.memory.read(RX_BUFFERS, 6) == MAC
