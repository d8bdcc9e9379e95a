"""A tg3 in one Python process: its chip, a piece of memory, a wire, and a driver that fits on a page. For the unit tests of the model.

`Driver` does what Linux' tg3 does with rings and mailboxes (tg3_init_hw, tg3_start_xmit, tg3_rx, tg3_tx), with the layouts of
guest.netpoll.layout.bcm5787.
"""

from __future__ import annotations

import heapq
import os
import struct
from collections.abc import Callable

from guest.netpoll.layout import bcm5787 as hw
from guest.netpoll.layout.bcm5787 import Reg, Sram, StatusBlock, TxFlag
from harness.nic.inprocess import Tape
from harness.nic.tg3.chip import Tg3
from harness.testbed.template import sealed_memory
from harness.vfio_user.dma import DmaMemory

MAC = bytes.fromhex("525400aabb01")
PEER = bytes.fromhex("525400aabb02")
SIZE = 4 << 20
STATUS, TX, STD, RETURN, TX_BUFFERS, RX_BUFFERS = 0x1000, 0x2000, 0x8000, 0x10000, 0x100000, 0x200000
BUFFER = 2048


class Bus:
    """Memory, interrupts that are counted, and a clock that only the test moves."""

    def __init__(self) -> None:
        self.memory = DmaMemory()
        fd = sealed_memory(SIZE)
        self.memory.map(3, 0, SIZE, fd, 0)
        os.close(fd)
        self.msi_enabled, self.interrupts, self.pin, self.slept = True, 0, False, 0.0
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []

    def msi(self, vector: int = 0) -> bool:  # noqa: ARG002  # an MSI has one
        self.interrupts += self.msi_enabled
        return self.msi_enabled

    def intx(self, asserted: bool) -> None:
        self.pin = asserted

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + seconds, len(self._timers), callback))

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass and timers run."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, _, callback = heapq.heappop(self._timers)
            callback()
        self.now = until


