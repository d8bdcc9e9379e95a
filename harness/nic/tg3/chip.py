"""The chip: its registers, its memory, and how the engines are joined. BAR 0 of the device is a `Tg3`.

In: accesses to BAR 0 and to configuration space, frames from the wire, the cable. Out: what the engines do. Rule: a register that no
row of `_rows` describes is storage that reads back; `settle` is called after each burst of accesses and frames.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import partial

from guest.netpoll.layout import bcm5787 as hw
from guest.netpoll.layout.bcm5787 import (
    HostccMode,
    LocalCtrl,
    MacMode,
    MacStatus,
    MiCom,
    MiscHostCtrl,
    Reg,
    RxMode,
    Sram,
)
from harness.nic.bus import Bus, Tell, Wire
from harness.nic.faults import Setting
from harness.nic.mii import Partner
from harness.nic.tg3.filter import REGISTERS as FILTER_REGISTERS
from harness.nic.tg3.filter import Filter
from harness.nic.tg3.nvram import Nvram, arbitrate
from harness.nic.tg3.phy import Phy
from harness.nic.tg3.receive import Receive
from harness.nic.tg3.stats import Statistics
from harness.nic.tg3.status import HostCoalescing
from harness.nic.tg3.transmit import MINIMUM, Transmit
from harness.nic.wired import Wired
from harness.vfio_user.registers import Register, RegisterFile

_PCISTATE = hw.PciState.CONV_PCI_MODE | hw.PciState.BUS_SPEED_HIGH | hw.PciState.BUS_32BIT
_MAC_CONTROL, _PAUSE = b"\x88\x08", b"\x88\x08\x00\x01"
_VLAN_BYTES, _TAGGED, _IPV4 = 4, b"\x81\x00", b"\x08\x00"
_LOOPED = int(MacMode.PORT_INT_LPBACK)  # a plain number: an IntFlag's `&` costs as much as a DMA read
_ONES = 0xFFFF_FFFF
# Plain numbers where frames pass: to look a member of an enum up costs as much as to use it.
_SRAM_WINDOW, _DOORBELL = int(Reg.NIC_SRAM_WIN_BASE), int(Reg.MAILBOX_SNDHOST_PROD_IDX_0)
_AT_RX_MODE, _AT_TX_MODE, _AT_MAC_MODE = (int(at) >> 2 for at in (Reg.MAC_RX_MODE, Reg.MAC_TX_MODE, Reg.MAC_MODE))
_AT_RX_MTU, _ENABLED, _OVERSIZED = int(Reg.MAC_RX_MTU_SIZE) >> 2, int(hw.MODE_ENABLE), int(RxMode.ACCEPT_OVERSIZED)


def _all_but(bits: int) -> int:
    """A mask; `~` of an IntFlag would know the flag's own bits only."""
    return _ONES & ~int(bits)


