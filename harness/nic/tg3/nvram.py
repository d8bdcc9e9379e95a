"""The board's NVRAM: a serial EEPROM with bootcode header, manufacturing block and vital product data, and the registers to it.

In: MAC address and part number; accesses to NVRAM_*. Out: bytes that tg3's own checks find right: magic, both CRCs (zlib's), the
VPD checksum (PCI Local Bus Specification 3.0, appendix I). Rule: what is written stays until the process ends; data registers are
big-endian views of the bytes.
"""

from __future__ import annotations

import struct
import zlib

from guest.netpoll.layout.bcm5787 import NvramCmd

SIZE = 8192
MAGIC = 0x669955AA
PART_NUMBER = "BCM95787A-NPH"
_BOOTSTRAP_CRC, _BOOTCODE_VERSION, _MAC, _KILOBYTES, _MANUFACTURING, _MANUFACTURING_CRC, _VPD = (
    0x10, 0x94, 0x7C, 0xF2, 0x74, 0xFC, 0x100
)  # fmt: skip
BOOTCODE = (3, 37)


def image(mac: bytes, serial: str = "0") -> bytearray:
    """An EEPROM's content for a NIC with this address."""
    data = bytearray(SIZE)
    struct.pack_into(">IIII", data, 0, MAGIC, 0x08000000, 0x00000080, 0x00000200)
    struct.pack_into("<I", data, _BOOTSTRAP_CRC, zlib.crc32(data[:0x10]))
    data[_MAC + 2 : _MAC + 8] = mac
    struct.pack_into(">I", data, _BOOTCODE_VERSION, BOOTCODE[0] << 8 | BOOTCODE[1])
    struct.pack_into("<H", data, _KILOBYTES, SIZE // 1024)
    struct.pack_into("<I", data, _MANUFACTURING_CRC, zlib.crc32(data[_MANUFACTURING:_MANUFACTURING_CRC]))
    product = vpd(serial)
    data[_VPD : _VPD + len(product)] = product
    return data


def vpd(serial: str) -> bytes:
    """256 bytes of vital product data: name, read-only keywords, checksum."""
    name = b"Broadcom NetXtreme Gigabit Ethernet"
    head = struct.pack("<BH", 0x82, len(name)) + name
    fields = _field(b"PN", PART_NUMBER.encode()) + _field(b"SN", serial.encode()) + _field(b"MN", b"14e4")
    padding = 0x80 - len(head) - 3 - len(fields) - 4
    fields += b"RV" + bytes([padding + 1])
    checked = head + struct.pack("<BH", 0x90, len(fields) + 1 + padding) + fields
    body = checked + bytes([-sum(checked) & 0xFF]) + bytes(padding) + b"\x78"
    return body.ljust(256, b"\0")


def _field(keyword: bytes, value: bytes) -> bytes:
    return keyword + bytes([len(value)]) + value


class Nvram:
    """The access registers. `command(value, address, data)` does one word."""

    def __init__(self, mac: bytes, serial: str) -> None:
        self.data = image(mac, serial)

    def command(self, command: int, address: int, data: int) -> int:
        """Run NVRAM_CMD; returns NVRAM_RDDATA's new value."""
        at = address % SIZE & ~3
        if not command & NvramCmd.GO:
            return 0
        if command & NvramCmd.WR:
            struct.pack_into(">I", self.data, at, data)
        return int(struct.unpack_from(">I", self.data, at)[0])


def arbitrate(before: int, written: int) -> int:
    """NVRAM_SWARB: bits 0 to 3 request, 4 to 7 release, 8 to 11 show who has it, 12 to 15 who asked."""
    asked = (before >> 12 & 0xF | written & 0xF) & ~(written >> 4 & 0xF)
    first = asked & -asked  # one at a time
    held = before >> 8 & 0xF & asked
    return (held or first) << 8 | asked << 12
