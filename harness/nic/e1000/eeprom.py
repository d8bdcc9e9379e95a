"""The EEPROM: 64 words behind a Microwire interface that software clocks bit by bit (manual, 5.2, 5.3, 13.4.3).

In: writes of EECD, reads of EERD. Out: words: MAC address, device id, a sum of BABAh. Rule: a bit is taken at the clock's rising edge,
while the chip is selected and software has been granted the interface; writing is not done.
"""

from __future__ import annotations

from guest.netpoll.layout.e1000 import (
    DEVICE,
    EEPROM_SIZE_WORDS,
    EEPROM_SUM,
    EERD_ADDR_SHIFT,
    EERD_DATA_SHIFT,
    MICROWIRE_ADDRESS_BITS,
    MICROWIRE_READ,
    VENDOR,
    Eecd,
    Eerd,
)

_INIT1, _SUBSYSTEM, _SUBSYSTEM_VENDOR, _DEVICE, _VENDOR, _SUM = 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x3F
_COMMAND_BITS = 3 + MICROWIRE_ADDRESS_BITS


def image(mac: bytes) -> list[int]:
    """The words of a NIC with this address (5.6)."""
    words = [0] * EEPROM_SIZE_WORDS
    words[0:3] = [mac[n] | mac[n + 1] << 8 for n in (0, 2, 4)]
    words[4] = 0xFFFF  # LEDs as ever
    words[_INIT1], words[_SUBSYSTEM], words[_SUBSYSTEM_VENDOR] = 0x4408, 0x001E, VENDOR
    words[_DEVICE], words[_VENDOR] = DEVICE, VENDOR
    words[_SUM] = (EEPROM_SUM - sum(words)) & 0xFFFF
    return words


class Eeprom:
    """`eecd` is what the register reads."""

    def __init__(self, mac: bytes) -> None:
        self.words = image(mac)
        self.eecd = int(Eecd.EE_PRES)
        self._restart()

    def _restart(self) -> None:
        self._bits = self._command = 0  # taken since the start bit
        self._out = 0  # what goes out on DO, the top bit of sixteen first

    def write(self, value: int) -> None:
        """EECD was written. 5.3.1: software asks for the interface, and has it at once."""
        before = self.eecd
        granted = Eecd.EE_GNT if value & Eecd.EE_REQ else 0
        kept = Eecd.SK | Eecd.CS | Eecd.DI | Eecd.FWE | Eecd.EE_REQ
        self.eecd = int(value & kept | granted | Eecd.EE_PRES | before & Eecd.DO)
        if not value & Eecd.CS:
            self._restart()
            self.eecd |= Eecd.DO  # ready
        elif granted and value & Eecd.SK and not before & Eecd.SK:
            self._clock(bool(value & Eecd.DI))

    def _clock(self, bit: bool) -> None:
        if self._bits == 0 and not bit:
            return  # the start bit is a 1
        if self._bits < _COMMAND_BITS:
            self._command = self._command << 1 | bit
            self._bits += 1
            if self._bits == _COMMAND_BITS:
                opcode, address = self._command >> MICROWIRE_ADDRESS_BITS, self._command % EEPROM_SIZE_WORDS
                self._out = self.words[address] if opcode == MICROWIRE_READ else 0
                self.eecd &= ~int(Eecd.DO)
            return
        self.eecd = self.eecd & ~int(Eecd.DO) | (int(Eecd.DO) if self._out & 0x8000 else 0)
        self._out = self._out << 1 & 0xFFFF

    def read(self, value: int) -> int:
        """What EERD reads once `value` was written."""
        if not value & Eerd.START:
            return value
        address = value >> EERD_ADDR_SHIFT & 0xFF
        word = self.words[address] if address < len(self.words) else 0xFFFF
        return address << EERD_ADDR_SHIFT | word << EERD_DATA_SHIFT | Eerd.DONE
