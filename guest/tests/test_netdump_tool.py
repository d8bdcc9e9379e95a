"""`netdump` and `netdump-server` on a veth pair: both protocols, under loss, with ends that die, disks that fill and strangers that shout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from guest.netpoll.clients.debugnet.wire import Message, Type, emit
from guest.netpoll.clients.vmcore.core import VmcoreFile
from guest.tests.core_files import DIRECT_MAP, Load, core, note, prstatus
from guest.tests.own_namespace import KERNEL_IP, KERNEL_MAC, OUR_IP, Namespace, own_namespace
from guest.tests.test_tool import TOOL

pytestmark = pytest.mark.netns

CLIENT, SERVER = f"@{OUR_IP}/ours,@{KERNEL_IP}/", f"@{KERNEL_IP}/theirs,@0.0.0.0/"
PATIENCE = 60.0  # seconds for anything that a test waits for: the machine may be busy

SHOUT = f"""
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
for number, line in enumerate(sys.stdin):
    sock.sendto(bytes.fromhex(line), ("{OUR_IP}", 20023))
    if not number % 20:
        time.sleep(0.02)
"""


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with own_namespace() as namespace:
        yield namespace


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.01)


@contextmanager
def running(ns: Namespace, *argv: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A command that has said on standard error that it is ready; its standard output goes to `log`."""
    with ExitStack() as stack:
        out = stack.enter_context(log.open("ab")) if log is not None else subprocess.DEVNULL
        process = stack.enter_context(ns.popen(argv, stdout=out, stderr=subprocess.PIPE))
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert b"dumps go to" in line or b"dumping" in line, line
            yield process
        finally:
            process.kill()


def server(ns: Namespace, folder: Path, *options: str, at: str = SERVER, log: Path | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN201  # as running()
    return running(ns, *TOOL, "netdump-server", at, "--dir", str(folder), *options, log=log)


def dump(ns: Namespace, memory: Path, *options: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
    argv = [*TOOL, "netdump", CLIENT, "--vmcore", str(memory), "--progress", "0", "--timeout", str(timeout), *options]
    return ns.run(argv, timeout=timeout + 30)


def received(folder: Path, name: str = "vmcore") -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob(f"*/{name}"))]


@pytest.fixture
def crash(tmp_path: Path) -> Path:
    folder = tmp_path / "crash"
    folder.mkdir()
    return folder


