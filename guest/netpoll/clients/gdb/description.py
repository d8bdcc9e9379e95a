"""The registers of x86-64 as gdb is told of them: the target description, and their order in a `g` reply.

In: nothing. Out: the XML and the table behind it. The rule it keeps: one table is both, so they cannot disagree.

Names and order within a feature: GDB manual, "i386 Features" (and gdb/features/i386/64bit-core.xml, 64bit-linux.xml,
64bit-segments.xml). A feature must be whole: the x87 registers are there though no kernel's note has them.
"""

from __future__ import annotations

from dataclasses import dataclass

EFLAGS = {
    "CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11,
    "NT": 14, "RF": 16, "VM": 17, "AC": 18, "VIF": 19, "VIP": 20, "ID": 21,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Register:
    """One register: gdb's name (the kernel's, too, where it has it), size in bytes, type."""

    name: str
    size: int
    type: str = "int64"


_GENERAL = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi"]
_FPU = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"]
FEATURES: dict[str, tuple[Register, ...]] = {
    "org.gnu.gdb.i386.core": (
        *(Register(name, 8) for name in _GENERAL),
        Register("rbp", 8, "data_ptr"),
        Register("rsp", 8, "data_ptr"),
        *(Register(f"r{number}", 8) for number in range(8, 16)),
        Register("rip", 8, "code_ptr"),
        Register("eflags", 4, "i386_eflags"),
        *(Register(name, 4, "int32") for name in ("cs", "ss", "ds", "es", "fs", "gs")),
        *(Register(f"st{number}", 10, "i387_ext") for number in range(8)),
        *(Register(name, 4, "int") for name in _FPU),
    ),
    "org.gnu.gdb.i386.linux": (Register("orig_rax", 8, "int"),),
    "org.gnu.gdb.i386.segments": (Register("fs_base", 8, "int"), Register("gs_base", 8, "int")),
}
REGISTERS = tuple(register for feature in FEATURES.values() for register in feature)


def _feature(name: str, registers: tuple[Register, ...]) -> str:
    flags = "".join(f'<field name="{flag}" start="{bit}" end="{bit}"/>' for flag, bit in EFLAGS.items())
    types = f'<flags id="i386_eflags" size="4">{flags}</flags>' if name.endswith(".core") else ""
    regs = "".join(f'<reg name="{each.name}" bitsize="{8 * each.size}" type="{each.type}"/>\n' for each in registers)
    return f'<feature name="{name}">{types}\n{regs}</feature>\n'


TARGET_XML = (
    '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n'
    "<architecture>i386:x86-64</architecture>\n<osabi>GNU/Linux</osabi>\n"
    + "".join(_feature(name, registers) for name, registers in FEATURES.items())
    + "</target>\n"
).encode()
