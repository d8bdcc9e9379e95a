"""How fast the userspace netpoll stack is, against plain sockets and scapy on the same veth in the same run.

In: how many rounds, and over how many frames memory is watched. Out: tables, and whether every goal was met. Rule: it runs in a process
and a network namespace of its own, made for the measurement and gone with it; what was not measured is said, and is not met.
"""

from __future__ import annotations

import dataclasses
import importlib
import ipaddress
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyroute2 import IPRoute

from guest.netpoll.bench import Case, Path, Row, memory, run
from harness.testbed import namespace

REMOTE_MAC = bytes.fromhex("02006e706f6c")  # nobody's: frames for it end at the far end's driver
PATH = Path("near", "far", ipaddress.IPv4Address("198.51.100.1"), ipaddress.IPv4Address("198.51.100.2"), REMOTE_MAC)
SIZE = 100  # bytes of payload
SCAPY = "scapy.sendp"
SCAPY_GOAL = 5.0  # times as fast as scapy's sendp on an open socket
MEMORY_GOAL = 256 << 10  # bytes: one sk_buff leaked in a thousand is ten times that over ten million frames


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
    missing = (
        [] if _compared(rows) else ["scapy.sendp: not compared, scapy is not installed (the extra `bench` has it)"]
    )
    return [*(_line(row, width) for row in rows), *missing, _memory_line(result["memory"])]


def met(result: Mapping[str, Any]) -> bool:
    """True if scapy was there to be beaten, every ratio reached its goal, and memory, if it was watched, stayed flat."""
    rows = [Row(**row) for row in result["rows"]]
    flat = not result["memory"] or _grown(result["memory"]) <= MEMORY_GOAL
    return flat and _compared(rows) and all(row.met for row in rows)


def _compared(rows: Sequence[Row]) -> bool:
    return any(row.against == SCAPY for row in rows)


def _line(row: Row, width: int) -> str:
    ratio = f"{row.ratio:6.2f}x {row.against}" if row.against else ""
    goal = f"   (goal {row.goal:g}x: {'met' if row.met else 'MISSED'})" if row.goal else ""
    return f"{row.what:{width}}  {row.microseconds:8.2f} us/frame  {ratio}{goal}"


def _memory_line(samples: Sequence[Sequence[int]]) -> str:
    if not samples:
        return "memory: not watched; --frames 10000000 does"
    grown, (frames, octets) = _grown(samples), samples[-1]
    verdict = "met" if grown <= MEMORY_GOAL else "MISSED"
    since = f"{grown / 1024:+.0f} KiB since frame {_warm(samples)[0]:,}"
    goal = f"(goal at most {MEMORY_GOAL >> 10} KiB: {verdict})"
    return f"memory: {octets >> 20} MiB after {frames:,} frames out and in, {since}   {goal}"


def _warm(samples: Sequence[Sequence[int]]) -> Sequence[int]:
    """A tenth of the way, when caches are filled."""
    return samples[min(len(samples) // 10, len(samples) - 1)]


def _grown(samples: Sequence[Sequence[int]]) -> int:
    return max(octets for _, octets in samples[samples.index(_warm(samples)) :]) - _warm(samples)[1]


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

    return {SCAPY: (case, SCAPY_GOAL)}


def _main(rounds: int, frames: int) -> dict[str, Any]:
    namespace.enter()
    _veth()
    rows = [dataclasses.asdict(row) for row in run(PATH, _scapy(), rounds)]
    step = max(10_000, frames // 100)
    return {"rows": rows, "memory": [list(sample) for sample in memory(PATH, frames, step)] if frames else []}


def report(rounds: int, frames: int, say: Callable[[str], None]) -> bool:
    """Measure and say; True if every goal was met."""
    result = measure(rounds, frames)
    for line in table(result):
        say(line)
    return met(result)


if __name__ == "__main__":
    print(json.dumps(_main(int(sys.argv[1]), int(sys.argv[2]))))
