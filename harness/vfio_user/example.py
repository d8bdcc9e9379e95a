"""The smallest complete device: a copy engine. Two addresses, a length and a doorbell; it copies guest memory and interrupts.

It shows the whole API on one page: a register table, DMA, MSI-X and INTx, config space, and `python -m harness.vfio_user.example PATH`,
which serves it to `-device vfio-user-pci` on the socket PATH until it is interrupted.

| offset | register | |
|---|---|---|
| 0x00 | ID | reads 0x59504f43 |
| 0x04, 0x08 | SOURCE, TARGET | guest addresses below 4 GiB |
| 0x0c | LENGTH | bytes, at most 64 KiB |
| 0x10 | DOORBELL | any write copies |
| 0x14 | STATUS | 1 done, 2 fault; write 1 to clear |
"""

from __future__ import annotations

import socket
import sys

from harness.vfio_user.config import BarKind, ConfigSpace, Identity, msix
from harness.vfio_user.device import PciDevice
from harness.vfio_user.errors import DmaFault
from harness.vfio_user.registers import Register, RegisterFile
from harness.vfio_user.serve import Listener, Loop
from harness.vfio_user.wire import Irq

ID, SOURCE, TARGET, LENGTH, DOORBELL, STATUS = range(0x00, 0x18, 4)
MAGIC = int.from_bytes(b"COPY", "little")
DONE, FAULT = 1, 2
LIMIT = 1 << 16


class CopyEngine:
    """The model: rows of the table above, and what they do."""

    def __init__(self) -> None:
        rows = (
            Register(ID, "ID", MAGIC, writable=0),
            Register(DOORBELL, "DOORBELL", writable=0, write=self._copy),
            Register(STATUS, "STATUS", writable=0, write=self._acknowledge),
        )
        self.registers = RegisterFile(4096, rows)
        bars = {0: (BarKind(0, 4096), self.registers)}
        identity = Identity(0x1B36, 0x0011, 0xFF0000)
        config = ConfigSpace(identity, (BarKind(0, 4096),), (msix(0x40, 1, bar=0, table=0x800, pending=0xC00),))
        self.device = PciDevice(config, bars, {Irq.INTX: 1, Irq.MSIX: 1}, self.registers.reset)

    def _copy(self, _value: int) -> None:
        registers, dma = self.registers, self.device.dma
        length = min(registers.read32(LENGTH), LIMIT)
        try:
            dma.write(registers.read32(TARGET), dma.read(registers.read32(SOURCE), length))
            self._finish(DONE)
        except DmaFault:
            self._finish(FAULT)

    def _finish(self, status: int) -> None:
        self.registers.values[STATUS >> 2] |= status
        if not self.device.irqs.trigger(Irq.MSIX):
            self.device.irqs.level(True)

    def _acknowledge(self, value: int) -> None:
        self.registers.values[STATUS >> 2] &= ~value
        self.device.irqs.level(self.registers.values[STATUS >> 2] != 0)


def main(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(1)
        loop = Loop(print)
        Listener(loop, listening, CopyEngine().device, print)
        while True:
            loop.run_once()


if __name__ == "__main__":
    main(sys.argv[1])
