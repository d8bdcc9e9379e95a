"""The vmcore reader on files made by hand: what it reads, what it refuses, and that no file makes it fail in another way."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest.netpoll.clients.vmcore.core import Vmcore, VmcoreFile
from guest.netpoll.clients.vmcore.elf import MAX_NOTES, MAX_SEGMENTS
from guest.netpoll.clients.vmcore.errors import NotInDump, NotReadable, VmcoreError
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.tests.core_files import DIRECT_MAP, TEXT, Load, Tables, core, note, prstatus, small_kernel, vmcoreinfo

VMALLOC = 0xFFFFC90000000000


def opened(data: bytes) -> Vmcore:
    return Vmcore(BytesSource(data))


class TestRegisters:
    def test_a_cpu_a_note_in_order(self) -> None:
        first, second = opened(core([], prstatus(7, rip=1, gs=2**64 - 1) + prstatus(0))).registers
        assert (first.pid, first.values["rip"], first.values["gs"], first.values["r15"]) == (7, 1, 2**64 - 1, 0)
        assert (second.pid, second.values["rip"], second.values["orig_rax"]) == (0, 16, 15)

    def test_a_short_note_costs_only_its_cpu(self) -> None:
        vmcore = opened(core([], note(b"CORE", 1, bytes(335)) + prstatus(3)))
        assert ([cpu.pid for cpu in vmcore.registers], vmcore.bad_registers) == ([3], 1)

    def test_other_notes_are_none(self) -> None:
        notes = note(b"CORE", 3, bytes(336)) + note(b"LINUX", 1, bytes(336)) + prstatus(9)
        assert [cpu.pid for cpu in opened(core([], notes)).registers] == [9]

    def test_the_kernels_padding_ends_a_segment(self) -> None:
        assert len(opened(core([], prstatus() + bytes(40))).registers) == 1


class TestVmcoreinfo:
    def test_pairs(self) -> None:
        info = opened(core([], note(b"VMCOREINFO", 0, b"A=1\nno pair\nSYMBOL(x)=ff=1\n\0\0"))).vmcoreinfo
        assert info == {"A": "1", "SYMBOL(x)": "ff=1"}

    def test_none(self) -> None:
        vmcore = opened(core([]))
        assert (vmcore.vmcoreinfo, vmcore.page_tables) == ({}, None)


class TestPhysical:
    def test_across_neighbouring_segments_in_any_order(self) -> None:
        vmcore = opened(core([Load(0x2000, b"world"), Load(0x1FFB, b"hello")]))
        assert vmcore.read_physical(0x1FFD, 6) == b"llowor"
        assert list(vmcore.physical_ranges()) == [(0x1FFB, 0x2000), (0x2000, 0x2005)]

    def test_overlapping_segments(self) -> None:
        """/proc/vmcore has the kernel's text in two: here the second differs, so that it shows which one is read."""
        vmcore = opened(core([Load(0x1000, b"abcdefgh"), Load(0x1002, b"XY"), Load(0x1006, b"ghij")]))
        assert vmcore.read_physical(0x1000, 10) == b"abcdefghij"

    @pytest.mark.parametrize(
        ("address", "length"),
        [(0x0FFF, 1), (0x0FFF, 2), (0x1003, 2), (0x1004, 1), (2**64 - 1, 1), (2**64 - 1, 2), (-1, 1), (0x1000, 1 << 40)],
    )  # fmt: skip
    def test_what_is_not_there(self, address: int, length: int) -> None:
        with pytest.raises(NotInDump):
            opened(core([Load(0x1000, b"abcd")])).read_physical(address, length)

    def test_nothing_of_nothing(self) -> None:
        assert opened(core([])).read_physical(5, 0) == b""

    def test_an_excluded_page_is_not_shown_as_zeros(self) -> None:
        vmcore = opened(core([Load(0x1000, b"abcd", memsz=0x2000)]))
        with pytest.raises(NotInDump, match=r"physical 0x1004 is not in the dump: excluded"):
            vmcore.read_physical(0x1000, 8)

    def test_a_dump_that_was_cut_off(self) -> None:
        whole = core([Load(0x1000, b"abcd"), Load(0x2000, b"efgh")])
        vmcore = opened(whole[:-6])
        assert (vmcore.missing, vmcore.read_physical(0x1000, 2)) == (6, b"ab")
        with pytest.raises(NotInDump):
            vmcore.read_physical(0x1000, 3)
        assert opened(whole).missing == 0


