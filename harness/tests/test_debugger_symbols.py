"""Symbol files: ORC tables to call frames, kallsyms to symbols, each by tables; gdb on a whole one is in test_debugger_guest.py."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from guest.tests.core_files import TEXT, Load, core, prstatus
from harness.debugger.cfi import PER_FDE, debug_frame
from harness.debugger.errors import SymbolsError
from harness.debugger.orc import Base, Entry, Kind, entries
from harness.debugger.prologue import frame, mend
from harness.debugger.symbols import parse_kallsyms, read_sections, symbol_file

SP_CALL = (8, 0, 5, 2)  # sp_offset, bp_offset, registers, type: what a function begins with


def orc(*rows: tuple[int, int, int, int], start: int = 0x1000, step: int = 16) -> tuple[bytes, bytes]:
    """.orc_unwind_ip at address 0 and .orc_unwind, a row each `step` bytes."""
    ips = b"".join(struct.pack("<i", start + step * at - 4 * at) for at in range(len(rows)))
    return ips, b"".join(struct.pack("<hhBB", *row) for row in rows)


@pytest.mark.parametrize(
    ("row", "new", "entry"),
    [
        pytest.param((8, 0, 5, 0), False, (Kind.CALL, Base.SP, 8, Base.UNDEFINED, 0), id="call, until 6.3"),
        pytest.param((8, 0, 5, 2), True, (Kind.CALL, Base.SP, 8, Base.UNDEFINED, 0), id="call, from 6.4"),
        pytest.param((16, -16, 0x14, 0), False, (Kind.CALL, Base.BP, 16, Base.PREV_SP, -16), id="frame pointer"),
        pytest.param((0, 0, 5, 1), False, (Kind.REGS, Base.SP, 0, Base.UNDEFINED, 0), id="regs, until 6.3"),
        pytest.param((0, 0, 5, 3 | 8), True, (Kind.REGS, Base.SP, 0, Base.UNDEFINED, 0), id="regs and signal, from 6.4"),
        pytest.param((0, 0, 5, 2 | 4), False, (Kind.REGS_PARTIAL, Base.SP, 0, Base.UNDEFINED, 0), id="iret and end, until 6.3"),
        pytest.param((0, 0, 5, 4), True, (Kind.REGS_PARTIAL, Base.SP, 0, Base.UNDEFINED, 0), id="iret, from 6.4"),
        pytest.param((0, 0, 0, 4), False, (Kind.END, Base.UNDEFINED, 0, Base.UNDEFINED, 0), id="nothing known"),
        pytest.param((0, 0, 5, 1), True, (Kind.END, Base.SP, 0, Base.UNDEFINED, 0), id="end of stack, from 6.4"),
    ],
)  # fmt: skip
def test_entries(row: tuple[int, int, int, int], new: bool, entry: tuple[Kind, Base, int, Base, int]) -> None:
    found = next(entries(0, *orc(row, SP_CALL, SP_CALL, SP_CALL), new_layout=new))
    assert found == Entry(0x1000, 0x1010, *entry)


@pytest.mark.parametrize(
    ("registers", "sp", "bp"),
    [(0x83, Base.SP, Base.PREV_SP), (0x84, Base.BP, Base.PREV_SP), (0x46, Base.R10, Base.BP), (0x89, Base.SP_INDIRECT, Base.PREV_SP),
     (0x4A, Base.BP_INDIRECT, Base.BP), (0x07, Base.R13, Base.UNDEFINED), (0x02, Base.DX, Base.UNDEFINED)],
)  # fmt: skip
def test_the_numbers_of_linux_7(registers: int, sp: Base, bp: Base) -> None:
    """Each is in the tables of Debian's 7.3, in an entry whose code shows what it means."""
    call = (8, 0, 3, 2)
    found = next(entries(0, *orc((16, -16, registers, 2), call, call, call), new_layout=True))
    assert (found.sp, found.bp) == (sp, bp)


