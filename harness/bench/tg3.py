"""How fast the tg3 that we serve is, against QEMU's own e1000 in the same guest, frame by frame and idle.

In: a prepared job whose guest both NICs are plugged into, and how many rounds. Out: figures, tg3 beside e1000. Rule: the two take turns
within each round; a figure counts only if the frames it speaks of arrived at the other end. It runs in a process and a network namespace of
its own, gone with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

from pyroute2 import IPRoute

import images
from guest.netpoll.wire.checksum import checksum
from harness.case import Job
from harness.nic.client import ServedNic
from harness.observe.events import Clock
from harness.testbed import namespace
from harness.testbed.machine import Machine, Observers
from harness.testbed.tap import open_tap
from harness.testbed.template import blank_memory, boot_argv, clone_argv, clone_memory, restore

NOBODY = "02:00:6e:70:6f:6c"  # frames for it end in the host's kernel
DISCARD, ECHO = 9, 5001  # UDP ports; nobody listens on the first
PINGS, BURST = 200, 64
LATE = 10.0  # seconds until a frame that was sent must be at the tap
GUEST = 120.0  # seconds that a measurement in the guest may take
ID_REGISTERS = {"tg3": "0x6800", "e1000": "0x8"}  # reads without side effect: MODE_CTRL; STATUS
SILENT = Observers(lambda *_: None, lambda *_: None, lambda *_: None)


@dataclass(frozen=True)
class Nic:
    """One of the two: its model, its tap and /24 network, its MAC, the name of its interface and PCI address in the guest."""

    model: str
    tap: str
    network: str
    mac: str
    ifname: str = ""
    pci: str = ""

    @property
    def host(self) -> str:
        return f"{self.network}.1"

    @property
    def guest(self) -> str:
        return f"{self.network}.2"


NICS = (
    Nic("tg3", "tap0", "198.51.100", "52:54:00:6e:00:01"),
    Nic("e1000", "tap1", "203.0.113", "52:54:00:6e:00:02"),
)


@dataclass(frozen=True)
class Rig:
    """The running guest."""

    machine: Machine

    async def speed(self, *argv: str | int) -> dict[str, float]:
        """`guest.speed` in the guest."""
        said = await self.run("python3", "-S", "-P", "-m", "guest.speed", *map(str, argv))
        result: dict[str, float] = json.loads(said)
        return result

    async def run(self, *argv: str) -> str:
        request = self.machine.agent.ask("run", {"argv": list(argv), "within": GUEST}, GUEST + 5)
        return str((await self.machine.alive(request, GUEST + 10, " ".join(argv)))["out"])


async def transmit(rig: Rig, nic: Nic, *argv: str | int) -> float:
    """Microseconds per frame of something that sends. AssertionError if more than one in a hundred did not reach the tap."""
    before = await asyncio.to_thread(arrived, nic.tap)
    done = await rig.speed(*argv)
    wanted = before + done["frames"] * 0.99
    if not await asyncio.to_thread(_arrives, nic.tap, wanted):
        raise AssertionError(f"{argv}: frames of {nic.model} did not reach its tap within {LATE:g} s")
    return done["seconds"] / done["frames"] * 1e6


def _arrives(tap: str, wanted: float) -> bool:
    """Wait until the tap has seen so many frames: what was in the device's ring when its sender ended follows."""
    deadline = time.monotonic() + LATE
    while arrived(tap) < wanted:
        if time.monotonic() > deadline:
            return False
    return True


async def pktgen(rig: Rig, nic: Nic, size: int) -> float:
    return await transmit(rig, nic, "pktgen", nic.ifname, size, 20_000, NOBODY, nic.host)


async def sendto(rig: Rig, nic: Nic) -> float:
    return await transmit(rig, nic, "sendto", nic.host, DISCARD, 100, 5000)


async def receive(rig: Rig, nic: Nic, ahead: int, bursts: int) -> float:
    """Microseconds per datagram of so many injected bursts, `ahead` of them on their way: the next when the guest has taken the oldest."""
    work = asyncio.ensure_future(rig.speed("receive", ECHO, BURST * bursts, BURST))
    await asyncio.to_thread(_inject, nic, ahead, bursts, work.done)
    done = await work
    return done["seconds"] / done["frames"] * 1e6


