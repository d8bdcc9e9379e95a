"""Stock gdb on a real kernel that has died, through our stub: registers, CPUs, memory, and backtraces with names.

The symbols are made of the image itself (harness.debugger): Debian's own are a package of 850 MB. What gdb is held against is
the console's call trace, and QEMU's MMU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guest.tests.own_namespace import Namespace, own_namespace
from guest.tests.test_tool_gdbstub import ATTACH, gdb, stub
from harness.tests.crashed_guest import Crashed, crashed

pytestmark = [pytest.mark.guest, pytest.mark.netns]

FRAME = re.compile(r"^#\d+ +(?:0x[0-9a-f]+ in )?([A-Za-z_][\w.]*|<signal handler called>)", re.MULTILINE)


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashed]:
    with crashed(tmp_path_factory.mktemp("dead")) as kernel:
        yield kernel


@contextmanager
def served(dead: Crashed) -> Iterator[Namespace]:
    with own_namespace(neighbour=False) as ns, stub(ns, "--vmcore", str(dead.vmcore)):
        yield ns


def traces(said: str) -> dict[int, list[str]]:
    """Names of frames by thread, of `thread apply all bt`."""
    parts = re.split(r"^Thread (\d+) \(.*\):$", said, flags=re.MULTILINE)
    return {int(number): FRAME.findall(text) for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_both_cpus_with_backtraces_that_the_console_confirms(dead: Crashed, gdb_argv: tuple[str, ...]) -> None:
    with served(dead) as ns:
        said = gdb(ns, gdb_argv, f"file {dead.symbols}", ATTACH, "info threads", "thread apply all bt")
    assert re.search(r"Thread 1 \(CPU 0, pid \d+\)", said), said
    assert re.search(r"Thread 2 \(CPU 1, pid \d+\)", said), said
    frames = traces(said)
    assert sorted(frames) == [1, 2]
    [panicked] = [at for at, names in frames.items() if "panic" in names]
    panic = frames[panicked][frames[panicked].index("panic") :]
    console = [re.sub(r"\+0x.*", "", line) for line in _call_trace(dead.console)]
    kernel = panic[: panic.index("<signal handler called>")] if "<signal handler called>" in panic else panic
    assert kernel[:3] == ["panic", "sysrq_handle_crash", "__handle_sysrq.cold"]
    assert console[console.index("panic") : console.index("do_syscall_64") + 1] == kernel, said
    stopped = frames[3 - panicked]
    assert stopped[0] == "stop_this_cpu"
    assert {"<signal handler called>", "do_idle", "cpu_startup_entry"} <= set(stopped), (
        "the walk goes on through the interrupt"
    )


def _call_trace(console: str) -> list[str]:
    """Functions of the panic's call trace that the kernel's unwinder is sure of (no question mark)."""
    trace = console[console.rindex("Call Trace:") :]
    return re.findall(r"^\[ *[\d.]+\]  (\w[\w.]*\+0x[0-9a-f/x]+)", trace, re.MULTILINE)


def test_memory_is_what_the_mmu_sees(dead: Crashed, gdb_argv: tuple[str, ...], tmp_path: Path) -> None:
    """Kernel text, and a module's, which lies in vmalloc space: pages that are no neighbours."""
    module = min(symbol.address for symbol in dead.kallsyms.values() if symbol.module == "e1000")
    places = [dead.kallsyms["_stext"].address, module]
    size, commands = 0x3000, []
    for at, place in enumerate(places):
        commands.append(f"dump binary memory {tmp_path}/gdb{at} {place:#x} {place + size:#x}")
    with served(dead) as ns:
        said = gdb(ns, gdb_argv, f"file {dead.symbols}", ATTACH, *commands, "x/s &linux_banner")
    assert '"Linux version 6.1.' in said
    for at, place in enumerate(places):
        assert (tmp_path / f"gdb{at}").read_bytes() == dead.memory(place, size, tmp_path), f"{place:#x}"


def test_a_kernel_that_kaslr_has_moved(dead: Crashed, gdb_argv: tuple[str, ...], tmp_path: Path) -> None:
    """The same symbol file: gdb asks where the text is (qOffsets), and the stub knows by VMCOREINFO."""
    with crashed(tmp_path, kaslr=True) as moved, served(moved) as ns:
        said = gdb(ns, gdb_argv, f"file {dead.symbols}", ATTACH, "thread apply all bt", "monitor KERNELOFFSET")
        offset = moved.kallsyms["_stext"].address - dead.kallsyms["_stext"].address
    assert offset != 0, "this kernel was not moved: there is nothing to test"
    assert f"\n{offset:x}\n" in said
    frames = traces(said)
    assert any("sysrq_handle_crash" in names for names in frames.values()), said
    assert any(names[0] == "stop_this_cpu" for names in frames.values()), said
