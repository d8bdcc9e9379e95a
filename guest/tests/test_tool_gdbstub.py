"""Stock gdb on a dead kernel: `target remote udp:` over a veth to the tool's `gdbstub`, on a vmcore made by hand.

test_gdb_guest.py has a real one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guest.tests.core_files import TEXT, core, prstatus, small_kernel
from guest.tests.own_namespace import OUR_IP, Namespace, own_namespace

pytestmark = pytest.mark.netns

TOOL = [sys.executable, "-m", "guest.netpoll"]
OPTIONS = f"@{OUR_IP}/ours,@0.0.0.0/"
ATTACH = f"target remote udp:{OUR_IP}:6443"
VMALLOC = 0xFFFFC90000000000


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    """The kernel's end has to ask for our MAC: --trap answers."""
    with own_namespace(neighbour=False) as namespace:
        yield namespace


@pytest.fixture
def vmcore(tmp_path: Path) -> Path:
    path = tmp_path / "vmcore"
    path.write_bytes(small_kernel())
    return path


@contextmanager
def stub(ns: Namespace, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The tool, ready."""
    with ns.popen([*TOOL, "gdbstub", OPTIONS, "--trap", *arguments], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        first = b""
        try:
            while b"serving" not in first:
                first = process.stderr.readline()
                assert first, "the stub ended"
            yield process
        finally:
            process.kill()


def gdb(ns: Namespace, gdb_argv: tuple[str, ...], *commands: str) -> str:
    """What gdb says, errors among it."""
    words = [word for command in commands for word in ("-ex", command)]
    done = ns.run([*gdb_argv, "-batch", *words], timeout=90)
    return (done.stdout + done.stderr).decode()


def ended(process: subprocess.Popen[bytes]) -> str:
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    assert process.wait(10) == 0, said
    return said


def test_threads_registers_and_memory(ns: Namespace, gdb_argv: tuple[str, ...], vmcore: Path) -> None:
    with stub(ns, "--vmcore", str(vmcore)) as process:
        said = gdb(
            ns, gdb_argv, ATTACH, "info threads", f"x/s {TEXT:#x}", f"x/8cb {VMALLOC + 4092:#x}", "p/x $rip", "p $eflags",
            "p/x $gs_base", "thread 2", "p/x $rip", "p $st0", "info registers eflags", "monitor OSRELEASE",
        )  # fmt: skip
        ours = ended(process)
    assert "Thread 1 (CPU 0, pid 1)" in said
    assert "Thread 2 (CPU 1, pid 0)" in said
    assert f"{TEXT:#x}:\t\"text\", '.' <repeats 196 times>" in said
    assert "43 '+'\t43 '+'\t43 '+'\t43 '+'\t108 'l'\t111 'o'\t119 'w'" in said
    assert f"$1 = {TEXT:#x}" in said
    assert "$3 = 0x16" in said, "the 22nd of the note's"
    assert f"$4 = {TEXT + 16:#x}" in said
    assert "$5 = <unavailable>" in said
    assert "6.1.0-test" in said
    assert "'attached': 1, 'detached': 1" in ours


def test_what_cannot_be_done_is_refused_and_the_session_goes_on(
    ns: Namespace, gdb_argv: tuple[str, ...], vmcore: Path
) -> None:
    with stub(ns, "--vmcore", str(vmcore)):
        said = gdb(ns, gdb_argv, ATTACH, "x/2bx 0", f"set *(char*){TEXT:#x} = 1", "set $rax = 3", "stepi", "p/x $rip")
    assert "Cannot access memory at address 0x0" in said
    assert f"Cannot access memory at address {TEXT:#x}" in said
    assert 'Could not write register "rax"; remote failure reply' in said
    assert "Remote failure reply: E01" in said
    assert f"$1 = {TEXT:#x}" in said


def test_one_after_another(ns: Namespace, gdb_argv: tuple[str, ...], vmcore: Path) -> None:
    with stub(ns, "--vmcore", str(vmcore)) as process:
        for _ in range(2):
            assert f"$1 = {TEXT:#x}" in gdb(ns, gdb_argv, ATTACH, "p/x $rip", "detach")
        assert "'attached': 2, 'detached': 2" in ended(process)


def test_a_second_debugger_is_refused(ns: Namespace, gdb_argv: tuple[str, ...], vmcore: Path) -> None:
    """The first waits in a shell of its own until the second has given up."""
    with stub(ns, "--vmcore", str(vmcore)) as process:
        words = [*gdb_argv, "-batch", "-ex", ATTACH, "-ex", "shell echo attached; read line"]
        first = ns.popen([*words, "-ex", "p/x $rip"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert first.stdout is not None
        while b"attached" not in (line := first.stdout.readline()):
            assert line, "the first gdb ended"
        second = gdb(ns, gdb_argv, "set remotetimeout 1", ATTACH, "p/x $rip")
        out, _ = first.communicate(b"\n", timeout=30)
        ours = ended(process)
    assert "Remote replied unexpectedly to 'vMustReplyEmpty': timeout" in second
    assert f"{TEXT:#x}" not in second
    assert f"$1 = {TEXT:#x}" in out.decode()
    assert "refused: 10.9.0.1:" in ours
    assert "'attached': 1, 'refused': " in ours


def test_once(ns: Namespace, gdb_argv: tuple[str, ...], vmcore: Path) -> None:
    with stub(ns, "--vmcore", str(vmcore), "--once", "--timeout", "60") as process:
        gdb(ns, gdb_argv, ATTACH, "detach")
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (core([]), "no registers: without an NT_PRSTATUS note"),
        (core([], prstatus()), "VMCOREINFO does not say where the page tables are"),
        (small_kernel()[:-100], "cut off: 100 bytes of memory"),
    ],
)
def test_what_a_vmcore_lacks_is_said_first(ns: Namespace, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "vmcore").write_bytes(data)
    done = ns.run([*TOOL, "gdbstub", OPTIONS, "--vmcore", str(tmp_path / "vmcore"), "--timeout", "0"])
    assert (done.returncode, said in done.stderr.decode()) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("script", 2, "script: no ELF vmcore: it begins with 23 21"),
        ("missing", 3, "No such file or directory"),
    ],
)
def test_no_vmcore(ns: Namespace, tmp_path: Path, name: str, code: int, said: str) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    done = ns.run([*TOOL, "gdbstub", OPTIONS, "--vmcore", str(tmp_path / name)])
    assert (done.returncode, said in done.stderr.decode()) == (code, True), done.stderr
    assert b"Traceback" not in done.stderr
