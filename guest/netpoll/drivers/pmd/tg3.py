"""tg3: a Broadcom BCM5787 by its Programmer's Reference, sections "Initialization" and "Transmit/Receive data flow".

    tx: send BD ring -> MAILBOX_SNDHOST_PROD_IDX_0         status block: tag, TX consumer, return producer, link
    rx: standard ring (buffers) -> MAILBOX_RCV_STD_PROD_IDX, return ring (frames) -> MAILBOX_RCVRET_CON_IDX_0

In: frames, what the chip writes. Out: a PollModeDevice. The one rule: nothing is read from the chip but at set-up and
when the link changes; work is found in the status block, whose tag changes with each thing that the chip has done.

Numbers in `start` count our steps, in the order of the reference's initialization as Linux has it (tg3_reset_hw(), tg3_chip_reset()); "5787"
marks what other chips of the family do otherwise.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence

from guest.netpoll.direct import DirectTx
from guest.netpoll.drivers.pmd.bus import BusError, PciDevice
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.ring import Ring, quads
from guest.netpoll.layout import bcm5787 as hw
from guest.netpoll.layout.bcm5787 import GrcMode, HostccMode, MacMode, Mii, MiscHostCtrl, Reg, Sram
from guest.netpoll.napi import netif_receive_skb_list
from guest.netpoll.netdevice import Net

RX_BUFFERS = 256  # of the standard ring's 512 descriptors
BOOTCODE = 0.75  # seconds until the bootcode must have reported (tg3_poll_fw)
BLOCK = 2e-3  # seconds until an engine must have stopped (tg3_stop_block)
MDIO = 5e-3
_HOST_CONTROL = (
    MiscHostCtrl.WORD_SWAP | MiscHostCtrl.PCISTATE_RW | MiscHostCtrl.INDIR_ACCESS | MiscHostCtrl.TAGGED_STATUS
)
_GRC_MODE = int(
    GrcMode.WSWAP_NONFRM_DATA | GrcMode.BSWAP_DATA | GrcMode.WSWAP_DATA | GrcMode.HOST_STACKUP | GrcMode.HOST_SENDBDS
    | GrcMode.NO_TX_PHDR_CSUM | GrcMode.NO_RX_PHDR_CSUM
)  # fmt: skip
_MAC_MODE = MacMode.TDE_ENABLE | MacMode.RDE_ENABLE | MacMode.FHDE_ENABLE
_END = int(hw.TxFlag.END)
# Numbers of what each poll touches: to look a member of an enum up costs as much as a store.
_TX_BELL, _RX_BELL = int(Reg.MAILBOX_SNDHOST_PROD_IDX_0), int(Reg.MAILBOX_RCVRET_CON_IDX_0)
_BUFFERS_BELL, _IRQ = int(Reg.MAILBOX_RCV_STD_PROD_IDX), int(Reg.MAILBOX_INTERRUPT_0)
_HOST_CTRL, _UNMASKED = int(Reg.TG3PCI_MISC_HOST_CTRL), int(_HOST_CONTROL)
_PCISTATE, _NOT_ACTIVE = int(Reg.TG3PCI_PCISTATE), int(hw.PciState.INT_NOT_ACTIVE)
_LAST = 511
_IN_ORDER = [*range(RX_BUFFERS), *range(RX_BUFFERS)]  # the buffers' turns, from any of them on
_STATUS_SIZE = 80
_UPDATED, _LINK_CHG, _ERROR = int(hw.Status.UPDATED), int(hw.Status.LINK_CHG), int(hw.RxFlag.ERROR)
_ENGINES = (  # what passes buffers and descriptors about, each with its mode register's bits
    (Reg.RCVCC_MODE, 0x6), (Reg.RCVLPC_MODE, 0x2), (Reg.RCVDBDI_MODE, 0x12), (Reg.RCVDCC_MODE, 0x6),
    (Reg.SNDDATAC_MODE, 0x2), (Reg.SNDBDC_MODE, 0x6), (Reg.RCVBDI_MODE, 0x6), (Reg.SNDDATAI_MODE, 0x2),
    (Reg.SNDBDI_MODE, 0x6), (Reg.SNDBDS_MODE, 0x6),
)  # fmt: skip
_SPEED_10_100 = (1, 2, 3, 5)  # AUX_STAT's speed field: MII instead of GMII
_HALF = (1, 3, 6)


class Tg3(PollModeDevice):
    """The driver. Raises BusError (ENODEV) for another chip."""

    def __init__(self, net: Net, name: str, bus: PciDevice) -> None:
        super().__init__(net, name, bus)
        if (bus.vendor, bus.device) != (hw.VENDOR, hw.DEVICE):
            found = f"{bus.vendor:04x}:{bus.device:04x}"
            raise BusError(errno.ENODEV, f"{bus.name} is {found}, not a BCM5787 (14e4:169b)")
        bus.set_dma_mask(64)
        self.regs = bus.bar(0, hw.BAR_SIZE)
        status = bus.dma_alloc(_STATUS_SIZE)
        self._status_at, words, halves = status.address, status.view.cast("I"), status.view.cast("H")
        self._words, self._halves = words, halves
        self.tx = Ring(bus, hw.TX_RING, usable=_LAST)
        self.rx = Ring(bus, RX_BUFFERS)
        tx, std, ret = (bus.dma_alloc(size) for size in (hw.TX_RING * 16, hw.RX_STD_RING * 32, hw.RX_RETURN_RING * 32))
        self._tx_at, self._std_at, self._return_at = tx.address, std.address, ret.address
        self._tx_words, self._std_words, self._return_words = (ring.view.cast("I") for ring in (tx, std, ret))
        self._tx_halves = tx.view.cast("H")
        if (self.tx.addresses[0] ^ self.tx.addresses[-1]) >> 32:
            raise BusError(
                errno.ERANGE, f"{bus.name}: its transmit buffers lie across 4 GiB, which its DMA does not cross"
            )
        self._tx_low = [address & 0xFFFF_FFFF for address in self.tx.addresses]
        self.wake_at = hw.TX_RING // 4  # TG3_TX_WAKEUP_THRESH
        self._last_tag = self._return = 0
        bus.set_master(True)
        self.dev_addr = self._address()

    def _address(self) -> bytes:
        """Where the bootcode has left it (tg3_get_device_address)."""
        high, low = self._sram(Sram.MAC_ADDR_HIGH_MBOX), self._sram(Sram.MAC_ADDR_LOW_MBOX)
        if high >> 16 != hw.MAC_ADDR_MBOX_SIGNATURE:
            raise BusError(errno.ENODEV, f"{self.bus.name}: the bootcode has left no MAC address")
        return (high & 0xFFFF).to_bytes(2, "big") + low.to_bytes(4, "big")

    # Set-up

    def start(self) -> None:
        write = self.regs.write32
        self.bus.set_master(True)  # 1
        write(Reg.TG3PCI_MISC_HOST_CTRL, _HOST_CONTROL | MiscHostCtrl.MASK_PCI_INT)  # 2
        self._reset()  # 3
        write(Reg.GRC_MODE, _GRC_MODE)  # 4: words and bytes swapped as this CPU has them
        write(
            Reg.GRC_MISC_CFG, hw.GRC_MISC_CFG_KEEP_GPHY_POWER | 65 << hw.GRC_MISC_CFG_PRESCALAR_SHIFT
        )  # 5: the timers count 66 MHz
        self._buffers()  # 6
        self._rings()  # 7
        self._mac()  # 8
        self._coalescing()  # 9
        for register, value in _ENGINES:  # 10
            write(register, value)
        write(Reg.MAC_TX_MODE, hw.MODE_ENABLE)  # 11
        write(Reg.MAC_RX_MODE, hw.MODE_ENABLE)  # 12
        self._phy()  # 13
        write(Reg.MAILBOX_RCV_STD_PROD_IDX, self.rx.next_to_use & _LAST)

    def _reset(self) -> None:
        """Tell the bootcode, reset the core clock, wait until the bootcode is through again."""
        self._sram(Sram.FIRMWARE_MBOX, hw.FIRMWARE_MBOX_MAGIC1)
        self.regs.write32(Reg.GRC_MISC_CFG, hw.GRC_MISC_CFG_KEEP_GPHY_POWER | hw.GRC_MISC_CFG_CORECLK_RESET)
        self.wait(lambda: not self.regs.read32(Reg.GRC_MISC_CFG) & hw.GRC_MISC_CFG_CORECLK_RESET, 0.1, "a core reset")
        self.bus.set_master(True)
        self.regs.write32(Reg.TG3PCI_MISC_HOST_CTRL, _HOST_CONTROL | MiscHostCtrl.MASK_PCI_INT)
        self.regs.write32(Reg.MEMARB_MODE, hw.MODE_ENABLE)
        said = ~hw.FIRMWARE_MBOX_MAGIC1 & 0xFFFF_FFFF
        self.wait(lambda: self._sram(Sram.FIRMWARE_MBOX) == said, BOOTCODE, "its bootcode")

    def _buffers(self) -> None:
        """The chip's own packet memory, and its queues."""
        write = self.regs.write32
        write(Reg.BUFMGR_MB_RDMA_LOW_WATER, 0)  # 5787
        write(Reg.BUFMGR_MB_MACRX_LOW_WATER, 0x10)
        write(Reg.BUFMGR_MB_HIGH_WATER, 0x60)
        write(Reg.BUFMGR_MODE, 0x6)
        self.wait(lambda: bool(self.regs.read32(Reg.BUFMGR_MODE) & hw.MODE_ENABLE), BLOCK, "its buffer manager")
        write(Reg.FTQ_RESET, 0xFFFF_FFFF)
        write(Reg.FTQ_RESET, 0)

    def _rings(self) -> None:
        """Where the rings are; every descriptor gets its buffer once and for all."""
        write = self.regs.write32
        self.tx.reset()
        self.rx.reset()
        self._last_tag = self._return = 0
        self._words[:] = array("I", bytes(_STATUS_SIZE))
        self._tx_words[:] = array("I", [self.tx.addresses[0] >> 32, 0, _END, 0] * hw.TX_RING)
        self._std_words[:] = array("I", bytes(len(self._std_words) * 4))
        for at in range(hw.RX_STD_RING):
            self._describe(at, at % RX_BUFFERS)
        self.rx.next_to_use = RX_BUFFERS
        write(Reg.RCVDBDI_STD_BD_HOST_ADDR_HIGH, self._std_at >> 32)
        write(Reg.RCVDBDI_STD_BD_HOST_ADDR_LOW, self._std_at & 0xFFFF_FFFF)
        write(Reg.RCVDBDI_STD_BD_MAXLEN_FLAGS, 512 << 16)  # 5787: entries here, the frame's length elsewhere
        write(Reg.RCVDBDI_STD_BD_NIC_ADDR, 0x6000)
        write(Reg.RCVBDI_STD_THRESH, 25)
        self._control_block(Sram.SEND_RCB, self._tx_at, 0x4000)
        self._control_block(Sram.RCV_RET_RCB, self._return_at, 0)

    def _control_block(self, at: int, address: int, nic: int) -> None:
        for offset, word in enumerate((address >> 32, address & 0xFFFF_FFFF, 512 << 16, nic)):
            self._sram(at + 4 * offset, word)

    def _mac(self) -> None:
        """Address, lengths, the receive rules, and what of it is counted."""
        write = self.regs.write32
        self._write_address(self.dev_addr)
        write(Reg.MAC_TX_BACKOFF_SEED, sum(self.dev_addr) & 0x3FF)
        write(Reg.MAC_RX_MTU_SIZE, self.mtu + 14 + 4 + hw.FCS)
        write(Reg.MAC_TX_LENGTHS, 0x2620)  # IPG 96 bit times, slot time 32
        write(Reg.MAC_RCV_RULE_CFG, 0x8)
        write(Reg.RCVLPC_CONFIG, 0x181)
        for register in range(Reg.MAC_HASH_REG_0, Reg.MAC_HASH_REG_0 + 16, 4):
            write(register, 0xFFFF_FFFF)  # all multicast: neighbour discovery and LACP
        write(Reg.RCVLPC_STATS_ENABLE, 0xFFFFFF)
        write(Reg.RCVLPC_STATSCTRL, 1)
        write(Reg.SNDDATAI_STATSENAB, 0xFFFFFF)
        write(Reg.SNDDATAI_STATSCTRL, 1)

    def set_mac_address(self, addr: bytes) -> None:
        """ndo_set_mac_address: a bond gives its slaves its own."""
        self.dev_addr = addr
        if self.running:
            self._write_address(addr)

    def _write_address(self, address: bytes) -> None:
        self.regs.write32(Reg.MAC_ADDR_0_HIGH, int.from_bytes(address[:2], "big"))
        self.regs.write32(Reg.MAC_ADDR_0_LOW, int.from_bytes(address[2:], "big"))

    def _coalescing(self) -> None:
        """The status block, written after each burst of work."""
        write = self.regs.write32
        write(Reg.HOSTCC_MODE, 0)
        self.wait(lambda: not self.regs.read32(Reg.HOSTCC_MODE) & HostccMode.ENABLE, BLOCK, "host coalescing")
        write(Reg.HOSTCC_RXCOL_TICKS, 20)
        write(Reg.HOSTCC_TXCOL_TICKS, 500)  # frames are copied: nobody waits for them but a queue that stopped
        write(Reg.HOSTCC_RXMAX_FRAMES, 5)
        write(Reg.HOSTCC_TXMAX_FRAMES, hw.TX_RING // 4)
        write(Reg.HOSTCC_STATUS_BLK_HOST_ADDR_HIGH, self._status_at >> 32)
        write(Reg.HOSTCC_STATUS_BLK_HOST_ADDR_LOW, self._status_at & 0xFFFF_FFFF)
        write(Reg.HOSTCC_MODE, HostccMode.ENABLE)
        write(Reg.MAC_MODE, _MAC_MODE | MacMode.PORT_MODE_GMII)
        write(Reg.WDMAC_MODE, 0x3FE)
        write(Reg.RDMAC_MODE, 0x3FE)

    def _phy(self) -> None:
        """Negotiate everything; the link interrupts when it comes."""
        write = self.regs.write32
        write(Reg.MAC_MI_MODE, 0xC0000)  # 500 kHz
        self._mii(Mii.ADVERTISE, 0x0DE1)
        self._mii(Mii.CTRL1000, 0x0300)
        if not self._mii(Mii.BMSR) & 0x4:
            self._mii(Mii.BMCR, 0x1340)  # negotiate, anew
        write(Reg.MAC_STATUS, hw.MacStatus.LNKSTATE_CHANGED)
        write(Reg.MAC_EVENT, hw.MacStatus.LNKSTATE_CHANGED)
        self._read_link()

    def halt(self) -> None:
        """Interrupts, then receiving, sending and the status block; tg3_abort_hw() waits for each where we reset."""
        write = self.regs.write32
        write(Reg.TG3PCI_MISC_HOST_CTRL, _HOST_CONTROL | MiscHostCtrl.MASK_PCI_INT)
        write(Reg.MAILBOX_INTERRUPT_0, 1)
        write(Reg.MAC_RX_MODE, 0)
        write(Reg.MAC_TX_MODE, 0)
        write(Reg.HOSTCC_MODE, 0)
        write(Reg.GRC_MISC_CFG, hw.GRC_MISC_CFG_KEEP_GPHY_POWER | hw.GRC_MISC_CFG_CORECLK_RESET)
        self.regs.read32(Reg.GRC_MISC_CFG)  # all of it has arrived
        self.bus.set_master(False)

    def alive(self) -> bool:
        return self.regs.read32(Reg.TG3PCI_MISC_HOST_CTRL) >> 16 == hw.CHIP_REVISION

    # Interrupts

    def irq_cause(self) -> bool:
        """tg3_interrupt_tagged(): a tag that is new; else the pin, as long as somebody serves interrupts."""
        if self._words[1] != self._last_tag:
            return True
        if self.ctx.cpu().irqs_disabled or self.ctx.crashed:
            return False
        return not self.regs.read32(_PCISTATE) & _NOT_ACTIVE

    def irq_mask(self) -> None:
        self.regs.write32(_IRQ, 1)

    def irq_unmask(self) -> bool:
        """The chip compares the tag that we have seen with its newest, and interrupts at once if it has a newer."""
        self.regs.write32(_HOST_CTRL, _UNMASKED)
        self.regs.write32(_IRQ, (self._last_tag & 0xFF) << 24)
        return False

    def irq_enabled(self) -> bool:
        """The mailbox reads as it was written: a tag in its highest byte, or something beside it that masks."""
        return not self.regs.read32(Reg.MAILBOX_INTERRUPT_0) & 0xFF_FFFF

    # Link

    def check_link(self) -> None:
        """tg3_poll_link(). Also the first thing that poll() does, so it takes the tag before anything is looked at."""
        words = self._words
        self._last_tag = words[1]
        if words[0] & _LINK_CHG:
            words[0] = _UPDATED
            self.regs.write32(Reg.MAC_STATUS, hw.MacStatus.LNKSTATE_CHANGED)
            try:
                self._read_link()
            except BusError as error:
                self.broken(str(error.strerror))

    def _read_link(self) -> None:
        """tg3_setup_copper_phy(): BMSR twice, since its link bit latches; then the MAC's mode as negotiated."""
        self._mii(Mii.BMSR)
        up = bool(self._mii(Mii.BMSR) & 0x4)
        if up:
            speed = self._mii(Mii.AUX_STAT) >> 8 & 7
            port = MacMode.PORT_MODE_MII if speed in _SPEED_10_100 else MacMode.PORT_MODE_GMII
            duplex = MacMode.HALF_DUPLEX if speed in _HALF else 0
            self.regs.write32(Reg.MAC_MODE, _MAC_MODE | port | duplex)
        self.link(up)

    # The rings

    def fill(self, slot: int, size: int) -> None:
        self._tx_words[slot * 4 + 1] = self._tx_low[slot]  # a run may have left another
        self._tx_words[slot * 4 + 2] = size << 16 | _END

    def fill_run(self, slot: int, addresses: Sequence[int], sizes: array[int]) -> None:
        """A column at a time; the flags and the upper halves of addresses, which are all alike, are there since `start`."""
        end = slot + len(sizes)
        self._tx_words[slot * 4 + 1 : end * 4 : 4] = quads(addresses).cast("B").cast("I")[::2]
        self._tx_halves[slot * 8 + 5 : end * 8 : 8] = memoryview(sizes)

    def doorbell(self) -> None:
        self.regs.write32(_TX_BELL, self.tx.next_to_use & _LAST)

    def direct_tx(self) -> DirectTx:
        return self.direct(self.regs.words, _TX_BELL // 4, _LAST)

    def clean_tx(self) -> None:
        """tg3_tx(): up to the status block's consumer, which must lie among what was sent."""
        ring = self.tx
        done = self._halves[9] - ring.next_to_clean & _LAST
        if done > ring.next_to_use - ring.next_to_clean:
            self.broken(
                f"TX consumer {self._halves[9]}, but {ring.in_flight()} descriptors from {ring.next_to_clean & _LAST} are in use"
            )
            return
        ring.next_to_clean += done

    def clean_rx(self, budget: int) -> int:
        """tg3_rx(): frames of the return ring, in the chip's order; their buffers go back to the standard ring together."""
        done = 0
        while self.running and (run := self._clean_run(budget - done)):
            done += run
        return done

    def _clean_run(self, budget: int) -> int:
        """Up to the producer or the ring's end: copy frames out, give their buffers back, then pass them on."""
        at, ring = self._return, self.rx
        producer = self._halves[8] & _LAST
        run = min((producer if producer >= at else hw.RX_RETURN_RING) - at, budget)
        if run == 0:
            return 0
        words, first = self._return_words[at * 8 : (at + run) * 8], ring.next_to_clean & ring.mask
        slots, lengths, flags = (words[column::8].tolist() for column in (7, 2, 3))
        if slots != _IN_ORDER[first : first + run]:
            self.broken(f"return descriptors from {at} on name buffers {slots}, whose turn is from {first} on")
            return 0
        frames: list[bytes] = []
        for slot, idx_len, flag in zip(slots, lengths, flags, strict=True):
            size = (idx_len & 0xFFFF) - hw.FCS
            if 14 <= size <= self.frame_limit and not flag & _ERROR:
                frames.append(ring.buffers[slot][:size].tobytes())
            else:
                self.stats["rx_errors" if flag & _ERROR else "rx_length_errors"] += 1
        ring.next_to_clean += run
        ring.next_to_use += run
        self._return = at + run & _LAST
        self.regs.write32(_RX_BELL, self._return)
        self.regs.write32(_BUFFERS_BELL, ring.next_to_use & _LAST)
        netif_receive_skb_list(self, frames)
        return run

    def _describe(self, at: int, slot: int) -> None:
        """Buffer `slot` in the standard ring's descriptor `at`, for good: the chip returns buffers in the order in which it got them."""
        words, first, address = self._std_words, at * 8, self.rx.addresses[slot]
        words[first], words[first + 1] = address >> 32, address & 0xFFFF_FFFF
        words[first + 2], words[first + 3] = 1536, int(hw.RxFlag.END)
        words[first + 7] = slot

    # Indirect accesses

    def _sram(self, at: int, value: int | None = None) -> int:
        """Read or write the chip's memory through the window in configuration space."""
        self.regs.write32(Reg.TG3PCI_MEM_WIN_BASE_ADDR, at)
        if value is None:
            return self.regs.read32(Reg.TG3PCI_MEM_WIN_DATA)
        self.regs.write32(Reg.TG3PCI_MEM_WIN_DATA, value)
        return value

    def _mii(self, number: int, value: int | None = None) -> int:
        """tg3_readphy(), tg3_writephy(). Raises BusError (EBUSY)."""
        command = hw.MiCom.START | hw.PHY_ADDRESS << 21 | number << 16
        self.regs.write32(
            Reg.MAC_MI_COM, command | (hw.MiCom.CMD_READ if value is None else hw.MiCom.CMD_WRITE | value)
        )
        said = 0

        def idle() -> bool:
            nonlocal said
            said = self.regs.read32(Reg.MAC_MI_COM)
            return not said & hw.MiCom.START

        self.wait(idle, MDIO, "MDIO")
        return said & 0xFFFF
