"""debugnet against FreeBSD's netdumpd: an exchange that was recorded with it, and, where it has been built, itself.

data/netdumpd.pcapng: our client, which dumped 8206 bytes to markjdb/netdumpd, built from its source with BSD's system calls replaced. To
run against it, and its own netdump-client, once more: NETDUMPD=PROGRAM NETDUMP_CLIENT=PROGRAM (neither is part of this project).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.netpoll.clients.debugnet import kdh
from guest.netpoll.clients.debugnet.client import Client, State
from guest.netpoll.clients.debugnet.server import Server
from guest.netpoll.clients.dump.sources import FileSource
from guest.netpoll.middleware.pcapng import Direction
from guest.netpoll.middleware.pcapng_read import read_file
from guest.tests.dump_wire import MemoryStore
from guest.tests.own_namespace import KERNEL_IP, OUR_IP, Namespace, own_namespace
from guest.tests.test_tool import TOOL

RECORDED = Path(__file__).parent / "data" / "netdumpd.pcapng"
DUMPED = bytes(range(256)) * 16 + bytes(4096) + b"the last words"


def recorded() -> list[tuple[bool, int, bytes]]:
    """(from our client, netdumpd's port, payload) of each datagram."""
    out = []
    for packet in read_file(RECORDED):
        frame, ours = packet.data, packet.direction is Direction.OUTBOUND
        length = int.from_bytes(frame[38:40]) - 8
        port = int.from_bytes(frame[36:38] if ours else frame[34:36])
        out.append((ours, port, frame[42 : 42 + length]))
    return out


def header(length: int) -> bytes:
    return kdh.emit(
        kdh.Header(length, panicstring="page fault", hostname="crashed", versionstring="test\n", time=1, extent=length)
    )


def test_our_client_says_what_netdumpd_understood() -> None:
    source = FileSource(lambda offset, size: DUMPED[offset : offset + size], len(DUMPED))
    client = Client(source, header, room=1472)
    said: list[tuple[int | None, bytes]] = []
    for now, (ours, port, payload) in enumerate(recorded()):
        if ours:
            continue
        said += [(client.port, datagram) for datagram in client.poll(now / 1000)]
        client.receive(payload, port, now / 1000)
    client.poll(1.0)
    assert client.state is State.DONE
    assert [datagram for _, datagram in said] == [payload for ours, _, payload in recorded() if ours]
    assert [port or 20023 for port, _ in said] == [port for ours, port, _ in recorded() if ours]


def test_our_server_answers_as_netdumpd_did() -> None:
    store = MemoryStore()
    server = Server(store, lambda _: None)
    answers: list[bytes] = []
    dump = None
    for ours, port, payload in recorded():
        if not ours:
            continue
        if port == 20023:
            dump = server.herald("10.9.0.2", 20024, payload, 0.0)
        else:
            assert dump is not None
            dump.receive(payload)
        assert dump is not None
        answers += dump.flush(0.0)
    assert answers == [payload for ours, _, payload in recorded() if not ours]
    assert (bytes(store.sinks[0].data), store.sinks[0].ended) == (DUMPED, "vmcore")


def program(variable: str) -> str:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} does not name a program: the recorded exchange stands for it")
    return path


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with own_namespace() as namespace:
        yield namespace


@pytest.mark.netns
@pytest.mark.parametrize(
    "faults", ["drop=0", "drop=0.05,seed=3", "reorder=0.2,duplicate=0.1,seed=4"], ids=["fair", "loss", "disorder"]
)
def test_netdumpd_takes_our_dump(ns: Namespace, faults: str, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.write_bytes(os.urandom(3_000_000) + bytes(100_000))
    folder = tmp_path / "crash"
    folder.mkdir()
    with ns.popen([program("NETDUMPD"), "-D", "-d", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:  # our client says HERALD until it is answered
            options = f"@{OUR_IP}/ours,@{KERNEL_IP}/"
            done = ns.run([*TOOL, "netdump", options, "--vmcore", str(memory), "--faults", faults, "--timeout", "25"])
        finally:
            server.terminate()
    assert done.returncode == 0, done.stdout
    assert (folder / f"vmcore.{OUR_IP}.0").read_bytes() == memory.read_bytes()
    assert "Header Parity Check: Pass\nDump complete" in (folder / f"info.{OUR_IP}.0").read_text()


@pytest.mark.netns
def test_our_server_takes_netdump_clients_dump(ns: Namespace, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.write_bytes(os.urandom(1_000_000))
    folder = tmp_path / "crash"
    folder.mkdir()
    client = program("NETDUMP_CLIENT")
    argv = [
        sys.executable,
        *TOOL[1:],
        "netdump-server",
        f"@{OUR_IP}/ours,@0.0.0.0/",
        "--dir",
        str(folder),
        "--count",
        "1",
    ]
    with ns.popen(argv, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            assert b"dumps go to" in server.stderr.readline()
            assert ns.run([client, "-c", OUR_IP, str(memory)]).returncode == 0
            assert server.wait(20) == 0
        finally:
            server.kill()
    [vmcore] = folder.glob("*/vmcore")
    assert vmcore.read_bytes() == memory.read_bytes()