class TestVirtual:
    @pytest.mark.parametrize(
        ("levels", "text", "direct", "vmalloc"),
        [(4, TEXT, DIRECT_MAP, VMALLOC), (5, TEXT, 0xFF11000000000000, 0xFFA0000000000000)],
    )
    @pytest.mark.parametrize("phys_base", [0, 0x2000000])
    def test_large_pages_and_small(self, levels: int, text: int, direct: int, vmalloc: int, phys_base: int) -> None:
        vmcore = opened(small_kernel(levels=levels, phys_base=phys_base))
        assert vmcore.read_virtual(text, 5) == b"text."
        assert vmcore.read_virtual(direct + 0x300000, 8) == b"low page"
        assert vmcore.translate(vmalloc + 4096 + 5) == 0x300005

    def test_pages_that_are_no_neighbours(self) -> None:
        assert opened(small_kernel()).read_virtual(VMALLOC + 4094, 5) == b"++low"

    @pytest.mark.parametrize(
        ("address", "why"),
        [
            pytest.param(VMALLOC + 8192, r"is not mapped: PTE 0x0", id="beyond the mapping"),
            pytest.param(VMALLOC + (1 << 30), r"is not mapped: PMD|is not mapped: PUD", id="no table"),
            pytest.param(0, r"is not mapped: PGD 0x0", id="user memory"),
            pytest.param(0x0000800000000000, "not canonical", id="in the hole"),
            pytest.param(DIRECT_MAP, "physical 0x0 is not in the dump", id="mapped, but excluded"),
        ],
    )
    def test_what_is_not_there(self, address: int, why: str) -> None:
        with pytest.raises(NotInDump, match=why):
            opened(small_kernel()).read_virtual(address, 4)

    def test_a_table_that_is_not_in_the_dump(self) -> None:
        with pytest.raises(NotInDump, match="its PGD at 0x1000ff8 is not in the dump"):
            opened(core([], _tables(0xFFFFFFFF81000000))).read_virtual(TEXT, 4)

    def test_tables_that_point_at_themselves(self) -> None:
        page = struct.pack("<512Q", *[0x1000003] * 512)
        assert opened(core([Load(0x1000000, page)], _tables(TEXT))).read_virtual(TEXT + 8, 8) == page[:8]

    def test_without_vmcoreinfo_by_the_headers(self) -> None:
        vmcore = opened(core([Load(0x1000, b"abcd", vaddr=TEXT), Load(0x2000, b"efgh", vaddr=2**64 - 1)]))
        assert vmcore.read_virtual(TEXT + 1, 2) == b"bc"
        with pytest.raises(NotInDump, match="in no segment"):
            vmcore.read_virtual(TEXT + 3, 2)
        with pytest.raises(NotInDump, match="no page tables"):
            vmcore.translate(TEXT)

    def test_tables_that_are_broken_leave_the_headers(self) -> None:
        data = core([Load(0x1000, b"abcd", vaddr=TEXT)], _tables(TEXT))
        assert opened(data).read_virtual(TEXT, 4) == b"abcd"

    def test_cr3_of_qemus_note(self) -> None:
        tables = Tables(0x5000)
        tables.map(TEXT, 0x9000)
        cpu = bytearray(440)
        struct.pack_into("<QQ", cpu, 416, 0x5000 | 0x18, 0)
        vmcore = opened(core([Load(0x9000, b"seen"), *tables.loads()], note(b"QEMU", 0, bytes(cpu))))
        assert vmcore.read_virtual(TEXT, 4) == b"seen"

    def test_memory_encryption(self) -> None:
        tables, bit = Tables(0x1000000), 1 << 47
        tables.map(TEXT, 0x9000 | bit)
        notes = vmcoreinfo(SYMBOL_swapper_pg_dir="ffffffff81000000", NUMBER_phys_base=0, NUMBER_sme_mask=bit)
        assert opened(core([Load(0x9000, b"seen"), *tables.loads()], notes)).read_virtual(TEXT, 4) == b"seen"


