"""The chip: its registers, and how the engines are joined. BAR 0 of the device is its register file.

In: accesses, frames from the wire, the cable. Out: what the engines do. Rule: a register that no row of `_rows` describes is storage that
reads back; interrupts are raised in `settle`, once a burst of accesses or frames.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from guest.netpoll.layout import e1000 as hw
from guest.netpoll.layout.e1000 import Ctrl, Int, Mdic, Rctl, Reg, Status, Tctl
from harness.nic.bus import Bus, Tell, Wire
from harness.nic.e1000.eeprom import Eeprom
from harness.nic.e1000.filter import ADDRESS_REGISTERS, Filter
from harness.nic.e1000.interrupts import Interrupts
from harness.nic.e1000.phy import Phy
from harness.nic.e1000.receive import Receive
from harness.nic.e1000.stats import Statistics
from harness.nic.e1000.transmit import Transmit
from harness.nic.faults import FRAME_FAULTS, Setting
from harness.nic.wired import Wired
from harness.vfio_user.registers import Register, RegisterFile

FAULTS = ("no-interrupts", "no-completions", "no-dma", "no-reset", "gone", "slow", *FRAME_FAULTS)
_LOOP = int(Rctl.LBM)
_ONES = 0xFFFF_FFFF
_SELF_CLEARING = int(Ctrl.RST | Ctrl.PHY_RST)
_LONG = int(Rctl.LPE | Rctl.SBP)
_RAH = 0x8003_FFFF
_WRITABLE = {  # of registers that are storage, as far as Linux' self-test looks (e1000_reg_test())
    Reg.FCAH: 0xFFFF, Reg.FCT: 0xFFFF, Reg.VET: 0xFFFF, Reg.FCTTV: 0xFFFF, Reg.FCRTH: 0xFFF8, Reg.TXCW: 0xC000_FFFF, Reg.TIPG: 0x3FFF_FFFF,
    Reg.RDTR: 0xFFFF, Reg.TIDV: 0xFFFF, Reg.RDLEN: 0xF_FF80, Reg.TDLEN: 0xF_FF80, Reg.RDBAL: 0xFFFF_FFF0, Reg.TDBAL: 0xFFFF_FFF0,
}  # fmt: skip


class E1000(Wired):
    """An 82540EM with its PHY, EEPROM and faults. `tell(kind, **keys)` hears of links and resets, `count(name, n)` of the rest."""

    def __init__(
        self, mac: bytes, bus: Bus, wire: Wire, tell: Tell, count: Callable[[str, int], None], seed: int = 0
    ) -> None:
        super().__init__(bus, wire, count, seed)
        self.mac, self._tell = mac, tell
        self.master: Callable[[], bool] = lambda: True  # whether the machine allows DMA
        self.interrupts = Interrupts(bus, self.faults, count)
        self.stats = Statistics(self._values)
        self.phy = Phy(bus.call_later, self._link_changed)
        self.eeprom = Eeprom(mac)
        self._filter = Filter()
        self._tx = Transmit(self._values, bus, self.interrupts, self.faults, self._transmit, count)
        self._rx = Receive(self._values, bus, self.interrupts, count)
        self._silent = False
        self.registers = RegisterFile(hw.BAR_SIZE, self._rows())
        self._load_eeprom()

    def _values(self) -> array[int]:
        return self.registers.values

    def settle(self) -> None:
        """A burst of accesses or frames is over."""
        self.interrupts.settle()

    def power_on_reset(self) -> None:
        """The machine resets the device."""
        self.phy.write(0, 0x8000)
        self._reset()

    # Registers that are more than storage

    def _rows(self) -> list[Register]:
        rows = [
            Register(Reg.CTRL, "CTRL", Ctrl.FD | Ctrl.SPEED_1000, _ONES & ~_SELF_CLEARING, write=self._control),
            Register(Reg.CTRL + 4, "CTRL_DUP", read=lambda _: self._values()[0], write=lambda value: self.registers.write32(0, value)),
            Register(Reg.STATUS, "STATUS", writable=0, read=self._status),
            Register(Reg.EECD, "EECD", writable=0, read=lambda _: self.eeprom.eecd, write=self.eeprom.write),
            Register(Reg.EERD, "EERD", write=self._eerd),
            Register(Reg.MDIC, "MDIC", write=self._mdic),
            Register(Reg.ICR, "ICR", writable=0, read=self.interrupts.read_icr, write=self.interrupts.write_icr),
            Register(Reg.ICS, "ICS", writable=0, write=self.interrupts.set),
            Register(Reg.IMS, "IMS", writable=0, read=lambda _: self.interrupts.mask, write=self.interrupts.let),
            Register(Reg.IMC, "IMC", writable=0, write=self.interrupts.forbid),
            Register(Reg.RCTL, "RCTL", write=self._receive_control),
            Register(Reg.TCTL, "TCTL", write=lambda _: self._run_tx()),
            Register(Reg.RDT, "RDT", writable=0xFFFF, write=lambda _: self._unblock()),
            Register(Reg.TDT, "TDT", writable=0xFFFF, write=self._doorbell),
            Register(Reg.RDH, "RDH", writable=0xFFFF),
            Register(Reg.TDH, "TDH", writable=0xFFFF),
            Register(Reg.PBA, "PBA", 0x0010_0030, writable=0xFFFF),
        ]  # fmt: skip
        rows += [Register(at, at.name, writable=mask) for at, mask in _WRITABLE.items()]
        rows += [Register(at, f"STATS_{at:x}", read=self.stats.clear_on_read(at)) for at in hw.STATISTICS]
        rows += [
            Register(at, f"RA_{at:x}", writable=_RAH if at & 4 else _ONES, write=self._address_written)
            for at in ADDRESS_REGISTERS
        ]
        return rows

    def _address_written(self, _value: int) -> None:
        self._filter.load(self._values())

    def _control(self, value: int) -> None:
        if value & Ctrl.PHY_RST:
            self.phy.write(0, 0x8000)
        if value & Ctrl.RST and not self.faults.strikes("no-reset"):
            self._reset()
            self._tell("reset")

    def _reset(self) -> None:
        """CTRL.RST (13.4.1): all but the PHY and configuration space."""
        self.registers.reset()
        self._tx.reset()
        self.interrupts.reset()
        self._load_eeprom()
        self._unblock()

    def _load_eeprom(self) -> None:
        """5.6.1: the address goes into the first receive address."""
        words, values = self.eeprom.words, self._values()
        values[Reg.RAL >> 2] = words[0] | words[1] << 16
        values[Reg.RAH >> 2] = words[2] | hw.RAH_AV
        self._filter.load(values)

    def _status(self, _value: int) -> int:
        mode = self.phy.mode()
        if not self.phy.link or mode is None or not self._values()[Reg.CTRL >> 2] & Ctrl.SLU:
            return int(Status.FD)
        speed = {1000: Status.SPEED_1000 | Status.ASDV_1000, 100: 0x140, 10: 0}[mode[0]]
        return int(Status.LU | speed | (Status.FD if mode[1] else 0))

    def _eerd(self, value: int) -> None:
        self._values()[Reg.EERD >> 2] = self.eeprom.read(value)

    def _mdic(self, value: int) -> None:
        """8.3.1: done at once."""
        phy, number = value >> hw.MDIC_PHY_SHIFT & 0x1F, value >> hw.MDIC_REG_SHIFT & 0x1F
        answer = int(value & ~(Mdic.R | Mdic.E))
        if phy != hw.PHY_ADDRESS:
            answer |= Mdic.E
        elif value & Mdic.OP_READ:
            answer = answer & ~0xFFFF | self.phy.read(number)
        elif value & Mdic.OP_WRITE:
            self.phy.write(number, value & 0xFFFF)
        self._values()[Reg.MDIC >> 2] = int(answer | Mdic.R)
        if value & Mdic.I:
            self.interrupts.mark(Int.MDAC)

    def _receive_control(self, value: int) -> None:
        if not value & Rctl.EN:  # switched off: what waits is lost, not kept for ever
            self._unblock()

    # Sending

    def _doorbell(self, _value: int) -> None:
        self._count("doorbells", 1)
        self._run_tx()

    def _run_tx(self) -> None:
        if not self._values()[Reg.TCTL >> 2] & Tctl.EN or not self.master() or self.faults.strikes("no-dma"):
            return
        if self._tx.run():
            self._bus.call_later(0, self._run_tx)

    def _transmit(self, frame: bytes) -> None:
        """A frame leaves the MAC: onto the wire, into the loop, or nowhere if there is no link."""
        looped = self._values()[Reg.RCTL >> 2] & _LOOP or self.phy.loopback
        if not looped and not self.phy.link:
            self._count("tx_without_link", 1)
            return
        self.stats.sent(frame)
        self._count("tx_frames", 1)
        if looped:
            self.accept(frame)
        else:
            self._put_on_wire(frame)

    # Receiving

    def linked(self) -> bool:
        return self.phy.link

    def receiving(self) -> bool:
        return bool(self._values()[Reg.RCTL >> 2] & Rctl.EN) and self.master()

    def wants(self, frame: bytes) -> bool:
        return self._filter.accepts(frame, self._values())

    def room(self, frame: bytes) -> bool:
        there = self._rx.room(max(len(frame), 60))
        if not there:
            self.stats.add(Reg.RNBC)
        return there

    def accept(self, frame: bytes) -> None:
        """Filter, count and deliver. A frame for which there is no room by now is missed and counted."""
        values = self._values()
        if not self._filter.accepts(frame, values):
            return
        if len(frame) + hw.FCS > hw.LONGEST_FRAME and not values[Reg.RCTL >> 2] & _LONG:
            self.stats.add(Reg.ROC)
            return
        self.stats.received(frame)
        if self._rx.room(max(len(frame), 60)):
            self._rx.take(frame, self._filter.exact(frame))
            self._count("rx_frames", 1)
        else:
            self.stats.add(Reg.MPC)
            self.interrupts.mark(Int.RXO)

    # The cable, and what a testcase does to the device

    def plug(self, cable: bool, silent: bool = False) -> None:
        """Put the cable in or pull it out. `silent`: no cause is raised, only the registers tell."""
        if silent:
            self._count("silent-link", 1)
        self._silent = silent
        self.phy.plug(cable)
        self._silent = False
        self.settle()

    def _link_changed(self) -> None:
        self._tell("link", up=self.phy.link, mode=self.phy.mode(), silent=self._silent)
        if not self._silent:
            self.interrupts.mark(Int.LSC)
            self.settle()

    def spurious(self) -> None:
        """An interrupt without a reason."""
        self.interrupts.spurious()

    def fault(self, name: str, setting: Setting | None) -> None:
        """Switch a fault on or off. Raises ValueError."""
        if name not in FAULTS:
            raise ValueError(f"an e1000 has no fault {name!r}; there are {', '.join(FAULTS)}")
        self.faults.apply(name, setting)
        if setting is None:
            self._recover(name)

    def _recover(self, name: str) -> None:
        if name == "no-interrupts":
            self.interrupts.release()
        elif name == "no-dma":
            self._run_tx()
        elif name == "no-completions":
            self._tx.release()
        elif name == "reorder":
            self._in_order()
        self.settle()
