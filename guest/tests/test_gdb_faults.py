"""Stock gdb over a network that loses, doubles and reorders: what it reads is right, or it says that it could not read it.

In the test's own namespace: gdb on the kernel's socket, our stack on AF_PACKET with the fault middleware around it. A timeout of
gdb's costs a second here (remotetimeout; 2 by itself), and after four or three in a row it gives up: so it may try thrice.
"""

from __future__ import annotations

import subprocess
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from guest.netpoll.clients.gdb.server import LOCAL_PORT, GdbServer
from guest.netpoll.clients.gdb.session import Session
from guest.netpoll.clients.vmcore.core import Vmcore
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.netpoll.core import Netpoll, netpoll_setup
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.loop import Loop
from guest.netpoll.middleware.fault import FaultDevice, Faults
from guest.netpoll.netdevice import Net, register_netdev
from guest.netpoll.txq import netpoll_queue
from guest.tests.core_files import TEXT, small_kernel
from guest.tests.kernel_end import OUR_IP, OURS, THEIRS, KernelEnd

pytestmark = pytest.mark.netns

SIZE = 8192
MEMORY = b"".join(b"%07d\n" % number for number in range(SIZE // 8))  # no two packets' worth are alike
SMALL = 0.03


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(drop=0.05), id="5 % lost each way"),
        pytest.param(Faults(duplicate=0.3), id="30 % doubled each way"),
        pytest.param(Faults(reorder=0.1), id="10 % swapped each way"),
        pytest.param(Faults(corrupt=0.05), id="5 % damaged each way"),
        pytest.param(Faults(drop=SMALL, duplicate=SMALL, reorder=SMALL, corrupt=SMALL), id="3 % of each"),
    ],
)
def test_what_gdb_reads_is_right(netns: KernelEnd, gdb_argv: tuple[str, ...], tmp_path: Path, faults: Faults) -> None:
    netns.neighbour(OUR_IP)
    netns.compute_checksums(THEIRS)
    net = Net()
    dev = FaultDevice(AfPacketDevice(net, OURS), seed=9, tx=faults, rx=faults)
    register_netdev(dev)
    pages = {0x200000: MEMORY[:4096], 0x201000: MEMORY[4096:]}
    server = GdbServer(Session(Vmcore(BytesSource(small_kernel(pages))), print, idle=0.0), time.monotonic)
    remote = IPv4Address(0)
    np = Netpoll(
        net, "gdbstub", rx_hook=server.rx_hook, drop=netpoll_queue, dev_name=OURS, local_ip=IPv4Address(OUR_IP),
        remote_ip=remote, local_port=LOCAL_PORT,
    )  # fmt: skip
    right = 0
    with Loop(net) as loop:
        netpoll_setup(np)
        for attempt in range(3):
            path = tmp_path / f"memory{attempt}"
            said = debug(loop, gdb_argv, path)
            assert not path.exists() or path.read_bytes() == MEMORY, said
            right += path.exists()
            if right:
                break
    print(dict(dev.counts), server.session.close())
    assert right, "gdb gave up three times"
    for name in ("drop", "duplicate", "reorder", "corrupt"):
        if getattr(faults, name):
            assert dev.counts[f"tx_{name}"] + dev.counts[f"rx_{name}"], f"{name} was not provoked"


def debug(loop: Loop, gdb_argv: tuple[str, ...], path: Path) -> str:
    """One session of gdb's, while the loop serves the stub."""
    dump = f"dump binary memory {path} {TEXT:#x} {TEXT + SIZE:#x}"
    commands = ["set remotetimeout 1", f"target remote udp:{OUR_IP}:{LOCAL_PORT}", "info threads", dump]
    words = [word for command in commands for word in ("-ex", command)]
    argv = [*gdb_argv, "-batch", *words]
    deadline = time.monotonic() + 50
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None:
            assert time.monotonic() < deadline, "gdb has not ended within 50 s"
            loop.run_once(0.1)
        assert process.stdout is not None
        return process.stdout.read()
