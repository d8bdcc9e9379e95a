"""The 82540EM model: EEPROM, PHY, interrupts, descriptors of all kinds, offloads, filters, statistics, resets. Layouts: test_layout_e1000."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest

from guest.netpoll.layout import e1000 as hw
from guest.netpoll.layout.e1000 import (
    Ctrl,
    Eecd,
    Eerd,
    Int,
    Mdic,
    Popts,
    Rctl,
    Reg,
    RxError,
    RxStatus,
    Status,
    Tctl,
    TxCmd,
)
from guest.netpoll.wire.checksum import ones_sum
from harness.nic.e1000.chip import E1000
from harness.nic.faults import Setting
from harness.nic.inprocess import Clock, Slot, Tape

MAC, PEER = bytes.fromhex("525400aabb01"), bytes.fromhex("525400aabb02")
RING = 16
UDP = (
    PEER
    + MAC
    + b"\x08\x00"
    + bytes.fromhex("4500002e00010000401100000a0000010a000002")
    + b"\x12\x34\x00\x35\x00\x1a\x00\x00"
    + b"last words, here.."
)


class Driver:
    """Rings of sixteen, buffers of 2048."""

    def __init__(self, control: int = 0) -> None:
        self.clock, self.wire = Clock(), Tape()
        self.slot = Slot("e1000", MAC, self.wire, self.clock)
        assert isinstance(self.slot.chip, E1000)
        self.chip = self.slot.chip
        self.bar = self.slot.bar(0, hw.BAR_SIZE)
        self.slot.set_master(True)
        self.read, self.write = self.bar.read32, self.bar.write32
        self.tx, self.rx = self.slot.dma_alloc(16 * RING), self.slot.dma_alloc(16 * RING)
        self.buffers = [self.slot.dma_alloc(2048) for _ in range(RING)]
        self.tail = 0
        self.write(Reg.CTRL, Ctrl.SLU | Ctrl.FD)
        for base, area in ((Reg.TDBAL, self.tx), (Reg.RDBAL, self.rx)):
            self.write(base, area.address & 0xFFFF_FFFF)
            self.write(base + 4, area.address >> 32)
            self.write(base + 8, 16 * RING)
        for n, buffer in enumerate(self.buffers):
            struct.pack_into("<QQ", self.rx.view, 16 * n, buffer.address, 0)
        self.write(Reg.RDT, RING - 1)
        self.write(Reg.TCTL, Tctl.EN)
        self.write(Reg.RCTL, Rctl.EN | Rctl.BAM | control)

    def queue(self, descriptor: bytes) -> None:
        self.tx.view[16 * self.tail : 16 * self.tail + 16] = descriptor
        self.tail = (self.tail + 1) % RING

    def bell(self) -> None:
        self.write(Reg.TDT, self.tail)

    def memory(self, data: bytes) -> int:
        buffer = self.slot.dma_alloc(len(data))
        buffer.view[:] = data
        return buffer.address

    def legacy(
        self, data: bytes, command: int = TxCmd.EOP | TxCmd.RS, cso: int = 0, css: int = 0, special: int = 0
    ) -> None:
        self.queue(hw.TX_LEGACY.pack(self.memory(data), len(data), cso, command, 0, css, special))

    def data(self, data: bytes, command: int, options: int = 0) -> None:
        word = len(data) | hw.DTYP_DATA << hw.TX_DTYP_SHIFT | (command | TxCmd.DEXT) << hw.TX_CMD_SHIFT
        self.queue(hw.TX_DATA.pack(self.memory(data), word, 0, options, 0))

    def arrive(self, frame: bytes) -> bool:
        taken = self.chip.receive(frame)
        self.chip.settle()
        return taken

    def descriptor(self, at: int) -> tuple[int, ...]:
        return hw.RX_LEGACY.unpack_from(self.rx.view, 16 * at)

    def received(self) -> list[bytes]:
        """Frames from the ring's start on, with what else there is of FCS."""
        found, frame = [], b""
        for at in range(RING):
            _, length, _, status, _, _ = self.descriptor(at)
            if not status & RxStatus.DD:
                break
            frame += bytes(self.buffers[at].view[:length])
            if status & RxStatus.EOP:
                found.append(frame)
                frame = b""
        return found


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver()
    yield made
    made.slot.close()


