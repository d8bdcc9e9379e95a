"""The BCM5787 model in one process: rings, status block, interrupts, filters, statistics, PHY, NVRAM, resets, faults. Driven as
Linux' tg3 drives it (harness.tests.tg3_rig)."""

from __future__ import annotations

import random
import struct
import zlib
from typing import get_args

import pytest

from guest.netpoll.layout import bcm5787 as hw
from guest.netpoll.layout.bcm5787 import Mii, Reg, StatusBlock
from harness.nic.faults import FRAME_FAULTS, NAMES, Setting
from harness.nic.mii import NEGOTIATION, Partner
from harness.nic.tg3.filter import hash_bit
from harness.scenario.words import FaultName
from harness.tests.tg3_rig import MAC, PEER, RX_BUFFERS, STATUS, STD, Driver, frame


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_golden_bytes_of_layouts_from_the_programmers_reference() -> None:
    """A shared layout hides mistakes that both ends make; these bytes are spelled out."""
    assert hw.TX_BD.pack(0x11223344, 0x55667788, 0x05DC0004, 0xA8000064).hex() == "44332211887766550400dc05640000a8"
    bd = hw.RX_BD.pack(0, 0x1000, 0x00070600, 0x2004, 0xFFFF, 0x64, 0, 0x10007)
    assert bd.hex() == "00000000001000000006070004200000ffff0000640000000000000007000100"
    assert (StatusBlock.RX_STD_CONSUMER, StatusBlock.RX_PRODUCER, StatusBlock.TX_CONSUMER) == (10, 16, 18)
    assert (Reg.MAILBOX_SNDHOST_PROD_IDX_0, Reg.MAC_MI_COM, Reg.GRC_MISC_CFG) == (0x304, 0x44C, 0x6804)


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


def group(n: int) -> bytes:
    return bytes.fromhex("01005e0000") + bytes([n])


def test_the_filter_takes_what_is_meant_for_us(driver: Driver) -> None:
    def takes(target: bytes) -> bool:
        driver.arrive(frame(target=target))
        return len(driver.receive()) == 1

    assert takes(MAC)
    assert takes(b"\xff" * 6)
    assert not takes(PEER)
    assert not takes(group(1))
    bit = hash_bit(group(1))
    driver.write(Reg.MAC_HASH_REG_0 + 4 * (bit >> 5), 1 << (bit & 31))
    assert takes(group(1))
    assert not takes(group(2))
    driver.write(Reg.MAC_ADDR_0_HIGH + 8, int.from_bytes(PEER[:2], "big"))
    driver.write(Reg.MAC_ADDR_0_LOW + 8, int.from_bytes(PEER[2:], "big"))
    assert takes(PEER)
    driver.write(Reg.MAC_RX_MODE, hw.MODE_ENABLE | hw.RxMode.PROMISC)
    assert takes(bytes.fromhex("02000000aaaa"))


def test_the_hash_is_the_one_that_tg3_computes() -> None:
    """__tg3_set_rx_mode(): ~crc & 0x7f of calc_crc(), for 224.0.0.1; calc_crc() is Ethernet's CRC-32."""
    register = 0xFFFFFFFF
    for byte in group(1):
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    assert hash_bit(group(1)) == register & 0x7F


def test_statistics_agree_with_the_wire_and_are_cleared_by_reading(driver: Driver) -> None:
    sizes = [60, 100, 1514]
    for size, target in zip(sizes, (PEER, group(1), b"\xff" * 6), strict=True):
        driver.send(frame(b"t" * (size - 14), target, MAC))
        driver.arrive(frame(b"r" * (size - 14), MAC))
    driver.arrive(frame(target=b"\xff" * 6))
    reads = {register: driver.read(register) for register in hw.STATISTICS}
    assert reads[Reg.MAC_TX_STATS_OCTETS] == sum(sizes) + 3 * hw.FCS
    assert [reads[Reg.MAC_TX_STATS_UCAST + 4 * n] for n in range(3)] == [1, 1, 1]
    assert reads[Reg.MAC_RX_STATS_OCTETS] == sum(sizes) + 64 + 4 * hw.FCS
    assert (reads[Reg.MAC_RX_STATS_UCAST], reads[Reg.MAC_RX_STATS_BCAST]) == (3, 1)
    assert not any(driver.read(register) for register in hw.STATISTICS)


def test_too_long_frames_and_pause_frames_are_counted_and_kept_away(driver: Driver) -> None:
    driver.arrive(frame(b"x" * 1505))
    driver.arrive(frame(b"\x00\x01\x00\x10" + bytes(42), bytes.fromhex("0180c2000001"), PEER, 0x8808))
    driver.write(Reg.MAC_HASH_REG_0, 0xFFFFFFFF)
    driver.write(Reg.MAC_RX_MODE, hw.MODE_ENABLE | hw.RxMode.PROMISC)
    driver.arrive(frame(b"\x00\x01\x00\x10" + bytes(42), bytes.fromhex("0180c2000001"), PEER, 0x8808))
    assert driver.receive() == []
    assert driver.read(Reg.MAC_RX_STATS_FRAME_TOO_LONG) == 1
    assert driver.read(Reg.MAC_RX_STATS_XOFF_PAUSE_RECVD) == 1