def _tables(symbol: int) -> bytes:
    return vmcoreinfo(SYMBOL_swapper_pg_dir=f"{symbol:x}", NUMBER_phys_base=0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "begins with nothing", id="empty"),
        pytest.param(b"#!/bin/sh\n", "begins with 23 21 2f", id="a script"),
        pytest.param(b"KDUMP   " + bytes(80), "kdump-compressed; have `makedumpfile -E`", id="kdump-compressed"),
        pytest.param(b"makedumpfile" + bytes(80), "flattened stream; `makedumpfile -R", id="flattened"),
        pytest.param(core([])[:50], "cut off in its ELF header: 50 of 64", id="half a header"),
        pytest.param(core([]).replace(b"ELF\x02", b"ELF\x01", 1), "ELF class 1", id="32-bit"),
        pytest.param(core([]).replace(b"ELF\x02\x01", b"ELF\x02\x02", 1), "byte order 2", id="big-endian"),
        pytest.param(core([], e_type=2), "not ET_CORE", id="vmlinux"),
        pytest.param(core([], e_machine=183), "machine 183 is not x86-64", id="arm64"),
        pytest.param(core([], e_phentsize=32), "program headers of 32 bytes", id="headers of another size"),
        pytest.param(core([], e_phnum=0), "0 segments", id="no segments"),
        pytest.param(core([], e_phnum=9), "cut off in its program headers: 56 of 504", id="fewer than it says"),
        pytest.param(core([], e_phoff=1 << 63), "cut off in its program headers: 0 of 56", id="headers nowhere"),
        pytest.param(core([], e_phnum=0xFFFF), f"between 1 and {MAX_SEGMENTS}", id="PN_XNUM with a wild number"),
        pytest.param(core([], e_phnum=0xFFFF, e_shoff=1 << 40), "section header 0", id="PN_XNUM without a section"),
        pytest.param(core([Load(0, b"abcd", memsz=3)]), "a PT_LOAD that cannot be", id="more in file than memory"),
        pytest.param(core([Load(2**64 - 2, b"abcd")]), "a PT_LOAD that cannot be", id="memory beyond 2^64"),
        pytest.param(core([], prstatus())[:-8], "cut off in its notes", id="half the notes"),
        pytest.param(core([], struct.pack("<III", 5, 1 << 31, 1) + bytes(8)), "a note at 0x0 says", id="a huge note"),
        pytest.param(core([], struct.pack("<III", 1 << 31, 5, 1) + bytes(8)), "a note at 0x0 says", id="a huge name"),
    ],
)  # fmt: skip
def test_a_file_that_is_none(data: bytes, why: str) -> None:
    with pytest.raises(NotReadable, match=why):
        opened(data)


def test_notes_that_claim_too_much_are_not_read() -> None:
    data = bytearray(core([]))
    struct.pack_into("<Q", data, 64 + 32, MAX_NOTES + 1)
    with pytest.raises(NotReadable, match="bytes of notes"):
        opened(bytes(data))


def test_more_than_65534_segments() -> None:
    """PN_XNUM: makedumpfile -E makes a segment of each run of pages that was kept."""
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 70001, 0, 0)
    data = core([Load(0x1000 * at, b"%04x" % (at & 0xFFFF)) for at in range(70000)], e_phnum=0xFFFF)
    where = struct.pack("<Q", len(data))
    vmcore = opened(data[:40] + where + data[48:] + section)
    assert vmcore.read_physical(0x1000 * 69999, 4) == b"%04x" % (69999 & 0xFFFF)


class TestFiles:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "vmcore").write_bytes(small_kernel())
        with VmcoreFile(tmp_path / "vmcore") as vmcore:
            assert vmcore.read_virtual(TEXT, 4) == b"text"

    def test_a_file_that_shrinks_under_us(self, tmp_path: Path) -> None:
        path = tmp_path / "vmcore"
        path.write_bytes(core([Load(0x1000, bytes(8192))]))
        with VmcoreFile(path) as vmcore:
            path.write_bytes(b"")
            with pytest.raises(NotInDump, match="cannot be read, at 0xb0 of the file"):
                vmcore.read_physical(0x1000, 16)

    def test_the_message_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"x")
        with pytest.raises(NotReadable, match="x: no ELF vmcore"):
            VmcoreFile(tmp_path / "x")
        with pytest.raises(FileNotFoundError):
            VmcoreFile(tmp_path / "y")


WHOLE = small_kernel()
HEADERS = WHOLE.index(b"KERNELOFFSET")


def read_all(data: bytes) -> None:
    """Everything one can ask of a vmcore; only VmcoreError may come of it."""
    try:
        vmcore = opened(data)
        for start, end in vmcore.physical_ranges():
            assert len(vmcore.read_physical(start, min(end - start, 64))) == min(end - start, 64)
    except VmcoreError:
        return
    for address in (TEXT, VMALLOC + 4090, DIRECT_MAP + 0x300000, 0, 2**64 - 8):
        try:
            assert len(vmcore.read_virtual(address, 8)) == 8
        except VmcoreError:
            continue


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE)))
def test_cut_off_anywhere(length: int) -> None:
    read_all(WHOLE[:length])


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, HEADERS), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)),
        min_size=1,
        max_size=4,
    )
)  # fmt: skip
def test_forged_headers(changes: list[tuple[int, int, int]]) -> None:
    """Numbers of any width anywhere in the headers and notes, and nothing but VmcoreError."""
    data = bytearray(WHOLE)
    for at, width, value in changes:
        data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    read_all(bytes(data))


@given(st.binary(max_size=300))
def test_no_core_at_all(data: bytes) -> None:
    read_all(data)
    read_all(WHOLE[:20] + data)