def clocked(driver: Driver, bits: str) -> str:
    """Clock bits into the EEPROM; what came out while we did."""
    out = ""
    base = Eecd.EE_REQ | Eecd.CS
    for bit in bits:
        data = Eecd.DI if bit == "1" else Eecd(0)
        for clock in (Eecd.SK, Eecd(0)):
            driver.write(Reg.EECD, base | data | clock)
        out += "1" if driver.read(Reg.EECD) & Eecd.DO else "0"
    return out


def microwire(driver: Driver, address: int) -> int:
    driver.write(Reg.EECD, Eecd.EE_REQ)
    assert driver.read(Reg.EECD) & Eecd.EE_GNT
    driver.write(Reg.EECD, Eecd.EE_REQ | Eecd.CS)
    clocked(driver, f"110{address:06b}")
    word = int(clocked(driver, "0" * 16), 2)
    driver.write(Reg.EECD, 0)
    return word


def test_the_eeprom_adds_up_bit_by_bit_and_word_by_word(driver: Driver) -> None:
    words = [microwire(driver, address) for address in range(hw.EEPROM_SIZE_WORDS)]
    assert sum(words) & 0xFFFF == 0xBABA
    assert struct.pack("<3H", *words[:3]) == MAC
    for address in (0, 1, 0x3F):
        driver.write(Reg.EERD, address << hw.EERD_ADDR_SHIFT | Eerd.START)
        said = driver.read(Reg.EERD)
        assert said & Eerd.DONE
        assert said >> hw.EERD_DATA_SHIFT == words[address]


def test_the_phy_answers_at_its_own_address_alone(driver: Driver) -> None:
    def mdic(phy: int, register: int) -> int:
        driver.write(Reg.MDIC, Mdic.OP_READ | phy << hw.MDIC_PHY_SHIFT | register << hw.MDIC_REG_SHIFT)
        return driver.read(Reg.MDIC)

    assert [mdic(1, register) & 0xFFFF for register in (2, 3)] == [0x0141, 0x0C20]
    assert mdic(1, 17) & 0xFFFF == 2 << 14 | 1 << 13 | 1 << 11 | 1 << 10, "1000 Mbit/s, full duplex, resolved, link"
    assert mdic(2, 2) & Mdic.E
    assert not mdic(1, 2) & Mdic.E


def test_a_cause_interrupts_as_far_as_the_mask_lets_it(driver: Driver) -> None:
    asserted = driver.slot.pci.irqs
    driver.write(Reg.ICS, Int.LSC)
    assert not asserted.asserted
    driver.write(Reg.IMS, Int.LSC | Int.RXT0)
    assert asserted.asserted
    assert driver.read(Reg.ICR) & Int.LSC
    assert not asserted.asserted
    assert driver.read(Reg.ICR) == 0
    driver.write(Reg.IMC, Int.RXT0)
    driver.arrive(MAC + PEER + b"\x88\xb5" + bytes(46))
    assert driver.read(Reg.IMS) == Int.LSC
    assert not asserted.asserted
    driver.write(Reg.IMS, Int.RXT0)
    assert asserted.asserted, "what came meanwhile interrupts at once"


def test_status_follows_the_link_and_a_change_is_a_cause(driver: Driver) -> None:
    assert (
        driver.read(Reg.STATUS) & (Status.LU | Status.FD | Status.SPEED_1000)
        == Status.LU | Status.FD | Status.SPEED_1000
    )
    driver.read(Reg.ICR)
    driver.chip.plug(False)
    assert not driver.read(Reg.STATUS) & Status.LU
    assert driver.read(Reg.ICR) & Int.LSC
    driver.chip.plug(True, silent=True)
    assert not driver.read(Reg.ICR) & Int.LSC
    assert driver.read(Reg.STATUS) & Status.LU


def test_a_legacy_frame_in_pieces_with_its_checksum_and_its_status(driver: Driver) -> None:
    driver.legacy(UDP[:20], TxCmd(0))
    driver.legacy(UDP[20:], TxCmd.EOP | TxCmd.RS)
    driver.legacy(UDP, TxCmd.EOP | TxCmd.IC, cso=24, css=14)
    driver.bell()
    assert [len(frame) for frame in driver.wire.sent] == [60, 60]
    assert driver.wire.sent[0][: len(UDP)] == UDP
    assert [driver.tx.view[16 * n + hw.TX_STA_OFFSET] for n in range(3)] == [0, 1, 0], "DD where it was asked for"
    assert driver.wire.sent[1][24:26] != UDP[24:26], "the sum from CSS to the end"
    assert driver.read(Reg.TDH) == 3
    assert driver.read(Reg.ICR) & (Int.TXDW | Int.TXQE) == Int.TXDW | Int.TXQE


