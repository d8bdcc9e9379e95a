"""The BCM5787 model in one process: layouts, filters, statistics, PHY, NVRAM, resets. Driven as Linux' tg3 drives it
(harness.tests.tg3_rig)."""

from __future__ import annotations

import struct
import zlib

import pytest

from guest.netpoll.layout import bcm5787 as hw
from guest.netpoll.layout.bcm5787 import Mii, Reg, StatusBlock
from guest.netpoll.wire.checksum import pseudo_sum
from harness.nic.mii import NEGOTIATION, Partner
from harness.nic.offload import fill_checksum, fill_ip_checksum
from harness.nic.tg3.filter import hash_bit
from harness.tests.tg3_rig import MAC, PEER, Driver, frame


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


@pytest.mark.parametrize("kind", [0x0800, 0x88B5], ids=["IPv4, looked at once", "other"])
def test_the_longest_frame_passes_and_one_octet_more_does_not(driver: Driver, kind: int) -> None:
    for size in (1504, 1505):
        driver.arrive(frame(b"\x45" + bytes(size - 1), kind=kind))
    assert [len(data) for data, _ in driver.receive()] == [1518]
    assert driver.read(Reg.MAC_RX_STATS_FRAME_TOO_LONG) == 1


def test_a_datagram_is_checked_alike_with_a_tag_and_without(driver: Driver) -> None:
    """Without one it is done in fewer steps."""
    datagram = bytes.fromhex("4500003c0001000040110000c6336401c63364020001000900280000") + b"seen" * 8
    summed = pseudo_sum(
        datagram[12:16], datagram[16:20], 17, len(datagram) - 20
    )  # what fill_checksum finds in the field
    datagram = datagram[:26] + summed.to_bytes(2, "big") + datagram[28:]
    checked = fill_checksum(fill_ip_checksum(frame(datagram, kind=0x0800)))
    for arriving in (checked, checked[:12] + bytes.fromhex("81000064") + checked[12:]):
        driver.arrive(arriving)
    (plain, with_plain), (untagged, with_tag) = driver.receive()
    assert plain == untagged
    assert (with_plain[3] & hw.RxFlag.TCPUDP_CSUM, with_plain[4]) == (hw.RxFlag.TCPUDP_CSUM, 0xFFFF_FFFF)
    assert (with_plain[3] | hw.RxFlag.VLAN, with_plain[4]) == (with_tag[3], with_tag[4])


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
