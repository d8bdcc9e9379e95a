"""How fast the userspace netpoll stack is, against plain sockets and scapy on the same veth in the same run.

In: how many rounds, and over how many frames memory is watched. Out: tables. Rule: it runs in a process and a network namespace of
its own, made for the measurement and gone with it.
"""

from __future__ import annotations

import dataclasses
import importlib
import ipaddress
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pyroute2 import IPRoute

from guest.netpoll.bench import Case, Path, Row, memory, run
from harness.testbed import namespace

REMOTE_MAC = bytes.fromhex("02006e706f6c")  # nobody's: frames for it end at the far end's driver
PATH = Path("near", "far", ipaddress.IPv4Address("198.51.100.1"), ipaddress.IPv4Address("198.51.100.2"), REMOTE_MAC)
SIZE = 100  # bytes of payload
SCAPY_GOAL = 5.0  # times as fast as scapy's sendp on an open socket


def measure(rounds: int, frames: int) -> dict[str, Any]:
    """Run `_main` in a process of its own; {"rows": [...], "memory": [[frames, octets], ...]}. CalledProcessError if it fails."""
    command = [sys.executable, "-m", "harness.bench.stack", str(rounds), str(frames)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines."""
    rows = [Row(**row) for row in result["rows"]]
    width = max(len(row.what) for row in rows)
    return [*(_line(row, width) for row in rows), *_memory_lines(result["memory"])]


def _line(row: Row, width: int) -> str:
    ratio = f"{row.ratio:6.2f}x {row.against}" if row.against else ""
    goal = f"   (goal {row.goal:g}x: {'met' if row.met else 'MISSED'})" if row.goal else ""
    return f"{row.what:{width}}  {row.microseconds:8.2f} us/frame  {ratio}{goal}"


def _memory_lines(samples: list[list[int]]) -> list[str]:
    if not samples:
        return []
    warm, last = samples[min(len(samples) // 10, len(samples) - 1)], samples[-1]
    grown = (last[1] - warm[1]) / 1024
    return [
        f"memory: {last[1] >> 20} MiB after {last[0]:,} frames out and in, {grown:+.0f} KiB since frame {warm[0]:,}"
    ]


def _veth() -> None:
    with IPRoute() as netlink:
        netlink.link("add", ifname=PATH.near, kind="veth", peer={"ifname": PATH.far})
        near, far = (netlink.link_lookup(ifname=name)[0] for name in (PATH.near, PATH.far))
        netlink.addr("add", index=near, address=str(PATH.local), prefixlen=24)
        for index in (near, far):
            netlink.link("set", index=index, state="up")
        netlink.neigh("add", dst=str(PATH.remote), lladdr=REMOTE_MAC.hex(":"), ifindex=near, state="permanent")


def _scapy() -> dict[str, tuple[Case, float]]:
    """scapy's sendp on an open L2 socket, where scapy is installed."""
    try:
        scapy = importlib.import_module("scapy.all")
    except ImportError:
        return {}
    sock = scapy.conf.L2socket(iface=PATH.near)
    ip = scapy.IP(src=str(PATH.local), dst=str(PATH.remote))
    packet = scapy.Ether(dst=REMOTE_MAC.hex(":")) / ip / scapy.UDP(sport=6665, dport=6666) / bytes(SIZE)

    def case(frames: int) -> None:
        scapy.sendp([packet] * frames, socket=sock, verbose=False)

    return {"scapy.sendp": (case, SCAPY_GOAL)}


def _main(rounds: int, frames: int) -> dict[str, Any]:
    namespace.enter()
    _veth()
    rows = [dataclasses.asdict(row) for row in run(PATH, _scapy(), rounds)]
    step = max(10_000, frames // 100)
    return {"rows": rows, "memory": [list(sample) for sample in memory(PATH, frames, step)] if frames else []}


def report(rounds: int, frames: int, say: Callable[[str], None]) -> None:
    """Measure and say."""
    for line in table(measure(rounds, frames)):
        say(line)


if __name__ == "__main__":
    print(json.dumps(_main(int(sys.argv[1]), int(sys.argv[2]))))