def context(driver: Driver, **fields: int) -> None:
    get = fields.get
    word = get("paylen", 0) | (get("command", 0) | TxCmd.DEXT) << hw.TX_CMD_SHIFT
    driver.queue(hw.TX_CONTEXT.pack(14, 24, 33, 34, get("tucso", 40), 0, word, 0, get("hdrlen", 0), get("mss", 0)))


def test_checksums_go_where_the_context_says(driver: Driver) -> None:
    context(driver)
    driver.data(UDP, TxCmd.EOP | TxCmd.IFCS | TxCmd.RS, Popts.IXSM)
    driver.bell()
    (frame,) = driver.wire.sent
    assert ones_sum(frame[14:34]) == 0
    assert frame[40:42] == b"\0\0", "the UDP sum was not asked for"


def test_tcp_is_segmented(driver: Driver) -> None:
    header = (
        UDP[:16]
        + b"\0\0"
        + UDP[18:23]
        + b"\x06"
        + UDP[24:34]
        + struct.pack("!HHIIBBHHH", 1, 2, 1000, 0, 0x50, 0x18, 512, 0, 0)
    )
    payload = bytes(range(250)) * 4
    command = hw.TUCMD_TCP | hw.TUCMD_IP | hw.TX_TSE
    context(driver, tucso=50, command=command, paylen=1000, hdrlen=54, mss=400)
    driver.data(header, hw.TX_TSE)
    driver.data(payload, TxCmd.EOP | hw.TX_TSE | TxCmd.RS, Popts.IXSM | Popts.TXSM)
    driver.bell()
    frames = driver.wire.sent
    assert b"".join(frame[54:] for frame in frames) == payload
    assert [len(frame) for frame in frames] == [454, 454, 254]
    assert [int.from_bytes(frame[38:42], "big") for frame in frames] == [1000, 1400, 1800]
    assert all(ones_sum(frame[14:34]) == 0 for frame in frames)


def test_vlan_tags_are_put_in_and_taken_off() -> None:
    driver = Driver()
    driver.write(Reg.CTRL, Ctrl.SLU | Ctrl.VME)
    driver.legacy(UDP, TxCmd.EOP | TxCmd.VLE, special=5)
    driver.bell()
    assert driver.wire.sent[0][12:16] == b"\x81\x00\x00\x05"
    driver.arrive(MAC + PEER + b"\x81\x00\x00\x07\x88\xb5" + bytes(50))
    _, length, _, status, _, special = driver.descriptor(0)
    assert (length, special, bool(status & RxStatus.VP)) == (64 + hw.FCS, 7, True)


def test_what_arrives_is_in_the_buffer_with_its_fcs_or_without() -> None:
    frame = MAC + PEER + b"\x88\xb5" + bytes(range(80))
    driver = Driver()
    driver.arrive(frame)
    assert driver.received() == [frame + zlib.crc32(frame).to_bytes(4, "little")]
    stripping = Driver(Rctl.SECRC)
    stripping.arrive(frame)
    assert stripping.received() == [frame]
    assert stripping.read(Reg.RDH) == 1


def test_a_frame_larger_than_a_buffer_goes_on_in_the_next() -> None:
    frame = MAC + PEER + b"\x88\xb5" + bytes(1000)
    driver = Driver(Rctl.SECRC | 0b11 << hw.BSIZE_SHIFT)
    driver.arrive(frame)
    assert [driver.descriptor(n)[1] for n in range(4)] == [256, 256, 256, 246]
    assert driver.received() == [frame]


def test_checksums_of_what_arrives_are_told() -> None:
    driver = Driver(Rctl.SECRC)
    driver.write(Reg.RXCSUM, hw.Rxcsum.IPOFL | hw.Rxcsum.TUOFL)
    driver.arrive(MAC + PEER + UDP[12:])
    status, errors = driver.descriptor(0)[3:5]
    assert status & RxStatus.IPCS
    assert errors & RxError.IPE, "UDP has no header checksum yet"


