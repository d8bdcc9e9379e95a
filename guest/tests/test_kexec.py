"""guest.kexec without a kernel: what is read of a machine, and what is laid out for the next kernel."""

from __future__ import annotations

import itertools
import struct

import pytest

from guest.kexec import layout
from guest.kexec.boot import E820_COUNT, E820_TABLE, boot_params, e820, trampoline
from guest.kexec.elfcore import elfcore_header
from guest.kexec.layout import MIB, Placed, big, kernel_segments, small
from guest.kexec.machine import (
    EHDR,
    PHDR,
    KexecError,
    Machine,
    parse_iomem,
    program_headers,
    virtual_addresses,
    without,
)

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000f0000-000fffff : Reserved
00100000-2ffdffff : System RAM
  1a000000-25ffffff : Crash kernel
  01000000-01dfffff : Kernel code
fec00000-fec003ff : IOAPIC 0
"""
DIRECT, TEXT = 0xFFFF888000000000, 0xFFFFFFFF81000000


def machine(**changes: object) -> Machine:
    given: dict[str, object] = {
        "crash": (0x1A000000, 192 * MIB),
        "ram": ((MIB, 0x19F00000), (0x26000000, 0x9FE0000)),
        "low": ((0x1000, 0x9EC00),),
        "firmware": ((0, 0x9FC00, "System RAM"), (0xF0000, 0x10000, "Reserved"), (MIB, 0x2FEE0000, "System RAM"), (0x2FFE0000, 0x20000, "ACPI Tables")),
        "direct_map": DIRECT,
        "text": (TEXT, 0x1000000, 0x3A00000),
        "notes": ((0x2F000000, 424), (0x2F100000, 424)),
        "vmcoreinfo": (0x4000000, 4096),
        "boot_params": bytes(range(256)) * 16,
    }  # fmt: skip
    return Machine(**{**given, **changes})  # type: ignore[arg-type]


def elf(loads: list[tuple[int, bytes, int]], entry: int) -> bytes:
    """An ELF file of PT_LOADs: physical address, content, size in memory."""
    at = EHDR.size + PHDR.size * len(loads)
    headers, contents = b"", b""
    for paddr, data, size in loads:
        headers += PHDR.pack(1, 7, at + len(contents), 0xFFFFFFFF80000000 + paddr, paddr, len(data), size, 0x200000)
        contents += data
    head = EHDR.pack(b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 2, 62, 1, entry, EHDR.size, 0, 0, EHDR.size, PHDR.size, len(loads), 0, 0, 0)  # fmt: skip
    return head + headers + contents


def test_iomem_is_read_with_its_nested_resources() -> None:
    found = parse_iomem(IOMEM)
    assert (0x1A000000, 192 * MIB, "Crash kernel") in found
    assert (0x1000, 0x9EC00, "System RAM") in found


def test_iomem_that_hides_its_addresses_is_refused() -> None:
    with pytest.raises(KexecError, match="only root"):
        parse_iomem("00000000-00000000 : System RAM\n")


@pytest.mark.parametrize(
    ("hole", "left"),
    [
        pytest.param((100, 50), [(0, 100), (150, 50)], id="in the middle"),
        pytest.param((0, 50), [(50, 150)], id="at the beginning"),
        pytest.param((150, 500), [(0, 150)], id="over the end"),
        pytest.param((300, 10), [(0, 200)], id="elsewhere"),
        pytest.param((0, 200), [], id="all of it"),
    ],
)
def test_a_hole_is_cut_out_of_memory(hole: tuple[int, int], left: list[tuple[int, int]]) -> None:
    assert without([(0, 200)], hole) == left


def test_virtual_addresses_come_from_kcore() -> None:
    vmalloc = (0xFFFFC90000000000, (1 << 64) - 1, 1 << 40)
    loads = [vmalloc, (TEXT, 0x1000000, 0x3A00000), (DIRECT + MIB, MIB, 0x2FEE0000)]
    assert virtual_addresses(loads) == (DIRECT, (TEXT, 0x1000000, 0x3A00000))
    with pytest.raises(KexecError, match="direct map"):
        virtual_addresses([vmalloc])


def test_the_elf_header_has_a_note_for_each_cpu_and_no_crash_region() -> None:
    made = elfcore_header(machine())
    count = EHDR.unpack_from(made)[10]
    headers = [PHDR.unpack_from(made, EHDR.size + number * PHDR.size) for number in range(count)]
    assert [each[0] for each in headers] == [4, 4, 4, 1, 1, 1]
    assert len(made) == EHDR.size + count * PHDR.size
    assert program_headers(made) == [(TEXT, 0x1000000, 0x3A00000), (DIRECT + MIB, MIB, 0x19F00000), (DIRECT + 0x26000000, 0x26000000, 0x9FE0000)]  # fmt: skip


def test_the_next_kernel_has_its_own_region_the_first_mebibyte_and_the_firmware_s_tables() -> None:
    assert e820(machine(), (0x1A200000, 190 * MIB)) == [
        (0, 0x9FC00, 1),
        (0xF0000, 0x10000, 2),
        (0x1A200000, 190 * MIB, 1),
        (0x2FFE0000, 0x20000, 3),
    ]


def test_the_zero_page_is_the_running_kernel_s_with_what_differs() -> None:
    before = machine()
    page = boot_params(before, (0x1A200000, 190 * MIB), (0x123456000, 777), 0x1A102000)
    assert page[0x1F1:0x210] == before.boot_params[0x1F1:0x210]
    assert page[E820_COUNT] == 4
    assert struct.unpack_from("<QQI", page, E820_TABLE) == (0, 0x9FC00, 1)
    assert struct.unpack_from("<II", page, 0x218) == (0x23456000, 777)
    assert struct.unpack_from("<I", page, 0xC0) == (1,)
    assert struct.unpack_from("<IQ", page, 0x228)[0] == 0x1A102000
    assert (page[0x1EF], page[0x210], page[0x211] & 2) == (0, 0xD0, 0)


def test_too_many_ranges_are_refused() -> None:
    many = tuple((number << 20, 4096, "Reserved") for number in range(200))
    with pytest.raises(ValueError, match="201 ranges"):
        boot_params(machine(firmware=many), (0, 4096), (0, 0), 0)


def test_the_trampoline_loads_rsi_and_jumps() -> None:
    assert trampoline(0x1122334455667788, 0x99).hex() == "fa48be990000000000000048b88877665544332211ffe0"


def test_a_kernel_moves_as_a_whole() -> None:
    vmlinux = elf([(0x1000000, b"text", 0x2000), (0x1200000, b"data", 0x5001)], 0x1000040)
    segments, entry = kernel_segments(vmlinux, 0x1A200000)
    assert [(each.address, bytes(each.data), each.size) for each in segments] == [
        (0x1A200000, b"text", 0x2000),
        (0x1A400000, b"data", 0x6000),
    ]
    assert entry == 0x1A200040


def test_big_parts_leave_the_beginning_of_the_region_to_kexec() -> None:
    vmlinux = elf([(0x1000000, b"x" * 100, 40 * MIB)], 0x1000000)
    segments, placed = big(vmlinux, b"i" * 5000, machine().crash)
    assert segments[0].address == 0x1A000000 + 2 * MIB
    assert placed == Placed(0x1A200000, (0x1A200000 + 40 * MIB, 5000))
    assert segments[1].size == 8192


def test_a_region_that_is_too_small_is_refused_with_the_size_that_it_needs() -> None:
    vmlinux = elf([(0x1000000, b"x", 60 * MIB)], 0x1000000)
    with pytest.raises(KexecError, match=r"crashkernel=64M is too small.*94M"):
        big(vmlinux, b"", (0x1A000000, 64 * MIB))


def test_small_parts_do_not_meet_the_big_ones() -> None:
    parts = small(machine(), Placed(0x1A200000, (0x1D000000, 4096)), "quiet -- -m guest.capture")
    assert parts[0].address == 0x1A000000 + MIB
    assert all(one.address + one.size <= other.address for one, other in itertools.pairwise(parts))
    assert parts[-1].address + parts[-1].size <= 0x1A000000 + layout.BIG
    assert bytes(parts[2].data) == b"quiet elfcorehdr=0x1a103000 -- -m guest.capture\0"


def test_a_command_line_that_does_not_fit_is_refused() -> None:
    with pytest.raises(KexecError, match="2047 fit"):
        small(machine(), Placed(0, (0, 0)), "x" * 2040)