class Driver:
    """Chip and driver. `counts` and `told` are what the chip reports for the evidence."""

    def __init__(self, up: bool = True) -> None:
        self.bus, self.wire = Bus(), Tape()
        self.counts: dict[str, int] = {}
        self.told: list[tuple[str, dict[str, object]]] = []
        self.chip = Tg3(MAC, self.bus, self.wire, lambda kind, **keys: self.told.append((kind, keys)), self._count)
        self.tx_producer = self.tx_consumer = self.rx_consumer = self.std_producer = 0
        if up:
            self.bring_up()

    def _count(self, name: str, number: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def read(self, register: int) -> int:
        return int.from_bytes(self.chip.read(register, 4), "little")

    def write(self, register: int, value: int) -> None:
        self.chip.write(register, value.to_bytes(4, "little"))
        self.chip.settle()

    def sram(self, at: int, value: int) -> None:
        self.write(Reg.TG3PCI_MEM_WIN_BASE_ADDR, at)
        self.write(Reg.TG3PCI_MEM_WIN_DATA, value)

    def mii(self, number: int, value: int | None = None) -> int:
        """Read or write a PHY register."""
        command = hw.MiCom.START | 1 << 21 | number << 16
        self.write(Reg.MAC_MI_COM, command | (hw.MiCom.CMD_READ if value is None else hw.MiCom.CMD_WRITE | value))
        return self.read(Reg.MAC_MI_COM) & 0xFFFF

    def bring_up(self, rx_buffers: int = 200) -> None:
        """Reset, rings, enables, interrupts."""
        self.write(Reg.GRC_MISC_CFG, hw.GRC_MISC_CFG_CORECLK_RESET)
        self.sram(Sram.SEND_RCB + 4, TX)
        self.sram(Sram.RCV_RET_RCB + 4, RETURN)
        self.write(Reg.RCVDBDI_STD_BD_HOST_ADDR_LOW, STD)
        self.write(Reg.HOSTCC_STATUS_BLK_HOST_ADDR_LOW, STATUS)
        self.write(Reg.MAC_RX_MTU_SIZE, 1500 + 14 + 4 + 4)
        self.write(Reg.HOSTCC_RXMAX_FRAMES, 1)
        self.write(Reg.HOSTCC_TXMAX_FRAMES, 1)
        self.write(Reg.MAC_EVENT, hw.MacStatus.LNKSTATE_CHANGED)
        self.write(Reg.HOSTCC_MODE, hw.HostccMode.ENABLE)
        self.write(Reg.MAC_TX_MODE, hw.MODE_ENABLE)
        self.write(Reg.MAC_RX_MODE, hw.MODE_ENABLE | hw.RxMode.IPV6_CSUM_ENABLE)
        self.post(rx_buffers)
        self.arm()

    def post(self, count: int) -> None:
        """Give `count` receive buffers."""
        for _ in range(count):
            index = self.std_producer % hw.RX_STD_RING
            bd = hw.RX_BD.pack(0, RX_BUFFERS + index * BUFFER, 1536, hw.RxFlag.END, 0, 0, 0, 0x10000 | index)
            self.bus.memory.write(STD + index * hw.RX_BD.size, bd)
            self.std_producer += 1
        self.write(Reg.MAILBOX_RCV_STD_PROD_IDX, self.std_producer % hw.RX_STD_RING)

    def arm(self) -> None:
        """Unmask: tell the chip up to which tag we have looked."""
        self.write(Reg.TG3PCI_MISC_HOST_CTRL, 0)
        self.write(Reg.MAILBOX_INTERRUPT_0, self.status_word(StatusBlock.TAG) << 24)

    def status_word(self, at: int) -> int:
        return int(struct.unpack("<I", self.bus.memory.read(STATUS + at, 4))[0])

    def index(self, at: int) -> int:
        return int(struct.unpack("<H", self.bus.memory.read(STATUS + at, 2))[0])

    def queue(self, pieces: list[bytes], flags: int = 0, mss: int = 0, vlan: int = 0) -> None:
        """Descriptors of one frame, a piece each, without ringing the bell."""
        for number, piece in enumerate(pieces):
            index = self.tx_producer % hw.TX_RING
            end = TxFlag.END if number == len(pieces) - 1 else 0
            self.bus.memory.write(TX_BUFFERS + index * BUFFER, piece)
            bd = hw.TX_BD.pack(0, TX_BUFFERS + index * BUFFER, len(piece) << 16 | flags | end, mss << 16 | vlan)
            self.bus.memory.write(TX + index * hw.TX_BD.size, bd)
            self.tx_producer += 1

    def bell(self) -> None:
        self.write(Reg.MAILBOX_SNDHOST_PROD_IDX_0, self.tx_producer % hw.TX_RING)

    def send(self, frame: bytes, **offload: int) -> None:
        self.queue([frame], **offload)
        self.bell()

    def receive(self) -> list[tuple[bytes, tuple[int, ...]]]:
        """Frames in the return ring that are new, each with its descriptor; their buffers are given back."""
        found = []
        while self.rx_consumer != self.index(StatusBlock.RX_PRODUCER):
            bd = hw.RX_BD.unpack(self.bus.memory.read(RETURN + self.rx_consumer * hw.RX_BD.size, hw.RX_BD.size))
            found.append((self.bus.memory.read(bd[1], (bd[2] & 0xFFFF) - hw.FCS), bd))
            self.rx_consumer = (self.rx_consumer + 1) % hw.RX_RETURN_RING
        self.write(Reg.MAILBOX_RCVRET_CON_IDX_0, self.rx_consumer)
        return found

    def arrive(self, frame: bytes) -> bool:
        taken = self.chip.receive(frame)
        self.chip.settle()
        return taken


def frame(payload: bytes = b"x" * 50, target: bytes = MAC, source: bytes = PEER, kind: int = 0x88B5) -> bytes:
    return target + source + kind.to_bytes(2, "big") + payload