def test_without_descriptors_a_frame_waits_and_rdt_calls_for_it(driver: Driver) -> None:
    frame = MAC + PEER + b"\x88\xb5" + bytes(50)
    assert [driver.arrive(frame) for _ in range(RING)] == [True] * (RING - 1) + [False]
    assert driver.read(Reg.RNBC) == 1
    driver.write(Reg.RDT, 3)
    assert driver.wire.resumed == 1
    assert driver.arrive(frame)


FILTERS: dict[str, tuple[int, bytes, bool]] = {
    "its own": (0, MAC, True),
    "a stranger's": (0, PEER, False),
    "a stranger's, promiscuous": (Rctl.UPE, PEER, True),
    "broadcast": (0, b"\xff" * 6, True),
    "multicast": (0, bytes.fromhex("01005e000001"), False),
    "multicast, all of it": (Rctl.MPE, bytes.fromhex("01005e000001"), True),
}


@pytest.mark.parametrize(("control", "target", "taken"), FILTERS.values(), ids=FILTERS)
def test_filters(control: int, target: bytes, taken: bool) -> None:
    driver = Driver(control | Rctl.SECRC)
    driver.arrive(target + PEER + b"\x88\xb5" + bytes(50))
    assert len(driver.received()) == taken


def test_the_multicast_table_is_the_manual_s(driver: Driver) -> None:
    target = bytes.fromhex("01005e0000fb")
    bit = hw.hash_bit(target, 0)
    driver.write(Reg.MTA + 4 * (bit >> 5), 1 << (bit & 31))
    driver.arrive(target + PEER + b"\x88\xb5" + bytes(50))
    assert len(driver.received()) == 1
    assert driver.descriptor(0)[3] & RxStatus.PIF, "by a hash that others share"


def test_counters_are_cleared_by_reading(driver: Driver) -> None:
    driver.legacy(UDP)
    driver.bell()
    driver.arrive(b"\xff" * 6 + PEER + b"\x88\xb5" + bytes(86))
    assert [driver.read(at) for at in (Reg.GPTC, Reg.GOTCL, Reg.PTC64, Reg.GPRC, Reg.BPRC, Reg.PRC127)] == [
        1,
        64,
        1,
        1,
        1,
        1,
    ]
    assert driver.read(Reg.GOTCL) == 64, "the lower half stays until the upper is read"
    driver.read(Reg.GOTCH)
    assert [driver.read(at) for at in (Reg.GPTC, Reg.GOTCL, Reg.PTC64, Reg.GPRC)] == [0, 0, 0, 0]


@pytest.mark.parametrize("by_port", [False, True], ids=["memory", "ports"])
def test_a_reset_clears_what_is_the_macs_and_clears_itself(driver: Driver, by_port: bool) -> None:
    driver.write(Reg.MTA, 0x1234)
    driver.write(Reg.RAL, 0)
    if by_port:
        ports = driver.slot.bar(1, 8)
        ports.write32(0, Reg.CTRL)
        ports.write32(4, Ctrl.RST)
        assert ports.read32(4) == driver.read(Reg.CTRL)
    else:
        driver.write(Reg.CTRL, Ctrl.RST)
    assert not driver.read(Reg.CTRL) & Ctrl.RST
    assert [driver.read(at) for at in (Reg.MTA, Reg.RCTL, Reg.TDT)] == [0, 0, 0]
    assert struct.pack("<II", driver.read(Reg.RAL), driver.read(Reg.RAH)) == MAC + b"\x00\x80"


def test_memory_that_is_not_there_costs_the_frame_alone(driver: Driver) -> None:
    driver.queue(hw.TX_LEGACY.pack(0xDEAD_0000, 60, 0, TxCmd.EOP | TxCmd.RS, 0, 0, 0))
    driver.legacy(UDP)
    driver.bell()
    assert len(driver.wire.sent) == 1
    assert driver.slot.counts["dma_faults"] == 1
    assert [fault.address for fault in driver.slot.faults] == [0xDEAD_0000]


def test_a_frame_without_end_is_thrown_away(driver: Driver) -> None:
    for _ in range(RING - 1):
        driver.data(bytes(16288), TxCmd(0))
    driver.bell()
    driver.legacy(UDP)
    driver.bell()
    driver.legacy(UDP)
    driver.bell()
    assert len(driver.wire.sent) == 1, "what the endless one ended with is lost, the next is not"


def test_an_unknown_fault_is_refused_by_name(driver: Driver) -> None:
    with pytest.raises(ValueError, match=r"e1000 has no fault 'stale-status'; there are no-interrupts"):
        driver.chip.fault("stale-status", Setting())