def _inject(nic: Nic, ahead: int, bursts: int, over: Callable[[], bool]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((nic.host, 0))
        sock.settimeout(0.2)
        word = b""
        while not word and not over():  # until the guest's socket is there
            sock.sendto(b"here", (nic.guest, ECHO))
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                word = sock.recv(16)
        sock.settimeout(LATE)
        count, left = ahead, bursts
        while word == b"go" and not over():
            for _ in range(min(count, left) * BURST):
                sock.sendto(bytes(100), (nic.guest, ECHO))
            count, left = 1, left - min(count, left)
            word = sock.recv(16)


async def ping(_rig: Rig, nic: Nic) -> float:
    """Microseconds from an ICMP echo request to its reply, median."""
    return await asyncio.to_thread(_ping, nic)


def _ping(nic: Nic) -> float:
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.bind((nic.host, 0))
        sock.settimeout(5)
        for number in range(PINGS):
            body = struct.pack("!BBHHH", 8, 0, 0, 0x6E70, number) + bytes(56)
            request = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
            began = time.monotonic()
            sock.sendto(request, (nic.guest, 0))
            while sock.recv(2048)[20:28] != struct.pack("!BBHHH", 0, 0, checksum(b"\0\0" + body[2:]), 0x6E70, number):
                pass
            times.append(time.monotonic() - began)
    return median(times) * 1e6


async def unbound(rig: Rig, nic: Nic) -> None:
    """Take the NIC from its driver; a region that a driver has cannot be mapped (CONFIG_IO_STRICT_DEVMEM)."""
    device = f"/sys/bus/pci/devices/{nic.pci}"
    await rig.run("sh", "-c", f"echo {nic.pci} > {device}/driver/unbind; echo 1 > {device}/enable")


async def register_read(rig: Rig, nic: Nic) -> float:
    """Microseconds, from an instruction in the guest to its result."""
    done = await rig.speed("mmio", nic.pci, ID_REGISTERS[nic.model], 2000)
    return done["seconds"] / done["times"] * 1e6


# What is measured of each NIC, in microseconds. tg3 must be as fast as e1000 in the first, while their drivers have them.
BOUND: Mapping[str, Callable[[Rig, Nic], Awaitable[float]]] = {
    "pktgen, 60 B": partial(pktgen, size=60),
    "pktgen, 1514 B": partial(pktgen, size=1514),
    "UDP sendto, 100 B": sendto,
    "RX, 64 to 128 on their way": partial(receive, ahead=2, bursts=600),  # 1.6 s: in 0.3 s chance has too large a part
    "RX, bursts of 64": partial(receive, ahead=1, bursts=100),
    "ping": ping,
}
UNBOUND: Mapping[str, Callable[[Rig, Nic], Awaitable[float]]] = {"register read": register_read}


def arrived(tap: str) -> int:
    """Frames that the guest has put on the tap; by netlink, since sysfs shows the namespace that it was mounted in."""
    with IPRoute() as netlink:
        (link,) = netlink.link("get", ifname=tap)
        return int(link.get("stats64")["rx_packets"])


def _addressed(nic: Nic) -> int:
    """The NIC's tap, with the host's address on it."""
    tap = open_tap(nic.tap)
    with IPRoute() as netlink:
        netlink.addr("add", index=netlink.link_lookup(ifname=nic.tap)[0], address=nic.host, prefixlen=24)
    return tap


@contextlib.asynccontextmanager
async def plugged(machine: Machine, nic: Nic, netdev: str = "net") -> AsyncIterator[None]:
    """The NIC in the machine, as a testcase would have it. `netdev`: what QEMU calls its backend."""
    tap = await asyncio.to_thread(_addressed, nic)
    served: ServedNic | None = None
    try:
        if nic.model == "tg3":
            served = ServedNic.start(tap, nic.mac, lambda _event: None)
            await served.ready()
            path = {"type": "unix", "path": served.path}
            await machine.qmp.execute("device_add", {"driver": "vfio-user-pci", "id": nic.tap, "socket": path})
        else:
            await machine.qmp.execute("getfd", {"fdname": nic.tap}, tap)
            await machine.qmp.execute("netdev_add", {"type": "tap", "id": netdev, "fd": nic.tap})
            device = {"driver": nic.model, "id": nic.tap, "netdev": netdev, "mac": nic.mac, "romfile": ""}
            await machine.qmp.execute("device_add", device)
        yield
    finally:
        if served is not None:
            served.close()
        os.close(tap)


@contextlib.asynccontextmanager
async def machine_of(job: Job, cold: bool) -> AsyncIterator[Machine]:
    """A guest with memory that a served NIC can reach: cold, or restored and answering."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(images.Store(images.cache_root()).scratch())
        size = job.plan.machine.memory
        memory, inherit = stack.enter_context(blank_memory(size) if cold else clone_memory(job.template, shared=True))
        argv = partial(boot_argv if cold else clone_argv, job.ingredients, memory)
        async with Machine.start(argv, SILENT, Clock.start(), folder / "console", inherit) as machine:
            if not cold:
                await restore(machine, job.template)
                await machine.alive(machine.agent.synchronise(time.monotonic), 30, "the agent")
            yield machine


async def _up(rig: Rig, nic: Nic) -> Nic:
    """The NIC with its driver bound, address and carrier, and what the guest calls it."""
    args = {"id": nic.tap, "mac": nic.mac, "driver": nic.model}
    known = await rig.machine.alive(rig.machine.agent.ask("nic_wait", args, 30), 40, nic.model)
    ifname = str(known["ifname"])
    await rig.run("ip", "addr", "add", f"{nic.guest}/24", "dev", ifname)
    await rig.run("ip", "link", "set", ifname, "up")
    deadline = time.monotonic() + 30
    while "LOWER_UP" not in await rig.run("ip", "link", "show", "dev", ifname):
        if time.monotonic() > deadline:
            raise AssertionError(f"no carrier on {nic.model} within 30 s")
    pci = (await rig.run("readlink", f"/sys/class/net/{ifname}/device")).strip().rsplit("/", 1)[-1]
    return replace(nic, ifname=ifname, pci=pci)


async def frames(job: Job, rounds: int) -> dict[str, dict[str, list[float]]]:
    """{row: {model: microseconds of each round}}."""
    rows = {**BOUND, **UNBOUND}
    found: dict[str, dict[str, list[float]]] = {what: {nic.model: [] for nic in NICS} for what in rows}
    async with machine_of(job, cold=False) as machine, plugged(machine, NICS[0]), plugged(machine, NICS[1]):
        rig = Rig(machine)
        nics = [await _up(rig, nic) for nic in NICS]
        await rig.run("modprobe", "pktgen")
        for number in range(2 * rounds):
            if number == rounds:
                await asyncio.gather(*(unbound(rig, nic) for nic in nics))
            for what, measured in (BOUND if number < rounds else UNBOUND).items():
                for nic in nics:
                    found[what][nic.model].append(await measured(rig, nic))
    return found


async def idle(job: Job, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Boots, and work that has nothing to do with the NIC, with an idle tg3 and without: {row: {with or without: seconds}}."""
    found: dict[str, dict[str, list[float]]] = {what: {"with": [], "without": []} for what in ("boot", "work")}
    for _ in range(rounds):
        for which in ("with", "without"):
            began = time.monotonic()
            async with machine_of(job, cold=True) as machine, contextlib.AsyncExitStack() as stack:
                if which == "with":
                    await stack.enter_async_context(plugged(machine, NICS[0]))
                await machine.alive(
                    machine.agent.synchronise(time.monotonic, 120), 120, "the agent of a guest that boots"
                )
                found["boot"][which].append(time.monotonic() - began)
                done = await Rig(machine).speed("spin", 1_000_000)
                found["work"][which].append(done["seconds"])
    return found


def measure(job: Job, rounds: int) -> dict[str, Any]:
    """Everything, in a process of its own. CalledProcessError if it fails; what it said is on standard error."""
    command = [sys.executable, "-m", "harness.bench.tg3", str(rounds)]
    done = subprocess.run(command, input=pickle.dumps(job), stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines."""
    lines = [f"{'':26}  {'tg3':>10}  {'e1000':>10}"]
    for what, times in result["frames"].items():
        tg3, e1000 = (median(times[nic.model]) for nic in NICS)
        lines.append(
            f"{what:26}  {tg3:7.2f} us  {e1000:7.2f} us  {_ratio(e1000 / tg3, 1.0 if what in BOUND else None)}"
        )
    lines.append(f"{'':26}  {'idle tg3':>10}  {'none':>10}")
    for what, times in result["idle"].items():
        beside, alone = (median(times[which]) for which in ("with", "without"))
        lines.append(f"{what:26}  {beside:8.2f} s  {alone:8.2f} s  {_ratio(alone / beside, 0.95)}")
    return lines


def _ratio(ratio: float, goal: float | None) -> str:
    verdict = "" if goal is None else f"   (goal {goal:g}x: {'met' if ratio >= goal else 'MISSED'})"
    return f"{ratio:6.2f}x as fast{verdict}"


def _main(argv: Sequence[str]) -> dict[str, Any]:
    job: Job = pickle.loads(sys.stdin.buffer.read())
    namespace.enter()
    rounds = int(argv[1])
    return {"frames": asyncio.run(frames(job, rounds)), "idle": asyncio.run(idle(job, rounds))}


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv)))