@pytest.mark.parametrize(
    ("ips", "table", "said"),
    [
        (b"", b"", "do not belong together"),
        (bytes(8), bytes(6), "do not belong together"),
        (bytes(7), bytes(6), "do not belong together"),
        (orc(SP_CALL, SP_CALL)[0], struct.pack("<hhBB", 8, 0, 15, 2) * 2, "commonest register is number 15"),
        (*orc((8, 0, 15, 2), SP_CALL, SP_CALL), "registers 0xf, type 2 are not known"),
        (orc(SP_CALL, SP_CALL)[0], struct.pack("<hhBB", 8, 0, 5, 7) * 2, "registers 0x5, type 7 are not known"),
    ],
)
def test_tables_that_are_none(ips: bytes, table: bytes, said: str) -> None:
    with pytest.raises(SymbolsError, match=said):
        list(entries(0, ips, table, new_layout=True))


STACK, LEAF, CALLER, OUTER = 0xFFFFC90000000000, TEXT + 0x40, TEXT + 0x105, TEXT + 0x205
NAMES = {TEXT: "_stext", LEAF: "leaf", TEXT + 0x100: "caller", TEXT + 0x200: "outer", TEXT + 0x300: "_etext"}
KALLSYMS = [f"{address:x} T {name}" for address, name in NAMES.items()]


def vmlinux(leaf: tuple[int, int, int, int], *, text: int = TEXT, new: bool = False, **sections: bytes) -> bytes:
    """A kernel of three functions: `leaf` leaves its frame by this ORC entry, `caller` has 16 bytes, `outer` is the last."""
    call = 2 if new else 0
    rows = {TEXT: (8, 0, 5, call), LEAF: leaf, TEXT + 0x50: (8, 0, 5, call), TEXT + 0x100: (16, 0, 5, call)}
    rows |= {TEXT + 0x200: (0, 0, 0, 0 if new else 4), TEXT + 0x300: (0, 0, 0, 0)}
    at = TEXT + 0x10000
    ips = b"".join(struct.pack("<i", start - at - 4 * place) for place, start in enumerate(rows))
    content = {
        ".text": bytes(0x400),
        ".orc_unwind_ip": ips,
        ".orc_unwind": b"".join(struct.pack("<hhBB", *r) for r in rows.values()),
    }
    content |= {".orc_header": bytes(20)} if new else {}
    return _elf(content | {f".{name}": data for name, data in sections.items()}, {".text": text, ".orc_unwind_ip": at})


def _elf(content: dict[str, bytes], addresses: dict[str, int]) -> bytes:
    names, body, headers = b"\0.shstrtab\0", b"", [bytes(64)]
    for name, data in content.items():
        flags = 6 if name in addresses else 0
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ", len(names), 1, flags, addresses.get(name, 0), 64 + len(body), len(data), 0, 0, 8, 0
            )
        )
        names, body = names + name.encode() + b"\0", body + data
    headers.append(struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64 + len(body), len(names), 0, 0, 1, 0))
    fields = (2, 62, 1, 0, 0, 64 + len(body) + len(names), 0, 64, 56, 0, 64, len(headers), len(headers) - 1)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *fields) + body + names + b"".join(headers)


PT_REGS = {128: CALLER, 152: STACK + 0x400}  # rip, rsp
IRET = {0: CALLER, 24: STACK + 0x400}