def test_vlan_tags_come_off_and_go_on(driver: Driver) -> None:
    tagged = MAC + PEER + bytes.fromhex("81006064") + b"\x88\xb5" + b"v" * 60
    driver.arrive(tagged)
    ((data, bd),) = driver.receive()
    assert data == tagged[:12] + tagged[16:]
    assert (bd[3] & hw.RxFlag.VLAN, bd[5] & 0xFFFF) == (hw.RxFlag.VLAN, 0x6064)
    driver.send(data, flags=hw.TxFlag.VLAN, vlan=0x6064)
    assert driver.wire.sent == [tagged]
    driver.write(Reg.MAC_RX_MODE, hw.MODE_ENABLE | hw.RxMode.KEEP_VLAN_TAG)
    driver.arrive(tagged)
    assert driver.receive()[0][0] == tagged


def test_the_cable_is_told_by_status_block_and_phy(driver: Driver) -> None:
    driver.chip.plug(False)
    assert driver.status_word(StatusBlock.STATUS) & hw.Status.LINK_CHG
    assert not driver.mii(Mii.BMSR) & 4
    driver.send(frame(b"x" * 50, PEER, MAC))
    driver.arrive(frame())
    assert (driver.wire.sent, driver.receive()) == ([], [])
    assert driver.counts["tx_without_link"] == 1
    driver.write(Reg.MAC_STATUS, hw.MacStatus.LNKSTATE_CHANGED)
    driver.chip.plug(True)
    assert not driver.mii(Mii.BMSR) & 4, "the link bit latches low until it is read"
    assert driver.mii(Mii.BMSR) & 4
    driver.chip.plug(False, silent=True)
    assert not driver.read(Reg.MAC_STATUS) & hw.MacStatus.MI_COMPLETION
    assert driver.told[-1][1]["silent"] is True


MODES = {
    "everything": (0x01E1, 0x0300, Partner(), 0x0700),
    "no gigabit here": (0x01E1, 0x0000, Partner(), 0x0500),
    "no gigabit there": (0x01E1, 0x0300, Partner(ctrl1000=0), 0x0500),
    "half duplex gigabit": (0x01E1, 0x0100, Partner(), 0x0600),
    "ten": (0x0061, 0x0000, Partner(), 0x0200),
    "nothing in common": (0x0021, 0x0000, Partner(advertise=0x0181, ctrl1000=0), 0),
}


@pytest.mark.parametrize(("advertise", "ctrl1000", "partner", "speed"), MODES.values(), ids=MODES.keys())
def test_negotiation_finds_the_best_common_mode(
    driver: Driver, advertise: int, ctrl1000: int, partner: Partner, speed: int
) -> None:
    driver.chip.partner(partner)
    driver.mii(Mii.ADVERTISE, advertise)
    driver.mii(Mii.CTRL1000, ctrl1000)
    driver.mii(Mii.BMCR, 0x1200)
    assert driver.mii(Mii.AUX_STAT) == 0, "not before it is over"
    driver.bus.advance(2 * NEGOTIATION)
    assert driver.mii(Mii.AUX_STAT) & 0x0700 == speed


@pytest.mark.parametrize(("bmcr", "speed"), [(0x2100, 0x0500), (0x2000, 0x0300), (0x0100, 0x0200), (0x0000, 0x0100)])
def test_a_forced_mode_needs_no_negotiation(driver: Driver, bmcr: int, speed: int) -> None:
    driver.mii(Mii.BMCR, bmcr)
    assert driver.mii(Mii.AUX_STAT) & 0x0700 == speed
    driver.mii(Mii.BMCR, 0x4000)
    assert not driver.mii(Mii.BMSR) & driver.mii(Mii.BMSR) & 4, "loopback has no link"


def test_another_phy_address_does_not_answer(driver: Driver) -> None:
    driver.write(Reg.MAC_MI_COM, hw.MiCom.START | hw.MiCom.CMD_READ | 2 << 21 | Mii.PHYSID1 << 16)
    assert driver.read(Reg.MAC_MI_COM) & hw.MiCom.READ_FAILED
    assert (driver.mii(Mii.PHYSID1), driver.mii(Mii.PHYSID2)) == hw.PHY_ID


