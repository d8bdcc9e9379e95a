"""One session of gdb's with a crashed guest: attach, ask what there is to ask, detach.

In: gdb's words, a symbol file, the stub's address. Out: `Session`: threads with their backtraces, memory against the image, and all that gdb said. Rule:
what gdb prints is parsed here and nowhere else; what it could not do is missing, never guessed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyroute2 import IPRoute

from harness.debugger.symbols import Section, read_sections, symbol_file
from harness.testbed.process import spawn

SECTIONS = (
    ".notes",
    ".pci_fixup",
)  # never changed while a kernel runs, and not long: the id of its build, a table of quirks
DEPTH = 40  # frames of a backtrace
LONGEST = 200_000  # characters of gdb's words that are kept
HEADER = re.compile(r"^Thread (\d+) \((?:Thread \d+ )?\(?(.*?)\)*\):$")
FRAME = re.compile(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\?\?|[A-Za-z_][\w.]*|<signal handler called>)")
RIP = re.compile(r"^rip +(0x[0-9a-f]+) ")


@dataclass
class Thread:
    """A CPU as gdb saw it. `frames`: names of functions, innermost first."""

    id: int
    name: str
    rip: str = ""
    frames: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """`rc` is None if gdb did not end in time. `memory`: each of SECTIONS that gdb could read; whether it is as in the image."""

    rc: int | None
    seconds: float
    said: str
    threads: tuple[Thread, ...]
    memory: dict[str, bool]


def prepare(vmlinux: Path, kallsyms: Path, symbols: Path) -> list[Section]:
    """Write the symbol file; what of the image can be compared with memory. Raises SymbolsError."""
    image = vmlinux.read_bytes()
    symbols.write_bytes(symbol_file(image, kallsyms.read_text().splitlines()))
    return areas(image)


def areas(vmlinux: bytes) -> list[Section]:
    """SECTIONS of an image, as far as it has them, with their content. Raises SymbolsError."""
    found = [each for each in read_sections(vmlinux) if each.name in SECTIONS]
    return [replace(each, data=vmlinux[each.offset : each.offset + each.size]) for each in found]


def attach(gdb: Sequence[str], symbols: Path, target: str, compared: Sequence[Section], within: float) -> Session:
    """Blocks: for a thread of its own. gdb is killed after `within` seconds, and dies with this thread."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryDirectory(prefix="gdb-") as name:
        folder = Path(name)
        words = [word for command in commands(symbols, target, compared, folder) for word in ("-ex", command)]
        process = spawn([*gdb, "-batch", *words], stdout=out, stderr=subprocess.STDOUT)
        try:
            rc: int | None = process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            rc = None
        out.seek(0)
        said = out.read(LONGEST).decode(errors="replace")
        read = {each.name: folder / each.name for each in compared}
        memory = {each.name: read[each.name].read_bytes() == each.data for each in compared if read[each.name].exists()}
    return Session(rc, round(time.monotonic() - began, 3), said, parse(said), memory)


def commands(symbols: Path, target: str, compared: Sequence[Section], folder: Path) -> list[str]:
    """What gdb is asked; -batch detaches at the end. (compare-sections would look at physical addresses.)"""
    return [
        "set width 0",
        f"file {symbols}",
        f"target remote {target}",
        "thread apply all info registers rip",
        f"thread apply all backtrace {DEPTH}",
        *(
            f"dump binary memory {folder / each.name} {each.address:#x} {each.address + each.size:#x}"
            for each in compared
        ),
    ]


def parse(said: str) -> tuple[Thread, ...]:
    """Threads by their numbers."""
    threads: dict[int, Thread] = {}
    current = None
    for line in said.splitlines():
        if (header := HEADER.match(line)) is not None:
            number = int(header[1])
            current = threads.setdefault(number, Thread(number, header[2]))
        elif current is not None and (rip := RIP.match(line)) is not None:
            current.rip = rip[1]
        elif current is not None and (frame := FRAME.match(line)) is not None:
            current.frames = (*current.frames, frame[1])
    return tuple(threads[number] for number in sorted(threads))


def give_address(tap: str, address: str) -> None:
    """Let the kernel of this namespace speak over a tap. Raises OSError and what pyroute2 raises."""
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=tap)
        netlink.addr("add", index=index, address=address, prefixlen=24)