@pytest.mark.parametrize(
    ("row", "stack", "sp"),
    [
        pytest.param((8, 0, 5, 0), {0x200: CALLER}, 0x208, id="call: above the stack pointer"),
        pytest.param((-8, 0, 5, 0), {0x1F0: CALLER}, 0x1F8, id="call: below it"),
        pytest.param((16, -16, 0x14, 0), {0x308: CALLER}, 0x310, id="call: above the base pointer"),
        pytest.param((24, 0, 8, 0), {0x318: STACK + 0x408, 0x400: CALLER}, 0x408, id="call: what stands above the base pointer"),
        pytest.param((8, 0, 9, 0), {0x200: STACK + 0x400, 0x400: CALLER}, 0x408, id="call: where the stack pointer points"),
        pytest.param((0, 0, 6, 0), {0x4F8: CALLER}, 0x500, id="call: r10"),
        pytest.param((0, 0, 5, 1), {0x200 + at: value for at, value in PT_REGS.items()}, 0x400, id="pt_regs"),
        pytest.param((8, 0, 4, 1), {0x308 + at: value for at, value in PT_REGS.items()}, 0x400, id="pt_regs above the base pointer"),
        pytest.param((16, 0, 5, 2), {0x210 + at: value for at, value in IRET.items()}, 0x400, id="what an interrupt pushed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("new", [False, True], ids=["until 6.3", "from 6.4"])
def test_gdb_walks_the_stack(
    gdb_argv: tuple[str, ...], tmp_path: Path, row: tuple[int, int, int, int], stack: dict[int, int], sp: int, new: bool
) -> None:
    kind = row[3] + 2 if new else row[3]
    (tmp_path / "symbols").write_bytes(symbol_file(vmlinux((*row[:3], kind), new=new), KALLSYMS))
    memory = bytearray(0x1000)
    for at, value in (stack | {sp + 8: OUTER}).items():
        struct.pack_into("<Q", memory, at, value)
    registers = prstatus(1, rip=LEAF + 4, rsp=STACK + 0x200, rbp=STACK + 0x300, r10=STACK + 0x500)
    loads = [Load(0, bytes(0x400), vaddr=TEXT), Load(0x1000, bytes(memory), vaddr=STACK)]
    (tmp_path / "core").write_bytes(core(loads, registers))
    said = _gdb(gdb_argv, tmp_path, "bt", "up", "p/x $sp")
    assert re.findall(r"^#([12]) .*in (\w+) \(\)$", said, re.MULTILINE)[:2] == [("1", "caller"), ("2", "outer")], said
    assert "#3 " not in said, "outer is the end"
    assert f"$1 = {STACK + sp:#x}" in said


def _gdb(gdb_argv: tuple[str, ...], folder: Path, *commands: str) -> str:
    argv = [*gdb_argv, "-batch", "-ex", f"file {folder}/symbols", "-ex", f"core-file {folder}/core"]
    words = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "found"),
    [
        pytest.param("e83b2bf0ff 53 ba01000000 4881ecb0000000 65488b04", (18, 0xC0), id="Linux 6.1's __crash_kexec"),
        pytest.param("f30f1efa 0f1f440000 4154 55 53 4883ec18", (17, 0x38), id="endbr64, no tracer, three pushes"),
        pytest.param("4883ec08", (4, 0x10), id="nothing else"),
        pytest.param("53 31c0 4889fb 4883ec10", (10, 0x20), id="moves between"),
        pytest.param("53 48c7c000000000 4883ec10", None, id="something else between"),
        pytest.param("53 5b c3", None, id="no frame"),
        pytest.param("4883ecf8", None, id="a frame below zero"),
        pytest.param("", None, id="nothing"),
        pytest.param("4881ecb000", None, id="cut off"),
    ],
)
def test_prologues(code: str, found: tuple[int, int] | None) -> None:
    assert frame(bytes.fromhex(code)) == found


def test_a_function_that_the_kernel_does_not_unwind() -> None:
    """Up to its body nothing is known, as before; from there on what the prologue says."""
    unknown = Entry(0x1000, 0x1100, Kind.END, Base.UNDEFINED, 0, Base.UNDEFINED, 0)
    known = Entry(0x1100, 0x1200, Kind.CALL, Base.SP, 8, Base.UNDEFINED, 0)
    code = bytes.fromhex("53 4883ec10")
    assert list(mend([unknown, known], {0x1010: code, 0x1110: code, 0x3000: code})) == [
        Entry(0x1000, 0x1015, Kind.END, Base.UNDEFINED, 0, Base.UNDEFINED, 0),
        Entry(0x1015, 0x1100, Kind.CALL, Base.SP, 0x20, Base.UNDEFINED, 0),
        known,
    ]


def test_the_image_stays_as_it_is() -> None:
    image = vmlinux((8, 0, 5, 0))
    made = symbol_file(image, KALLSYMS)
    changed = [at for at in range(len(image)) if image[at] != made[at]]
    assert set(changed) <= {*range(40, 48), *range(60, 64)}, "only where the section headers are, and how many"
    names = [section.name for section in read_sections(made)]
    assert names == [
        *[section.name for section in read_sections(image)],
        ".debug_frame",
        ".symtab",
        ".strtab",
        ".shstrtab",
    ]


def test_modules_get_a_section_of_their_own() -> None:
    lines = [*KALLSYMS, "ffffffffc0000000 t probe\t[e1000]", "ffffffffc0000100 T remove [e1000]"]
    [modules] = [
        each for each in read_sections(symbol_file(vmlinux((8, 0, 5, 0)), lines)) if each.name == ".text.modules"
    ]
    assert (modules.address, modules.size) == (0xFFFFFFFFC0000000, 0x101)


def test_many_entries_are_divided() -> None:
    """So that gdb need not execute a whole kernel's to reach the last."""
    rows = [Entry(at, at + 1, Kind.CALL, Base.SP, 8, Base.UNDEFINED, 0) for at in range(PER_FDE * 3)]
    starts = [struct.pack("<Q", at) for at in range(0, PER_FDE * 3, PER_FDE)]
    section = debug_frame(rows)
    assert all(section.count(start + struct.pack("<Q", PER_FDE)) == 1 for start in starts)


def test_kallsyms() -> None:
    lines = ["ffffffff81000010 t b", "ffffffff81000000 T a", "nonsense", "xyz T c", "ffffffffc0000000 t d\t[mod]", ""]
    assert [(s.address, s.kind, s.name, s.module) for s in parse_kallsyms(lines)] == [
        (0xFFFFFFFF81000000, "T", "a", ""),
        (0xFFFFFFFF81000010, "t", "b", ""),
        (0xFFFFFFFFC0000000, "t", "d", "mod"),
    ]
    assert parse_kallsyms(["0000000000000000 T hidden"]) == []


@pytest.mark.parametrize(
    ("image", "kallsyms", "said"),
    [
        pytest.param(b"MZ", KALLSYMS, "vmlinux is meant, not a bzImage", id="a bzImage"),
        pytest.param(vmlinux((8, 0, 5, 0))[:200], KALLSYMS, "no section headers where it says", id="cut off"),
        pytest.param(vmlinux((8, 0, 5, 0)), [], "kallsyms names no _stext", id="no symbols"),
        pytest.param(vmlinux((8, 0, 5, 0), text=TEXT + 0x1000), KALLSYMS, "another kernel, or one moved", id="KASLR"),
        pytest.param(_elf({".text": b"x"}, {".text": TEXT}), KALLSYMS, "built without CONFIG_UNWINDER_ORC", id="no ORC"),
        pytest.param(vmlinux((8, 0, 5, 0), orc_unwind=b"12345"), KALLSYMS, "do not belong together", id="half the ORC"),
    ],
)  # fmt: skip
def test_no_symbol_file_can_be_made(tmp_path: Path, image: bytes, kallsyms: list[str], said: str) -> None:
    (tmp_path / "vmlinux").write_bytes(image)
    (tmp_path / "kallsyms").write_text("\n".join(kallsyms))
    words = [str(tmp_path / name) for name in ("vmlinux", "kallsyms", "out")]
    done = subprocess.run(
        [sys.executable, "-m", "harness.debugger", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    assert not (tmp_path / "out").exists()