class Tg3(Wired):
    """A BCM5787 with its PHY, NVRAM and faults. `tell(kind, **keys)` hears of links and resets, `count(name, n)` of the rest."""

    def __init__(
        self, mac: bytes, bus: Bus, wire: Wire, tell: Tell, count: Callable[[str, int], None], seed: int = 0
    ) -> None:
        super().__init__(bus, wire, count, seed)
        self.mac, self._tell = mac, tell
        self.master: Callable[[], bool] = lambda: True  # whether the machine allows DMA
        self.sram = array("I", bytes(hw.SRAM_SIZE))
        self.stats = Statistics(self._values)
        self.status = HostCoalescing(self._values, bus, self.faults, lambda name: count(name, 1))
        self.phy = Phy(bus.call_later, self._link_changed)
        self.nvram = Nvram(mac, mac.hex())
        self._filter = Filter()
        self._tx = Transmit(partial(self._control_block, int(Sram.SEND_RCB)), bus, self.status, self._transmit, count)
        self._rx = Receive(self._values, partial(self._control_block, int(Sram.RCV_RET_RCB)), bus, self.status, count)
        self._silent = False
        self.registers = RegisterFile(hw.BAR_SIZE, self._rows())
        self._boot()

    def _values(self) -> array[int]:
        return self.registers.values

    # What the machine sees

    def read(self, offset: int, count: int) -> bytes:
        """An access to BAR 0, or to configuration space's window."""
        if self.faults.on and (ones := self._faulty(count)) is not None:
            return ones
        if offset >= _SRAM_WINDOW:
            return self._flat(offset, count).tobytes()
        return self.registers.read(offset, count)

    def write(self, offset: int, data: bytes) -> None:
        if self.faults.on and self._faulty(0) is not None:
            return
        if offset >= _SRAM_WINDOW:
            self._flat(offset, len(data))[:] = data
            return
        self.registers.write(offset, data)

    def superseded(self, offset: int, times: int) -> bool:
        """Whether the newest of `times` + 1 values of a register will do: the send producer's, unless something goes wrong on purpose."""
        if offset != _DOORBELL or self.faults.on:
            return False
        self._count("doorbells", times)
        return True

    def _faulty(self, count: int) -> bytes | None:
        if (slow := self.faults.on.get("slow")) is not None:
            self._bus.sleep(slow.seconds)
            self._count("slow", 1)
        return b"\xff" * count if self.faults.strikes("gone") else None

    def settle(self) -> None:
        """A burst of accesses or frames is over."""
        self.status.settle()

    def power_on_reset(self) -> None:
        """The machine resets the device: registers, memory and PHY start afresh."""
        self.phy.write(hw.Mii.BMCR, 0x8000)
        self.registers.reset()
        self._boot()

    # Registers that are more than storage

    def _rows(self) -> list[Register]:
        rows = [
            Register(Reg.TG3PCI_MISC_HOST_CTRL, "MISC_HOST_CTRL", hw.CHIP_REVISION << 16 | MiscHostCtrl.MASK_PCI_INT, 0xFFFE, write=self._host_control),
            Register(Reg.TG3PCI_PCISTATE, "PCISTATE", _PCISTATE, 0xFFFF_FF00, read=self._pci_state),
            Register(Reg.TG3PCI_REG_DATA, "REG_DATA", read=self._window_read, write=self._window_write),
            Register(Reg.TG3PCI_MEM_WIN_DATA, "MEM_WIN_DATA", read=self._memory_read, write=self._memory_write),
            Register(Reg.MAILBOX_INTERRUPT_0, "MAILBOX_INTERRUPT_0", 1, write=self.status.mailbox),
            Register(Reg.MAILBOX_RCV_STD_PROD_IDX, "MAILBOX_RCV_STD_PROD_IDX", writable=0x1FF, write=self._std_posted),
            Register(Reg.MAILBOX_RCVRET_CON_IDX_0, "MAILBOX_RCVRET_CON_IDX_0", writable=0x1FF, write=self._returned),
            Register(Reg.MAILBOX_SNDHOST_PROD_IDX_0, "MAILBOX_SNDHOST_PROD_IDX_0", writable=0x1FF, write=self._doorbell),
            Register(Reg.MAC_MODE, "MAC_MODE", writable=_all_but(hw.MODE_RESET)),
            Register(Reg.MAC_STATUS, "MAC_STATUS", writable=0, write=self._mac_status),
            Register(Reg.MAC_EVENT, "MAC_EVENT", write=self._link_pending),
            Register(Reg.MAC_MI_COM, "MAC_MI_COM", writable=_all_but(MiCom.START), write=self._mii),
            Register(Reg.MAC_TX_MODE, "MAC_TX_MODE", writable=_all_but(hw.MODE_RESET), write=self._tx_mode),
            Register(Reg.MAC_TX_STATUS, "MAC_TX_STATUS", writable=0, read=self._tx_status),
            Register(Reg.HOSTCC_MODE, "HOSTCC_MODE", writable=_all_but(HostccMode.NOW | hw.MODE_RESET), write=self._coalesce),
            Register(Reg.GRC_MISC_CFG, "GRC_MISC_CFG", writable=_all_but(hw.GRC_MISC_CFG_CORECLK_RESET), write=self._misc_cfg),
            Register(Reg.GRC_LOCAL_CTRL, "GRC_LOCAL_CTRL", writable=_all_but(LocalCtrl.SETINT | LocalCtrl.CLEARINT), write=self._local_control),
            Register(Reg.GRC_EEPROM_ADDR, "GRC_EEPROM_ADDR", read=lambda value: value | hw.EEPROM_ADDR_COMPLETE),
            Register(Reg.HOSTCC_STATS_BLK_NIC_ADDR, "HOSTCC_STATS_BLK_NIC_ADDR", 0x300, writable=0),
            Register(Reg.HOSTCC_STATUS_BLK_NIC_ADDR, "HOSTCC_STATUS_BLK_NIC_ADDR", 0xB00, writable=0),
            Register(Reg.NVRAM_CMD, "NVRAM_CMD", writable=0, write=self._nvram),
            Register(Reg.NVRAM_CFG1, "NVRAM_CFG1", hw.NVRAM_CFG1_ATMEL_EEPROM_376KHZ),
            Register(Reg.NVRAM_SWARB, "NVRAM_SWARB", writable=0, write=self._arbitrate),
        ]  # fmt: skip
        rows += [Register(at, f"MAC_STATS_{at:x}", read=self.stats.clear_on_read(at)) for at in hw.STATISTICS]
        counters = (Reg.RCVLPC_NO_RCV_BD_CNT, Reg.RCVLPC_IN_DISCARDS_CNT, Reg.RCVLPC_IN_ERRORS_CNT)
        rows += [Register(at, Reg(at).name, read=self.stats.clear_on_read(at)) for at in counters]
        rows += [
            Register(at, f"MAC_FILTER_{at:x}", write=self._rx_mode if at == Reg.MAC_RX_MODE else self._filter_changed,
                     writable=_all_but(hw.MODE_RESET) if at == Reg.MAC_RX_MODE else _ONES)
            for at in sorted(FILTER_REGISTERS)
        ]  # fmt: skip
        return rows

    def _host_control(self, value: int) -> None:
        if value & MiscHostCtrl.CLEAR_INT:
            self.status.clear()

    def _pci_state(self, value: int) -> int:
        return value | (0 if self.status.asserted else hw.PciState.INT_NOT_ACTIVE)

    def _window_at(self) -> int:
        return self._values()[Reg.TG3PCI_REG_BASE_ADDR >> 2] % hw.BAR_SIZE & ~3

    def _window_read(self, value: int) -> int:
        at = self._window_at()
        return value if at == Reg.TG3PCI_REG_DATA else self.registers.read32(at)

    def _window_write(self, value: int) -> None:
        at = self._window_at()
        if at != Reg.TG3PCI_REG_DATA:
            self.registers.write32(at, value)

    def _memory_at(self) -> int:
        return self._values()[Reg.TG3PCI_MEM_WIN_BASE_ADDR >> 2] % hw.SRAM_SIZE >> 2

    def _memory_read(self, _value: int) -> int:
        return self.sram[self._memory_at()]

    def _memory_write(self, value: int) -> None:
        self.sram[self._memory_at()] = value

    def _flat(self, offset: int, count: int) -> memoryview:
        """A part of the 32 KiB of chip memory that show through the BAR's upper half."""
        base = self._values()[Reg.TG3PCI_MEM_WIN_BASE_ADDR >> 2] % hw.SRAM_SIZE & ~0x7FFF
        at = base + offset - Reg.NIC_SRAM_WIN_BASE
        return memoryview(self.sram).cast("B")[at : at + count]

    def _control_block(self, at: int) -> int:
        """Host address in a ring control block."""
        return self.sram[at >> 2] << 32 | self.sram[(at >> 2) + 1]

    def _doorbell(self, value: int) -> None:
        self._tx.producer = value
        self._count("doorbells", 1)
        self._run_tx()  # at once: what the driver does next may be the end of DMA, of the chip or of the machine

    def _run_tx(self) -> None:
        if self._values()[_AT_TX_MODE] & _ENABLED and self.master() and not self.faults.strikes("no-dma"):
            self._tx.run()

    def _tx_mode(self, _value: int) -> None:
        self._run_tx()

    def _tx_status(self, _value: int) -> int:
        return hw.TX_STATUS_LINK_UP if self.phy.link or self.phy.loopback else 0

    def _std_posted(self, value: int) -> None:
        self._rx.std_producer = value
        self._resume_if_room()

    def _returned(self, value: int) -> None:
        self._rx.return_consumer = value
        self._resume_if_room()

    def _resume_if_room(self) -> None:
        if self._blocked and self._rx.room():
            self._unblock()

    def _filter_changed(self, _value: int) -> None:
        self._filter.load(self._values())

    def _rx_mode(self, _value: int) -> None:
        self._filter.load(self._values())
        self._unblock()  # receiving was switched off: what waits is lost, not kept for ever

    def _mac_status(self, value: int) -> None:
        self._values()[Reg.MAC_STATUS >> 2] &= ~value

    def _mii(self, value: int) -> None:
        """MDIO is done at once: the busy bit never shows."""
        if not value & MiCom.START:
            return
        phy, number = value >> 21 & 0x1F, value >> 16 & 0x1F
        values, at = self._values(), Reg.MAC_MI_COM >> 2
        if phy != hw.PHY_ADDRESS:
            values[at] = values[at] & ~0xFFFF | MiCom.READ_FAILED | 0xFFFF
        elif value & MiCom.CMD_READ:
            values[at] = values[at] & ~(0xFFFF | MiCom.READ_FAILED) | self.phy.read(number)
        elif value & MiCom.CMD_WRITE:
            self.phy.write(number, value & 0xFFFF)

    def _coalesce(self, value: int) -> None:
        if value & HostccMode.NOW:
            self.status.update()
        else:
            self._link_pending(0)

    def _misc_cfg(self, value: int) -> None:
        if value & hw.GRC_MISC_CFG_CORECLK_RESET:
            if self.faults.strikes("no-reset"):
                self._bootcode_reports()
            else:
                self._core_reset()

    def _local_control(self, value: int) -> None:
        if value & LocalCtrl.SETINT:
            self.status.fire()
        if value & LocalCtrl.CLEARINT:
            self.status.clear()

    def _nvram(self, value: int) -> None:
        values = self._values()
        values[Reg.NVRAM_RDDATA >> 2] = self.nvram.command(
            value, values[Reg.NVRAM_ADDR >> 2], values[Reg.NVRAM_WRDATA >> 2]
        )
        values[Reg.NVRAM_CMD >> 2] = value | hw.NvramCmd.DONE if value & hw.NvramCmd.GO else value

    def _arbitrate(self, value: int) -> None:
        at = Reg.NVRAM_SWARB >> 2
        self._values()[at] = arbitrate(self._values()[at], value)

    # Resets

    def _core_reset(self) -> None:
        """GRC_MISC_CFG_CORECLK_RESET: everything but configuration space, PHY and NVRAM."""
        values = self._values()
        kept = {at: values[at >> 2] for at in hw.CONFIG_ALIAS if at % 4 == 0}
        misc = values[Reg.GRC_MISC_CFG >> 2]
        self.registers.reset()
        for at, value in kept.items():
            self._values()[at >> 2] = value
        self._values()[Reg.GRC_MISC_CFG >> 2] = misc
        self._boot()
        self._tell("reset")

    def _boot(self) -> None:
        """What the bootcode leaves: its signature, and the MAC address in mailbox and MAC."""
        self._tx.reset()
        self._rx.reset()
        self.status.reset()
        high, low = int.from_bytes(self.mac[:2], "big"), int.from_bytes(self.mac[2:], "big")
        self._bootcode_reports()
        self.sram[Sram.FW_ASF_STATUS_MBOX >> 2] = ~hw.FIRMWARE_MBOX_MAGIC1 & _ONES  # firmware is ready for power down
        self.sram[Sram.DATA_SIG >> 2] = 0
        self.sram[Sram.MAC_ADDR_HIGH_MBOX >> 2] = hw.MAC_ADDR_MBOX_SIGNATURE << 16 | high
        self.sram[Sram.MAC_ADDR_LOW_MBOX >> 2] = low
        self._values()[Reg.MAC_ADDR_0_HIGH >> 2], self._values()[Reg.MAC_ADDR_0_LOW >> 2] = high, low
        self._filter.load(self._values())
        self._unblock()

    def _bootcode_reports(self) -> None:
        """What tg3_poll_fw() waits for: 100,000 reads if it does not come, half a minute of them under emulation."""
        self.sram[Sram.FIRMWARE_MBOX >> 2] = ~hw.FIRMWARE_MBOX_MAGIC1 & _ONES

    # The wire

    def _transmit(self, frames: Sequence[bytes]) -> None:
        """Frames leave the MAC: onto the wire, into the loop, or nowhere if there is no link."""
        looped = self._values()[_AT_MAC_MODE] & _LOOPED or self.phy.loopback
        if not looped and not self.phy.link:
            self._count("tx_without_link", len(frames))
            return
        self.stats.sent(frames)
        self._count("tx_frames", len(frames))
        onward = self.accept if looped else self._put_on_wire if self.faults.on else self._wire.send
        for frame in frames:
            onward(frame)

    def linked(self) -> bool:
        return self.phy.link

    def receiving(self) -> bool:
        return bool(self._values()[_AT_RX_MODE] & _ENABLED) and self.master()

    def room(self, frame: bytes) -> bool:  # noqa: ARG002  # a buffer for each, whatever its size
        there = self._rx.room() > 0
        if not there:
            self.stats.add(Reg.RCVLPC_NO_RCV_BD_CNT)
        return there

    def receive_all(self, frames: Sequence[bytes]) -> int:
        """Frames for which there is room, together; otherwise one by one."""
        if self.faults.on or self._rx.room() < len(frames) or not self.linked() or not self.receiving():
            return super().receive_all(frames)
        self._accept_all(frames)
        return len(frames)

    def accept(self, frame: bytes) -> None:
        """Filter, count and deliver. A frame for which there is no room by now is discarded and counted."""
        self._accept_all((frame,))

    def _accept_all(self, frames: Sequence[bytes]) -> None:
        wanted: list[bytes] = []
        accepts, plain = self._filter.accepts, self._values()[_AT_RX_MTU] - hw.FCS  # IPv4 up to this passes the MAC
        for frame in frames:
            whole = frame if len(frame) >= MINIMUM else frame.ljust(MINIMUM, b"\0")
            if accepts(whole) and ((frame[12:14] == _IPV4 and len(whole) <= plain) or self._passes(whole)):
                wanted.append(whole)
        if not wanted:
            return
        self.stats.received(wanted)
        if (room := self._rx.room()) < len(wanted):
            self.stats.add(Reg.RCVLPC_IN_DISCARDS_CNT, len(wanted) - room)
            del wanted[room:]
        self._rx.take(wanted)
        self._count("rx_frames", len(wanted))

    def _passes(self, frame: bytes) -> bool:
        """Whether the MAC does not keep a frame of ours to itself: a control frame, or one that is too long."""
        kind = frame[12:14]
        if kind == _MAC_CONTROL and self._control_frame(frame):
            return False
        values = self._values()
        limit = values[_AT_RX_MTU] - hw.FCS
        if 0 < limit < len(frame) - (_VLAN_BYTES if kind == _TAGGED else 0) and not values[_AT_RX_MODE] & _OVERSIZED:
            self.stats.add(Reg.MAC_RX_STATS_FRAME_TOO_LONG)
            return False
        return True

    def _control_frame(self, frame: bytes) -> bool:
        """MAC control frames are counted, and kept from the host unless it asked for them."""
        pause = frame[12:16] == _PAUSE
        self.stats.add(Reg.MAC_RX_STATS_MAC_CTRL_RECVD)
        if pause:
            off = frame[16:18] != b"\0\0"
            self.stats.add(Reg.MAC_RX_STATS_XOFF_PAUSE_RECVD if off else Reg.MAC_RX_STATS_XON_PAUSE_RECVD)
        keep = RxMode.KEEP_PAUSE if pause else RxMode.KEEP_MAC_CTRL
        return not self._values()[Reg.MAC_RX_MODE >> 2] & keep

    # The cable, and what a testcase does to the device

    def plug(self, cable: bool, silent: bool = False) -> None:
        """Put the cable in or pull it out. `silent`: the MAC does not notice, only the PHY's registers tell."""
        if silent:
            self._count("silent-link", 1)
        self._silent = silent
        self.phy.plug(cable)
        self._silent = False
        self.settle()

    def spurious(self) -> None:
        """An interrupt without a reason."""
        self.status.spurious()

    def partner(self, partner: Partner) -> None:
        self.phy.replace_partner(partner)

    def _link_changed(self) -> None:
        self._tell("link", up=self.phy.link, mode=self.phy.mode(), silent=self._silent)
        if not self._silent:
            self._values()[Reg.MAC_STATUS >> 2] |= MacStatus.LNKSTATE_CHANGED
            self._link_pending(0)

    def _link_pending(self, _value: int) -> None:
        """Tell of a link change that is still in MAC_STATUS, if the driver wants to know."""
        values = self._values()
        if values[Reg.MAC_STATUS >> 2] & values[Reg.MAC_EVENT >> 2] & MacStatus.LNKSTATE_CHANGED:
            self.status.update()

    def fault(self, name: str, setting: Setting | None) -> None:
        """Switch a fault on or off. Raises ValueError."""
        self.faults.apply(name, setting)
        if setting is None:
            self._recover(name)

    def _recover(self, name: str) -> None:
        if name == "no-interrupts":
            self.status.release()
        elif name == "no-dma":
            self._run_tx()
            self.settle()
        elif name == "reorder":
            self._in_order()
        elif name in ("no-completions", "stale-status"):
            self.status.update()