def nvram(driver: Driver, at: int) -> bytes:
    driver.write(Reg.NVRAM_SWARB, 2)
    assert driver.read(Reg.NVRAM_SWARB) & 0x200
    driver.write(Reg.NVRAM_ADDR, at)
    driver.write(Reg.NVRAM_CMD, hw.NvramCmd.GO)
    assert driver.read(Reg.NVRAM_CMD) & hw.NvramCmd.DONE
    value = driver.read(Reg.NVRAM_RDDATA)
    driver.write(Reg.NVRAM_SWARB, 0x20)
    return value.to_bytes(4, "big")


def test_nvram_is_what_tg3_test_nvram_wants(driver: Driver) -> None:
    data = b"".join(nvram(driver, at) for at in range(0, 0x200, 4))
    assert data[:4] == bytes.fromhex("669955aa")
    assert struct.unpack_from("<I", data, 0x10)[0] == zlib.crc32(data[:0x10])
    assert struct.unpack_from("<I", data, 0xFC)[0] == zlib.crc32(data[0x74:0xFC])
    assert data[0x7E:0x84] == MAC
    product = data[0x100:0x200]
    assert b"PN\x0dBCM95787A-NPH" in product
    checked = product.index(b"RV") + 4
    assert sum(product[:checked]) & 0xFF == 0
    length = struct.unpack_from("<H", product, 4 + struct.unpack_from("<H", product, 1)[0])[0]
    assert product[3 + struct.unpack_from("<H", product, 1)[0] + 3 + length] == 0x78, "the end tag follows the fields"


def test_nvram_can_be_written_and_is_arbitrated(driver: Driver) -> None:
    driver.write(Reg.NVRAM_ADDR, 0x1000)
    driver.write(Reg.NVRAM_WRDATA, 0xCAFEF00D)
    driver.write(Reg.NVRAM_CMD, hw.NvramCmd.GO | hw.NvramCmd.WR)
    assert nvram(driver, 0x1000).hex() == "cafef00d"
    driver.write(Reg.NVRAM_SWARB, 1)
    driver.write(Reg.NVRAM_SWARB, 2)
    assert driver.read(Reg.NVRAM_SWARB) & 0xF00 == 0x100, "one at a time"
    driver.write(Reg.NVRAM_SWARB, 0x10)
    assert driver.read(Reg.NVRAM_SWARB) & 0xF00 == 0x200


def test_a_core_reset_leaves_what_the_bootcode_leaves(driver: Driver) -> None:
    driver.sram(0xB50, hw.FIRMWARE_MBOX_MAGIC1)
    driver.write(0x4000, 0x1234)
    driver.write(Reg.TG3PCI_DMA_RW_CTRL, 0x763F0000)
    driver.write(Reg.GRC_MISC_CFG, hw.GRC_MISC_CFG_CORECLK_RESET)
    driver.write(Reg.TG3PCI_MEM_WIN_BASE_ADDR, 0xB50)
    assert driver.read(Reg.TG3PCI_MEM_WIN_DATA) == ~hw.FIRMWARE_MBOX_MAGIC1 & 0xFFFFFFFF
    assert driver.read(0x4000) == 0
    assert driver.read(Reg.TG3PCI_DMA_RW_CTRL) == 0x763F0000, "configuration space stays"
    assert driver.read(Reg.GRC_MISC_CFG) & 1 == 0
    assert driver.read(Reg.MAC_ADDR_0_LOW) == int.from_bytes(MAC[2:], "big")
    driver.send(frame(b"x" * 50, PEER, MAC))
    assert driver.wire.sent == [], "the MAC is off"


def test_memory_windows_show_the_same_memory(driver: Driver) -> None:
    driver.sram(0x8004, 0x11223344)
    driver.write(Reg.TG3PCI_MEM_WIN_BASE_ADDR, 0x8000)
    assert driver.read(Reg.NIC_SRAM_WIN_BASE + 4) == 0x11223344
    driver.write(Reg.TG3PCI_REG_BASE_ADDR, Reg.MAC_MI_MODE)
    driver.write(Reg.TG3PCI_REG_DATA, 0xC0000)
    assert driver.read(Reg.MAC_MI_MODE) == 0xC0000


def test_loopback_brings_frames_back_and_none_to_the_wire(driver: Driver) -> None:
    driver.write(Reg.MAC_MODE, hw.MacMode.PORT_INT_LPBACK)
    driver.send(frame(b"l" * 100, MAC, MAC))
    assert [data for data, _ in driver.receive()] == [frame(b"l" * 100, MAC, MAC)]
    driver.write(Reg.MAC_MODE, 0)
    driver.mii(Mii.BMCR, 0x4140)
    assert driver.read(Reg.MAC_TX_STATUS) & hw.TX_STATUS_LINK_UP
    driver.send(frame(b"m" * 100, MAC, MAC))
    assert len(driver.receive()) == 1
    assert driver.wire.sent == []


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
