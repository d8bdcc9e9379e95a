"""A real kernel that has crashed, as a vmcore: two CPUs, sysrq-c, QEMU's dump-guest-memory; and QEMU's own view of its memory.

In: images. Out: `Crashed`. The rule it keeps: what a test compares with comes from QEMU's MMU (memsave), not from the file
that is under test.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import images
from guest.tests.console import Console
from harness.debugger.symbols import Symbol, parse_kallsyms, symbol_file

SETUP = """
export PATH=/usr/sbin:/usr/bin PS1=''
busybox stty -echo
busybox mount -t proc proc /proc; busybox mount -t sysfs sysfs /sys; busybox mount -t devtmpfs devtmpfs /dev
modprobe -a qemu_fw_cfg e1000; echo modules 'are' in
busybox grep -e ' [tTwW] ' -e linux_banner /proc/kallsyms; echo these 'are' all
"""


@dataclass
class Crashed:
    """`symbols` is a symbol file for gdb; addresses by name in `kallsyms` (e1000's among them)."""

    vmcore: Path
    symbols: Path
    kallsyms: dict[str, Symbol]
    console: str
    _qmp: Qmp

    def memory(self, address: int, size: int, folder: Path) -> bytes:
        """Virtual memory as the MMU of the first CPU sees it."""
        path = folder / "memsave"
        self._qmp("memsave", val=address, size=size, filename=str(path))
        return path.read_bytes()


class Qmp:
    """Commands, one after another; events between the answers are of no interest here."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        assert "QMP" in self._lines.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self._lines.readline())
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextmanager
def crashed(folder: Path, *, kaslr: bool = False) -> Iterator[Crashed]:
    """Boot, crash, dump; QEMU stays until the end. `kaslr`: boot the bzImage, which moves itself (there is no symbol file then)."""
    builder = images.Builder(progress=images.PlainText())
    qemu, kernel = images.ensure_qemu(builder), images.ensure_kernel("debian-6.1", builder)
    root = images.ensure_guest(kernel, builder)
    argv = [
        *qemu.argv,
        "-machine",
        "pc,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "256",
        "-nodefaults",
        "-nographic",
    ]
    argv += ["-serial", "stdio", "-qmp", f"unix:{folder}/qmp,server=on,wait=off", "-device", "vmcoreinfo"]
    argv += ["-kernel", str(kernel.bzimage if kaslr else kernel.vmlinux), "-initrd", str(root.initrd)]
    argv += ["-append", "console=ttyS0 panic=0 rdinit=/bin/sh", "-action", "panic=none"]
    with ExitStack() as stack:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        stack.callback(process.communicate)
        stack.callback(process.kill)
        console = Console(process)
        listing = _crash(console)
        qmp = Qmp(folder / "qmp")
        stack.callback(qmp.close)
        qmp("dump-guest-memory", paging=False, protocol=f"file:{folder}/vmcore")
        if not kaslr:
            made = symbol_file(kernel.vmlinux.read_bytes(), listing)
            (folder / "vmlinux.symbols").write_bytes(made)
        kallsyms = {symbol.name: symbol for symbol in parse_kallsyms(listing)}
        yield Crashed(folder / "vmcore", folder / "vmlinux.symbols", kallsyms, console.seen, qmp)


def _crash(console: Console) -> list[str]:
    """The lines of kallsyms; the kernel is dead afterwards."""
    console.wait_for("# ", 300)
    console.type(SETUP)
    console.wait_for("modules are in", 300)
    listing = console.wait_for("these are all", 300)
    console.type("echo c > /proc/sysrq-trigger")
    console.wait_for("end Kernel panic")
    console.wait_for("]---")
    return listing.splitlines()
