"""A file for the vmcore reader: one of ours with octets changed, or anything.

In: how many changes, each an offset of two octets and a value of eight; then octets put in place of the end. Held: nothing but
VmcoreError; a read gives as many octets as were asked for; ranges are disjoint, in order and in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from guest.netpoll.clients.vmcore.core import Vmcore
from guest.netpoll.clients.vmcore.errors import VmcoreError
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.tests.core_files import DIRECT_MAP, TEXT, small_kernel
from guest.tests.fuzz.octets import Octets
from guest.tests.fuzz.table import Target

WHOLE = small_kernel()
ADDRESSES = (TEXT, TEXT + 0xFFE, 0xFFFFC90000000FFC, DIRECT_MAP + 0x300000, 0, 1 << 63, 2**64 - 8)


def run(data: bytes) -> None:
    octets = Octets(data)
    changed = bytearray(WHOLE)
    for _ in range(octets.u8() % 8):
        at, value = octets.u16(), octets.take(8)
        changed[at : at + len(value)] = value
    tail = octets.rest()
    if tail:
        del changed[int.from_bytes(tail[:2], "big") :]
        changed += tail[2:]
    _read(bytes(changed))


def _read(file: bytes) -> None:
    try:
        vmcore = Vmcore(BytesSource(file))
    except VmcoreError:
        return
    end = 0
    for start, stop in vmcore.physical_ranges():
        assert end <= start < stop
        end = stop
        assert len(vmcore.read_physical(start, min(stop - start, 16))) == min(stop - start, 16)
    for address in ADDRESSES:
        try:
            assert len(vmcore.read_virtual(address, 8)) == 8
        except VmcoreError:
            continue


def encoded() -> Iterator[bytes]:
    yield b"\0"
    for at in (16, 18, 32, 40, 54, 56, 64, 72, 96, 104, 120 + 8, 120 + 24, 120 + 32, 120 + 40):
        yield b"\1" + struct.pack(">H", at) + bytes(8)
        yield b"\1" + struct.pack(">H", at) + b"\xff" * 8
    yield b"\0" + struct.pack(">H", 60)
    yield b"\0" + struct.pack(">H", 1000)
    yield b"\0\0\0" + b"KDUMP   "
    notes = WHOLE.index(b"CORE\0")
    for at in (
        notes - 12,
        notes - 8,
        WHOLE.index(b"VMCOREINFO") - 12,
        WHOLE.index(b"SYMBOL("),
        WHOLE.index(b"NUMBER("),
    ):
        yield b"\2" + struct.pack(">H", at) + b"\x7f" * 8 + struct.pack(">H", at + 16) + b"\0" * 8


TOKENS = (b"\x7fELF\x02\x01", b"CORE\0", b"VMCOREINFO", b"SYMBOL(swapper_pg_dir)=", b"NUMBER(phys_base)=", b"\xff" * 8)
TARGET = Target(run, encoded, TOKENS, max_len=200)