def memory(tmp_path: Path, size: int, name: str = "memory") -> Path:
    path = tmp_path / name
    path.write_bytes(os.urandom(size // 2) + bytes(100_000) + os.urandom(size // 2) + bytes(5000))
    return path


def machine(tmp_path: Path, size: int, name: str = "machine") -> Path:
    """A vmcore."""
    size -= size % 8192
    path = tmp_path / name
    loads = [
        Load(0x1000, os.urandom(size // 2), DIRECT_MAP + 0x1000),
        Load(32 << 20, os.urandom(size // 2), DIRECT_MAP + (32 << 20)),
    ]
    path.write_bytes(core(loads, prstatus(7) + note(b"VMCOREINFO", 0, b"A=1\n")))
    return path


def same(got: Path, want: Path) -> None:
    with VmcoreFile(got) as ours, VmcoreFile(want) as theirs:
        for first, last in theirs.physical_ranges():
            assert ours.read_physical(first, last - first) == theirs.read_physical(first, last - first)
        assert ours.vmcoreinfo == theirs.vmcoreinfo


FAULTS = [
    pytest.param("drop=0", id="fair"),
    pytest.param("drop=0.01,seed=1", id="1 % lost"),
    pytest.param("drop=0.1,seed=2", id="10 % lost"),
    pytest.param("drop=0.02,duplicate=0.05,reorder=0.1,corrupt=0.02,delay=0.02,seed=3", id="all of it"),
]


@pytest.mark.parametrize("faults", FAULTS)
def test_debugnet(ns: Namespace, tmp_path: Path, crash: Path, faults: str) -> None:
    source = memory(tmp_path, 2_000_000)
    with server(ns, crash, "--count", "1") as collector:
        done = dump(ns, source, "--faults", faults)
        assert done.returncode == 0, done
        assert collector.wait(PATIENCE) == 0
    assert received(crash) == [source.read_bytes()]


@pytest.mark.parametrize("protocol", ["debugnet", "netdump"])
def test_progress_is_told_while_it_goes_on(ns: Namespace, tmp_path: Path, crash: Path, protocol: str) -> None:
    """A console may be all that is left: how far it came stands there before it ends."""
    source = machine(tmp_path, 4 << 20)
    with server(ns, crash, "--protocol", protocol):
        done = dump(ns, source, "--protocol", protocol, "--progress", "0.02", "--faults", "delay=0.01,seed=4")
    *told, last = done.stdout.decode().splitlines()
    far = [
        float(found[1])
        for line in told
        if (found := re.match(r"netdump: (?:sending|answering), ([\d.]+) MiB of", line))
    ]
    assert len(far) >= 3, told
    assert far == sorted(far)
    assert 0 < far[len(far) // 2] < far[-1]
    assert re.match(r"netdump: done, [\d.]+ MiB of [\d.]+ in [\d.]+ s .* MiB/s, \d+ resent, \{", last), last


@pytest.mark.parametrize("faults", FAULTS)
def test_netdump(ns: Namespace, tmp_path: Path, crash: Path, faults: str) -> None:
    source = machine(tmp_path, 1 << 20)
    with server(ns, crash, "--protocol", "netdump"):
        done = dump(ns, source, "--protocol", "netdump", "--faults", faults, "--panic", "Oops")
        assert done.returncode == 0, done
    [vmcore] = crash.glob("*/vmcore")
    same(vmcore, source)
    assert "console: Oops" in (vmcore.parent / "log").read_text()


def test_a_flattened_stream_arrives_as_the_file_that_it_is_of(ns: Namespace, crash: Path) -> None:
    records = [(0, b"early"), (300_000, os.urandom(200_000)), (8192, os.urandom(70_000)), (0, b"header")]
    want = bytearray(500_000)
    flat = b"makedumpfile".ljust(16, b"\0") + (1).to_bytes(8, "big") * 2
    flat = flat.ljust(4096, b"\0")
    for offset, data in records:
        want[offset : offset + len(data)] = data
        flat += offset.to_bytes(8, "big") + len(data).to_bytes(8, "big") + data
    argv = [*TOOL, "netdump", CLIENT, "--vmcore", "-", "--timeout", "60", "--faults", "drop=0.05,seed=1"]
    with server(ns, crash):
        done = ns.run(argv, input=flat + b"\xff" * 16, timeout=90)
    assert done.returncode == 0, done
    assert received(crash) == [bytes(want)]


@pytest.mark.parametrize("protocol", ["debugnet", "netdump"])
def test_ipv6(ns: Namespace, tmp_path: Path, crash: Path, protocol: str) -> None:
    """Nobody is asked for the server's MAC: that is ARP's."""
    source = machine(tmp_path, 1 << 20)
    argv = [*TOOL, "netdump", f"@fd00::2/ours,@fd00::1/{KERNEL_MAC}", "--vmcore", str(source), "--protocol", protocol]
    with server(ns, crash, "--protocol", protocol, at="@fd00::1/theirs,@::/"):
        assert ns.run([*argv, "--timeout", "60"], timeout=90).returncode == 0
    [vmcore] = crash.glob("fd00::2-*/vmcore")
    same(vmcore, source)


def test_a_stream_that_pauses_has_left_as_far_as_it_came(ns: Namespace, crash: Path) -> None:
    first, second = os.urandom(500_000), os.urandom(300_000)
    argv = [*TOOL, "netdump", CLIENT, "--vmcore", "-", "--timeout", "60"]
    with server(ns, crash), ns.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as client:
        assert client.stdin is not None
        try:
            client.stdin.write(first)
            client.stdin.flush()
            wait_for("the first part", arrived(crash, len(first) - 1))
            client.stdin.write(second)
            client.stdin.close()
            assert client.wait(PATIENCE) == 0
        finally:
            client.kill()
    assert received(crash) == [first + second]


def test_a_flattened_stream_that_is_cut_is_no_dump(ns: Namespace, crash: Path) -> None:
    flat = (b"makedumpfile".ljust(16, b"\0") + (1).to_bytes(8, "big") * 2).ljust(4096, b"\0") + bytes(8) + b"\1" * 8
    with server(ns, crash):
        done = ns.run([*TOOL, "netdump", CLIENT, "--vmcore", "-", "--timeout", "60"], input=flat, timeout=90)
    assert done.returncode == 1
    assert b"in a record: its maker was stopped" in done.stdout
    assert received(crash) == []


def arrived(folder: Path, size: int) -> Callable[[], bool]:
    return lambda: any(path.stat().st_size > size for path in folder.glob("*/vmcore-incomplete"))


@pytest.mark.parametrize("protocol", ["debugnet", "netdump"])
def test_a_server_that_is_killed_and_started_again(ns: Namespace, tmp_path: Path, crash: Path, protocol: str) -> None:
    source = memory(tmp_path, 30_000_000) if protocol == "debugnet" else machine(tmp_path, 16 << 20)
    argv = [*TOOL, "netdump", CLIENT, "--vmcore", str(source), "--protocol", protocol, "--faults", "drop=0.01,seed=1"]
    with ExitStack() as stack:
        first = stack.enter_context(server(ns, crash, "--protocol", protocol))
        client = stack.enter_context(running(ns, *argv))
        wait_for("a third of the dump", arrived(crash, 10_000_000))
        first.kill()
        first.wait()
        assert client.poll() is None
        stack.enter_context(server(ns, crash, "--protocol", protocol))
        assert client.wait(PATIENCE) == 0
    [vmcore] = crash.glob("*/vmcore")
    assert "the dump goes on" in (vmcore.parent / "log").read_text()
    if protocol == "debugnet":
        assert vmcore.read_bytes() == source.read_bytes()
    else:
        same(vmcore, source)


def test_a_client_that_is_killed_and_started_again(ns: Namespace, tmp_path: Path, crash: Path) -> None:
    source = memory(tmp_path, 30_000_000)
    with server(ns, crash) as collector:
        with running(ns, *TOOL, "netdump", CLIENT, "--vmcore", str(source)):
            wait_for("a third of the dump", arrived(crash, 10_000_000))
        assert dump(ns, source).returncode == 0
        collector.terminate()
        assert collector.wait(PATIENCE) == 0
    assert received(crash) == [source.read_bytes()]
    assert [len(data) > 10_000_000 for data in received(crash, "vmcore-incomplete")] == [True]
    [log] = [path.parent / "log" for path in crash.glob("*/vmcore-incomplete")]
    assert "the dump ends early, as vmcore-incomplete: the server was stopped" in log.read_text()


@pytest.mark.parametrize("protocol", ["debugnet", "netdump"])
def test_two_clients_at_once(ns: Namespace, tmp_path: Path, crash: Path, protocol: str) -> None:
    make = memory if protocol == "debugnet" else machine
    sources = [make(tmp_path, 2_000_000, f"memory{number}") for number in range(2)]
    words = ["--protocol", protocol]
    with server(ns, crash, *words), ExitStack() as stack:
        clients = [
            stack.enter_context(
                running(
                    ns, *TOOL, "netdump", f"@10.9.0.{10 + number}/ours,@{KERNEL_IP}/", "--vmcore", str(source), *words
                )
            )
            for number, source in enumerate(sources)
        ]
        assert [client.wait(PATIENCE) for client in clients] == [0, 0]
    for number, source in enumerate(sources):
        [vmcore] = crash.glob(f"10.9.0.{10 + number}-*/vmcore")
        if protocol == "debugnet":
            assert vmcore.read_bytes() == source.read_bytes()
        else:
            same(vmcore, source)


def test_a_link_that_is_cut_and_comes_back(ns: Namespace, tmp_path: Path, crash: Path) -> None:
    source = memory(tmp_path, 30_000_000)
    with server(ns, crash), running(ns, *TOOL, "netdump", CLIENT, "--vmcore", str(source)) as client:
        wait_for("a third of the dump", arrived(crash, 10_000_000))
        assert client.poll() is None
        for state in ("down", "up"):
            change = f"from pyroute2 import IPRoute\nwith IPRoute() as ip: ip.link('set', index=ip.link_lookup(ifname='theirs')[0], state='{state}')"
            assert ns.run([sys.executable, "-c", change]).returncode == 0
        assert client.wait(PATIENCE) == 0
    assert received(crash) == [source.read_bytes()]


def test_a_disk_that_is_full(ns: Namespace, tmp_path: Path, crash: Path) -> None:
    """A tmpfs of 2 MiB, in a mount namespace of the server's own."""
    source = memory(tmp_path, 10_000_000)
    log = tmp_path / "said"
    mount = f'mount -t tmpfs -o size=2m tmpfs {crash} && exec "$@"'
    argv = [*TOOL, "netdump-server", SERVER, "--dir", str(crash)]
    with running(ns, "unshare", "--mount", "sh", "-c", mount, "sh", *argv, log=log) as collector:
        done = dump(ns, source)
        inside = Path(f"/proc/{collector.pid}/root") / crash.relative_to("/")
        assert done.returncode == 1
        assert b"the server refuses: cannot write: No space left on device" in done.stdout
        [partial] = inside.glob("*/vmcore-partial")
        assert partial.stat().st_size > 1_000_000
        assert source.read_bytes().startswith(partial.read_bytes()[: 1 << 20])
        assert "as vmcore-partial: cannot write: No space left on device" in (partial.parent / "log").read_text()
        assert received(inside) == received(inside, "vmcore-incomplete") == []
    assert "as vmcore-partial: cannot write: No space left on device" in log.read_text()


def test_a_dump_above_the_limit(ns: Namespace, tmp_path: Path, crash: Path) -> None:
    source = memory(tmp_path, 3_000_000)
    with server(ns, crash, "--limit", "1000000"):
        done = dump(ns, source)
    assert b"the server refuses: the dump is larger than the limit" in done.stdout
    assert received(crash) == []


def test_a_thousand_heralds_a_second_and_forgeries(ns: Namespace, tmp_path: Path, crash: Path) -> None:
    """From the kernel's side of the wire, while a dump goes on from another address."""
    source = memory(tmp_path, 8_000_000)
    log = tmp_path / "said"
    names = [b"../../../etc\0", b"/etc\0", b"\0", b"a\0b\0", b"no end"]
    shouts = [emit(Message(Type.HERALD, n + 1, 0, names[n % len(names)], n & 1 and n)).hex() for n in range(3000)]
    forgeries = ["00", "00" * 24, emit(Message(Type.VMCORE, 2, 0, b"forged")).hex(), "ff" * 1400] * 20
    before = set(os.listdir("/etc"))
    options = f"@{OUR_IP}/ours,@0.0.0.0/"
    with server(ns, crash, "--count", "1", at=options, log=log) as collector, ExitStack() as stack:
        lines = "".join(line + "\n" for line in forgeries + shouts)
        shouter = stack.enter_context(ns.popen([sys.executable, "-c", SHOUT], stdin=subprocess.PIPE))
        assert shouter.stdin is not None
        shouter.stdin.write(lines.encode())
        shouter.stdin.close()
        client = f"@10.9.0.9/theirs,@{OUR_IP}/"
        argv = [*TOOL, "netdump", client, "--vmcore", str(source), "--timeout", "60"]
        assert ns.run(argv, timeout=90).returncode == 0
        shouter.wait()
        assert collector.wait(PATIENCE) == 0
        assert collector.stderr is not None
        summary = collector.stderr.read().decode()
    assert received(crash) == [source.read_bytes()]
    assert len(list(crash.iterdir())) == 1, "a herald alone makes no folder"
    assert set(os.listdir("/etc")) == before
    said = log.read_text().splitlines()
    for what, count in (("shorter than a header", 20), ("of no known type", 20), ("no HERALD of a netdump", 20)):
        assert sum(what in line for line in said) == 1, said
        assert f"'{what}': {count}" in summary


WRONG = [
    pytest.param(["netdump", CLIENT, "--vmcore", "/nonexistent"], 3, b"No such file", id="no file"),
    pytest.param(["netdump", CLIENT, "--vmcore", "/dev/null"], 3, b"is empty", id="empty"),
    pytest.param(["netdump", CLIENT, "--vmcore", "-", "--protocol", "netdump"], 2, b"not a stream", id="stream"),
    pytest.param(["netdump", CLIENT, "--vmcore", "/bin/sh", "--protocol", "netdump"], 2, b"ET_CORE", id="no vmcore"),
    pytest.param(["netdump", f"@{OUR_IP}/ours,@10.9.0.77/", "--vmcore", "/bin/sh"], 3, b"answers no ARP", id="nobody"),
    pytest.param(["netdump", CLIENT, "--faults", "rain=1"], 2, b"rain: not among", id="faults"),
    pytest.param(["netdump", CLIENT, "--magic", "xyz"], 2, b"not a hexadecimal", id="magic"),
    pytest.param(["netdump-server", SERVER, "--dir", "/nonexistent"], 3, b"No such file", id="no folder"),
    pytest.param(["netdump-server", SERVER], 2, b"--dir", id="folder not given"),
]


@pytest.mark.parametrize(("argv", "code", "why"), WRONG)
def test_wrong_use(ns: Namespace, argv: list[str], code: int, why: bytes) -> None:
    done = ns.run([*TOOL, *argv], timeout=PATIENCE)
    assert (done.returncode, why in done.stderr) == (code, True), done.stderr
    assert b"Traceback" not in done.stderr
