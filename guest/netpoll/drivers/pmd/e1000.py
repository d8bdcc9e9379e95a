"""e1000: an Intel 82540EM by its Software Developer's Manual (317453), chapter 14 "General Initialization and Reset Operation".

    tx: legacy descriptors -> TDT            the chip sets DD in each, since each asks for it (RS)
    rx: a buffer of 2048 bytes each -> RDT   the chip writes length, errors and DD into one aligned quadword

In: frames, what the chip writes. Out: a PollModeDevice. The one rule: of what the chip writes only that quadword is read, once, and
judged before a frame is made of it; a length beyond the buffer or a frame over several buffers is counted and thrown away.

The transmit interrupt (TXDW) is let through only while the queue is stopped: nobody else waits for descriptors. The link is not
negotiated anew: it is up while the machine dies, and 2 s of silence would cost the last words.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence

from guest.netpoll.direct import DirectTx
from guest.netpoll.drivers.pmd.bus import BusError, PciDevice
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.ring import BUFFER, Ring, quads
from guest.netpoll.layout import e1000 as hw
from guest.netpoll.layout.e1000 import (
    Ctrl,
    Eerd,
    Int,
    Mdic,
    Pctrl,
    Phy,
    Rctl,
    Reg,
    RxStatus,
    Status,
    Tctl,
    TxCmd,
    TxSta,
)
from guest.netpoll.napi import netif_receive_skb_list
from guest.netpoll.netdevice import IFF_PROMISC, Net

RING = 256  # descriptors of each ring
MTU = 1500
DMA_BITS = 32  # of address on conventional PCI: e1000_probe()
RESET, EEPROM, PHY = 0.01, 0.1, 0.01  # seconds: 13.4.1, 5.3.2, 8.3.1 with room
CT, COLD = 0x0F, 0x40  # 13.4.33: collisions tried, and how far they reach at full duplex
IPGT, IPGR1, IPGR2 = 8, 8, 6  # 13.4.34
GONE = 0xFFFF_FFFF  # what a register of a device reads as that is no longer there
RECEIVE = int(Int.RXT0 | Int.RXDMT0 | Int.RXO | Int.LSC | Int.RXSEQ)
TRANSMIT = int(Int.TXDW)

_COMMAND = int(TxCmd.EOP | TxCmd.IFCS | TxCmd.RS) << hw.TX_CMD_SHIFT
_COMMANDS = memoryview(array("Q", [_COMMAND] * RING))
# Numbers of what each poll touches: to look a member of an enum up costs as much as a store.
_TDT, _RDT = int(Reg.TDT), int(Reg.RDT)
_ICR, _IMS, _IMC = int(Reg.ICR), int(Reg.IMS), int(Reg.IMC)
_LSC, _TX_DONE = int(Int.LSC), int(TxSta.DD)
_DD, _EOP = int(RxStatus.DD) << 32, int(RxStatus.EOP) << 32  # in the second quadword of a receive descriptor
_ERRORS = int(hw.RX_FRAME_ERRORS) << 40
_WHOLE = _DD | _EOP
_JUDGED = _WHOLE | _ERRORS
_LEAST = 14  # octets of a frame
_ZEROS = array("Q", bytes(8 * RING))


class E1000(PollModeDevice):
    """The driver. Raises BusError: ENODEV for another chip, EINVAL for a BAR too small or an MTU too large, and what the bus's memory raises."""

    def __init__(self, net: Net, name: str, bus: PciDevice, mtu: int = 1500) -> None:
        super().__init__(net, name, bus, mtu)
        if (bus.vendor, bus.device) != (hw.VENDOR, hw.DEVICE):
            found = f"{bus.vendor:04x}:{bus.device:04x}"
            raise BusError(errno.ENODEV, f"{bus.name} is {found}, not an 82540EM (8086:100e)")
        if mtu > MTU:
            raise BusError(
                errno.EINVAL, f"{name}: an MTU of {mtu} takes more than one buffer; this driver has {MTU} at most"
            )
        self.regs = bus.bar(0, hw.BAR_SIZE)
        bus.set_dma_mask(DMA_BITS)
        self.tx, self.rx = Ring(bus, RING, RING - 1), Ring(bus, RING, RING - 1)  # TDH == TDT is an empty ring (3.4)
        tx, rx = (bus.dma_alloc(RING * hw.TX_SIZE, 4096) for _ in range(2))
        self._tx_at, self._rx_at = tx.address, rx.address
        self._tx_words, self._rx_words = tx.view.cast("Q"), rx.view.cast("Q")
        self._tx_halves = tx.view.cast("H")
        self._tx_status = tx.view[hw.TX_STA_OFFSET :: hw.TX_SIZE]
        self._news = True  # of the link
        self._unmasked = 0
        self._joined = False  # the frame that comes goes on in the next buffer, and is thrown away
        self.dev_addr = self._address()

    # -- set-up ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self._reset()
        self._general_configuration()
        self.bus.set_master(True)
        self._receive_initialization()
        self._transmit_initialization()
        self._news = True
        self.check_link()

    def _reset(self) -> None:
        """14.2, 14.7: quiet, then CTRL.RST. Every register that matters is written afterwards, whatever it reads."""
        write = self.regs.write32
        self._quiet()
        write(Reg.CTRL, self.regs.read32(Reg.CTRL) | Ctrl.RST)
        self.ctx.delay(RESET)  # 13.4.1: a microsecond until it may be read; the EEPROM is loaded anew meanwhile (5 ms)
        self.wait(lambda: not self.regs.read32(Reg.CTRL) & Ctrl.RST, RESET, "its reset")
        write(Reg.IMC, GONE)
        self.regs.read32(Reg.ICR)

    def _quiet(self) -> None:
        """14.7: interrupts masked, both directions off, and time for the DMA that is under way."""
        write = self.regs.write32
        write(Reg.IMC, GONE)
        self._unmasked = 0
        write(Reg.RCTL, 0)
        write(Reg.TCTL, Tctl.PSP)
        self.regs.read32(Reg.STATUS)  # posted writes arrive before it
        self.ctx.delay(RESET)
        self.bus.set_master(False)

    def _general_configuration(self) -> None:
        """14.3: the PHY negotiates (ASDE), and has the link's word (SLU); no VLAN tags taken off, no flow control."""
        control = self.regs.read32(Reg.CTRL)
        control &= ~(
            Ctrl.LRST | Ctrl.PHY_RST | Ctrl.ILOS | Ctrl.FRCSPD | Ctrl.FRCDPLX | Ctrl.VME | Ctrl.RFCE | Ctrl.TFCE
        )
        self.regs.write32(Reg.CTRL, control | Ctrl.ASDE | Ctrl.SLU)
        for register in (Reg.FCAL, Reg.FCAH, Reg.FCT, Reg.FCTTV):
            self.regs.write32(register, 0)
        for statistic in hw.STATISTICS:  # cleared by reading
            self.regs.read32(statistic)
        self._wake_phy()

    def _wake_phy(self) -> None:
        """A PHY that Linux has put to sleep (e1000_power_down_phy()) negotiates again; one that is awake is left alone."""
        control = self._phy_read(Phy.PCTRL)
        asleep = Pctrl.POWER_DOWN | Pctrl.ISOLATE | Pctrl.LOOPBACK
        if control & asleep:
            awake = control & ~asleep | Pctrl.AUTO_NEGOTIATION | Pctrl.RESTART_AUTO_NEGOTIATION
            self._mdi(Mdic.OP_WRITE, Phy.PCTRL, awake)

    def _receive_initialization(self) -> None:
        """14.4, in its order."""
        write, ring = self.regs.write32, self.rx
        self._write_address(self.dev_addr)  # 1. the receive address
        for word in range(hw.MTA_WORDS):  # 2. the multicast table
            write(Reg.MTA + 4 * word, 0)
        write(Reg.RDTR, 0)  # 3. no interrupt is put off
        write(Reg.RADV, 0)
        ring.reset()  # 4. the descriptors, each with its buffer for good
        self._joined = False
        for slot, address in enumerate(ring.addresses):
            self._rx_words[2 * slot], self._rx_words[2 * slot + 1] = address, 0
        self._write_ring(Reg.RDBAL, self._rx_at)
        write(Reg.RXCSUM, 0)
        ring.next_to_use = ring.usable
        write(Reg.RCTL, self._receive_control())  # 5. and go
        write(Reg.RDT, ring.usable)

    def _receive_control(self) -> int:
        """Broadcasts, and every multicast: neighbour discovery and LACP are. BSIZE 00b is 2048; the chip strips the FCS."""
        promiscuous = Rctl.UPE if self.flags & IFF_PROMISC else 0
        return int(Rctl.EN | Rctl.BAM | Rctl.MPE | Rctl.SECRC | promiscuous)

    def _transmit_initialization(self) -> None:
        """14.5, in its order."""
        write, ring = self.regs.write32, self.tx
        ring.reset()  # 1. the descriptors
        self._tx_words[:] = array("Q", bytes(hw.TX_SIZE * RING))
        self._write_ring(Reg.TDBAL, self._tx_at)  # 2. to 4.
        write(Reg.TIDV, 0)
        write(Reg.TADV, 0)
        write(Reg.TXDCTL, 0)  # each descriptor is fetched and written back at once
        write(Reg.TIPG, IPGT | IPGR1 << hw.TIPG_IPGR1_SHIFT | IPGR2 << hw.TIPG_IPGR2_SHIFT)  # 6.
        write(Reg.TCTL, Tctl.EN | Tctl.PSP | CT << hw.TCTL_CT_SHIFT | COLD << hw.TCTL_COLD_SHIFT)  # 5., last

    def _write_ring(self, base: Reg, address: int) -> None:
        """Base, length, head and tail: the five registers of either ring are laid out alike."""
        length_offset, head, tail = 0x08, 0x10, 0x18
        write = self.regs.write32
        write(base, address & 0xFFFF_FFFF)
        write(base + 4, address >> 32)
        write(base + length_offset, RING * hw.TX_SIZE)
        write(base + head, 0)
        write(base + tail, 0)

    def halt(self) -> None:
        self._quiet()
        self.regs.write32(Reg.CTRL, self.regs.read32(Reg.CTRL) | Ctrl.RST)

    def alive(self) -> bool:
        return self.regs.read32(Reg.STATUS) != GONE

    # -- address, EEPROM, PHY -------------------------------------------------------------------------

    def _address(self) -> bytes:
        """What the chip has loaded from its EEPROM (13.5.2), or else the EEPROM itself: words 0 to 2 (5.6.1)."""
        low, high = self.regs.read32(Reg.RAL), self.regs.read32(Reg.RAH)
        if high & hw.RAH_AV and high != GONE:
            address = (low | (high & 0xFFFF) << 32).to_bytes(6, "little")
        else:
            address = b"".join(self._eeprom(word).to_bytes(2, "little") for word in range(3))
        if address[0] & 1 or not any(address):
            raise BusError(
                errno.ENODEV, f"{self.bus.name}: its EEPROM has {address.hex(':')} for a MAC address, which is none"
            )
        return address

    def _eeprom(self, word: int) -> int:
        """13.4.4."""
        self.regs.write32(Reg.EERD, Eerd.START | word << hw.EERD_ADDR_SHIFT)
        self.wait(lambda: bool(self.regs.read32(Reg.EERD) & Eerd.DONE), EEPROM, "a read of its EEPROM")
        return self.regs.read32(Reg.EERD) >> hw.EERD_DATA_SHIFT

    def set_mac_address(self, addr: bytes) -> None:
        """ndo_set_mac_address: a bond gives its slaves its own."""
        self.dev_addr = addr
        if self.running:
            self._write_address(addr)

    def _write_address(self, address: bytes) -> None:
        self.regs.write32(Reg.RAL, int.from_bytes(address[:4], "little"))
        self.regs.write32(Reg.RAH, int.from_bytes(address[4:], "little") | hw.RAH_AV)

    def _phy_read(self, register: Phy) -> int:
        return self._mdi(Mdic.OP_READ, register) & 0xFFFF

    def _mdi(self, operation: Mdic, register: Phy, data: int = 0) -> int:
        """8.3.1: one frame on the management interface. Raises BusError when the PHY does not answer."""
        where = register << hw.MDIC_REG_SHIFT | hw.PHY_ADDRESS << hw.MDIC_PHY_SHIFT
        self.regs.write32(Reg.MDIC, operation | where | data)
        self.wait(lambda: bool(self.regs.read32(Reg.MDIC) & Mdic.R), PHY, "an access to its PHY")
        answer = self.regs.read32(Reg.MDIC)
        if answer & Mdic.E:
            raise BusError(errno.EIO, f"{self.bus.name}: its PHY does not answer")
        return answer

    # -- interrupts and link --------------------------------------------------------------------------

    def irq_cause(self) -> bool:
        """Reading ICR acknowledges. Work that is in memory counts without a cause: nobody may have been told of it."""
        cause = self.regs.read32(_ICR)
        if cause == GONE:
            self.vanished()
            return False
        if cause & _LSC:
            self._news = True
        slot = self.rx.next_to_clean & self.rx.mask
        return bool(cause & (RECEIVE | TRANSMIT) or self.xoff or self._rx_words[2 * slot + 1] & _DD)

    def irq_mask(self) -> None:
        if self._unmasked:
            self._unmasked = 0
            self.regs.write32(_IMC, GONE)

    def irq_unmask(self) -> bool:
        """Causes stay in ICR until they are read: what came meanwhile interrupts as soon as IMS is written."""
        self._unmasked = RECEIVE | TRANSMIT if self.xoff else RECEIVE
        self.regs.write32(_IMS, self._unmasked)
        return False

    def irq_enabled(self) -> bool:
        return self.regs.read32(Reg.IMS) != 0

    def check_link(self) -> None:
        """STATUS.LU; also asked, without news, while there is no carrier, since a cause may have been read by a kernel that died."""
        if not self._news and self.carrier:
            return
        self._news = False
        status = self.regs.read32(Reg.STATUS)
        if status == GONE:
            self.vanished()
        else:
            self.link(bool(status & Status.LU))

    # -- transmit -------------------------------------------------------------------------------------

    def fill(self, slot: int, size: int) -> None:
        """Length, command and a status of 0 in one store; a run may have left another address than the buffer's."""
        self._tx_words[2 * slot] = self.tx.addresses[slot]
        self._tx_words[2 * slot + 1] = _COMMAND | size

    def fill_run(self, slot: int, addresses: Sequence[int], sizes: array[int]) -> None:
        """A column at a time: addresses; commands, with which statuses are 0 again; lengths."""
        count = len(sizes)
        self._tx_words[2 * slot : 2 * (slot + count) : 2] = quads(addresses)
        self._tx_words[2 * slot + 1 : 2 * (slot + count) : 2] = _COMMANDS[:count]
        self._tx_halves[8 * slot + 4 : 8 * (slot + count) : 8] = memoryview(sizes)

    def doorbell(self) -> None:
        """TDT; and if this frame took the last descriptor, the interrupt that tells of the first that is free again."""
        self.regs.write32(_TDT, self.tx.next_to_use & self.tx.mask)
        if self.xoff and self._unmasked and not self.ctx.crashed:
            self._unmasked |= TRANSMIT
            self.regs.write32(_IMS, TRANSMIT)

    def direct_tx(self) -> DirectTx:
        return self.direct(self.regs.words, _TDT // 4, self.tx.mask)

    def clean_tx(self) -> None:
        """Frames leave in order: if the last one has, all have; else those up to the first without DD. A descriptor may serve again as it is
        (direct.py), so what the chip has written into it is cleared."""
        ring, status = self.tx, self._tx_status
        clean, use = ring.next_to_clean, ring.next_to_use
        if clean == use:
            return
        done = use if status[(use - 1) & ring.mask] & _TX_DONE else clean
        while done != use and status[done & ring.mask] & _TX_DONE:
            done += 1
        while clean != done:
            slot = clean & ring.mask
            run = min(done - clean, RING - slot)
            status[slot : slot + run] = bytes(run)
            clean += run
        ring.next_to_clean = done

    # -- receive --------------------------------------------------------------------------------------

    def clean_rx(self, budget: int) -> int:
        """At most `budget` descriptors, in runs that do not reach beyond the ring's end; each run goes back to the chip together."""
        done = 0
        while done < budget and self.running:
            slot = self.rx.next_to_clean & self.rx.mask
            run = self._clean_run(slot, min(budget - done, RING - slot))
            done += run
            if not run:
                break
        return done

    def _clean_run(self, first: int, most: int) -> int:
        """Descriptors from `first` on that the chip has written: copy frames out, give them back together, then pass them on; return how many."""
        if not self._rx_words[2 * first + 1] & _DD:
            return 0
        words = self._rx_words[2 * first + 1 : 2 * (first + most) : 2].tolist()
        frames: list[bytes] = []
        done = 0
        for word, buffer in zip(words, self.rx.buffers[first : first + most], strict=True):
            if not word & _DD:
                break
            length = word & 0xFFFF
            if word & _JUDGED == _WHOLE and _LEAST <= length <= BUFFER and not self._joined:
                frames.append(buffer[:length].tobytes())
            else:
                self._refuse(word, length)
            done += 1
        self._give_back(first, done)
        netif_receive_skb_list(self, frames)
        return done

    def _refuse(self, word: int, length: int) -> None:
        """Count a descriptor that is no frame by itself; what follows one without EOP belongs to it."""
        whole = bool(word & _EOP)
        bad = "rx_length_errors" if not whole or self._joined or not _LEAST <= length <= BUFFER else "rx_frame_errors"
        self.stats["rx_errors"] += 1
        self.stats[bad] += 1
        self._joined = not whole

    def _give_back(self, first: int, count: int) -> None:
        """Statuses cleared before RDT: the tail stays one behind the descriptor that is cleaned next."""
        self._rx_words[2 * first + 1 : 2 * (first + count) : 2] = memoryview(_ZEROS)[:count]
        self.rx.next_to_clean += count
        self.rx.next_to_use += count
        self.regs.write32(_RDT, self.rx.next_to_use & self.rx.mask)
