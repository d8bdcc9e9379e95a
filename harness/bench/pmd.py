"""`netpoll-harness bench pmd`: our stack on our own drivers against the kernel's sockets, on the same NIC of the same guest in one run.

In: a prepared job, how many rounds. Out: figures of e1000, virtio-net and tg3, ratios, and whether the goals were met. Rule: in each round the
kernel and we take turns with each NIC; a figure counts only if the frames it speaks of arrived at the tap, or were answered. It runs in a
process and a network namespace of its own.

Goals: TX at least 3 times as fast as sendto from Python and as fast as a C loop of sendto; RX as fast as recvfrom from Python; virtio-net as
fast as e1000. Without a C compiler that goal is inconclusive.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import pickle
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pyroute2 import IPRoute

import images
from harness.bench.tg3 import NOBODY, Nic, Rig, arrived, machine_of, plugged
from harness.case import Job
from harness.testbed import namespace

NICS = (
    Nic("e1000", "tap0", "198.51.100", "52:54:00:6e:00:01"),
    Nic("virtio-net-pci", "tap1", "203.0.113", "52:54:00:6e:00:02"),
    Nic("tg3", "tap2", "192.0.2", "52:54:00:6e:00:03"),
)
WORDS = {"e1000": "e1000", "virtio-net-pci": "virtio-net", "tg3": "tg3"}
DRIVERS = {"e1000": "e1000", "virtio-net-pci": "virtio_net", "tg3": "tg3"}
FRAMES, RECEIVED, BURST = 8192, 64 * 60, 64
ECHO, PEER = 5001, 5002  # UDP ports; the second is guest.pmd_speed's
SOURCE = Path(__file__).with_name("sendto.c")
PROGRAM = "/tmp/sendto"
CHUNK = 256 << 10  # bytes of a program that cross to the guest at a time
LATE, LINK = 10.0, 30.0  # seconds: until what was sent is at the tap; until there is carrier

Figures = dict[str, list[float]]  # seconds a frame, of each round


@dataclass(frozen=True)
class Goal:
    """`ours` must be `factor` times as fast as `theirs`, on each NIC."""

    ours: str
    theirs: str
    factor: float


GOALS = (
    Goal("batch", "sendto", 3.0),
    Goal("batch", "C sendto", 1.0),
    Goal("send_udp", "sendto", 3.0),
    Goal("send_udp", "C sendto", 1.0),
    Goal("drivers", "sendto", 3.0),
    Goal("drivers", "C sendto", 1.0),
    Goal("receive", "recvfrom", 1.0),
)
ROWS = {
    "sendto": "kernel: sendto, Python",
    "C sendto": "kernel: sendto, C",
    "send_udp": "ours: netpoll_send_udp, a doorbell a frame",
    "batch": "ours: netpoll_send_udp_batch, a doorbell for 64",
    "driver": "the driver alone: hard_start_xmit, a doorbell each",
    "drivers": "the driver alone: xmit_run, a doorbell for 64",
    "headers and checksums": "  a layer: headers and checksums",
    "cleaning": "  a layer: cleaning, in all four",
    "an empty call": "  a layer: a call that does nothing",
    "bell": "bound: index and doorbell alone, one at a time",
    "device": "bound: the device model, a full ring",
    "recvfrom": "kernel: recvfrom, Python",
    "receive": "ours: rx_hook",
}


def compiled(folder: Path) -> bytes | None:
    """The C loop as a static program; None where there is no compiler for it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    made = folder / "sendto"
    done = subprocess.run([compiler, "-O2", "-static", "-o", made, SOURCE], capture_output=True, check=False)
    return made.read_bytes() if done.returncode == 0 else None


async def kernel(rig: Rig, nic: Nic, program: bool) -> dict[str, float]:
    """The kernel's sockets on the NIC, which its driver has."""
    await rig.run("ip", "addr", "replace", f"{nic.guest}/24", "dev", nic.ifname)
    await rig.run("ip", "link", "set", nic.ifname, "up")
    await rig.run("ip", "neigh", "replace", nic.host, "lladdr", NOBODY, "dev", nic.ifname)
    await _carrier(rig, nic)
    found = await _sent(rig, nic, FRAMES, "sendto", nic.host, FRAMES)
    if program:
        before = await asyncio.to_thread(arrived, nic.tap)
        said = await rig.run(PROGRAM, nic.host, "9", str(FRAMES))
        await _at_the_tap(nic, before + FRAMES)
        found["C sendto"] = float(said) / 1e9
    await rig.run(
        "ip", "neigh", "replace", nic.host, "lladdr", await asyncio.to_thread(_mac_of, nic.tap), "dev", nic.ifname
    )
    took = await _received(rig, nic, "recvfrom", ECHO, RECEIVED, BURST)
    return found | {"recvfrom": took["receive"]}


async def ours(rig: Rig, nic: Nic) -> dict[str, float]:
    """Our stack on our driver."""
    await rig.run("ip", "link", "set", nic.ifname, "down")
    ends = (nic.ifname, nic.guest, nic.host)
    before = await asyncio.to_thread(arrived, nic.tap)
    found = await _speed(rig, "transmit", *ends, NOBODY, FRAMES)
    await _at_the_tap(nic, before + int(found.pop("frames")))
    took = await _received(rig, nic, "receive", *ends, await asyncio.to_thread(_mac_of, nic.tap), ECHO, RECEIVED, BURST)
    return found | {"receive": took["receive"]}


async def _speed(rig: Rig, *argv: str | int) -> dict[str, float]:
    said = await rig.run("python3", "-S", "-P", "-m", "guest.pmd_speed", *map(str, argv))
    result: dict[str, float] = json.loads(said)
    return result


async def _sent(rig: Rig, nic: Nic, frames: int, *argv: str | int) -> dict[str, float]:
    before = await asyncio.to_thread(arrived, nic.tap)
    found = await _speed(rig, *argv)
    await _at_the_tap(nic, before + frames)
    return found


async def _at_the_tap(nic: Nic, wanted: int) -> None:
    """AssertionError if what was sent does not come."""
    deadline = time.monotonic() + LATE
    while (there := await asyncio.to_thread(arrived, nic.tap)) < wanted:
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{nic.model}: {wanted - there} of the frames that were sent did not reach {nic.tap} in {LATE:g} s"
            )
        await asyncio.sleep(0.01)


async def _received(rig: Rig, nic: Nic, *argv: str | int) -> dict[str, float]:
    """What the guest says of bursts that are sent to it, the next when it has answered the last."""
    work = asyncio.ensure_future(_speed(rig, *argv))
    try:
        await asyncio.to_thread(_inject, nic, work.done)
    finally:
        found = await work
    return found


def _inject(nic: Nic, over: Callable[[], bool]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((nic.host, PEER))
        sock.settimeout(0.2)
        word = b""
        while word != b"go" and not over():  # until there is somebody
            sock.sendto(b"here", (nic.guest, ECHO))
            word = _answer(sock)
        sock.settimeout(LATE)
        while word == b"go" and not over():
            for _ in range(BURST):
                sock.sendto(bytes(18), (nic.guest, ECHO))
            word = _answer(sock)


def _answer(sock: socket.socket) -> bytes:
    try:
        return sock.recv(16)
    except (TimeoutError, ConnectionRefusedError):
        return b""


async def _carrier(rig: Rig, nic: Nic) -> None:
    deadline = time.monotonic() + LINK
    while "LOWER_UP" not in await rig.run("ip", "link", "show", "dev", nic.ifname):
        if time.monotonic() > deadline:
            raise AssertionError(f"no carrier on {nic.model} within {LINK:g} s")


def _mac_of(tap: str) -> str:
    with IPRoute() as netlink:
        (link,) = netlink.link("get", ifname=tap)
        return str(link.get("address"))


def _neighbour(nic: Nic) -> None:
    """The host knows the guest's MAC address: our stack answers ARP only while it traps."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=nic.tap)[0]
        netlink.neigh("replace", dst=nic.guest, lladdr=nic.mac, ifindex=index, state="permanent")


async def _known(rig: Rig, nic: Nic) -> Nic:
    args = {"id": nic.tap, "mac": nic.mac, "driver": DRIVERS[nic.model]}
    known = await rig.machine.alive(rig.machine.agent.ask("nic_wait", args, LINK), LINK + 10, nic.model)
    return Nic(nic.model, nic.tap, nic.network, nic.mac, str(known["ifname"]))


async def _push(rig: Rig, program: bytes) -> None:
    for at in range(0, len(program), CHUNK):
        data = base64.b64encode(program[at : at + CHUNK]).decode()
        args = {"path": PROGRAM, "data": data, "append": at > 0, "mode": 0o755}
        await rig.machine.alive(rig.machine.agent.ask("file_write", args, LATE), LATE + 5, PROGRAM)


async def rounds_of(job: Job, rounds: int, program: bytes | None) -> dict[str, Figures]:
    """{model: {what: seconds a frame of each round}}."""
    found: dict[str, Figures] = {WORDS[nic.model]: {} for nic in NICS}
    async with machine_of(job, cold=False) as machine, contextlib.AsyncExitStack() as cables:
        for number, nic in enumerate(NICS):
            await cables.enter_async_context(plugged(machine, nic, f"net{number}"))
        rig = Rig(machine)
        nics = [await _known(rig, nic) for nic in NICS]
        if program is not None:
            await _push(rig, program)
        for nic in nics:
            await asyncio.to_thread(_neighbour, nic)
        for _ in range(rounds):
            for nic in nics:
                figures = await kernel(rig, nic, program is not None) | await ours(rig, nic)
                for what, seconds in figures.items():
                    found[WORDS[nic.model]].setdefault(what, []).append(seconds)
    return found


def measure(job: Job, rounds: int) -> dict[str, Figures]:
    """Everything, in a process of its own. CalledProcessError if it fails; what it said is on standard error."""
    command = [sys.executable, "-m", "harness.bench.pmd", str(rounds)]
    done = subprocess.run(command, input=pickle.dumps(job), stdout=subprocess.PIPE, check=True)
    result: dict[str, Figures] = json.loads(done.stdout)
    return result


def table(found: Mapping[str, Figures]) -> list[str]:
    """The median of all rounds, in microseconds a frame, then ratios with their goals."""
    models = list(found)
    lines = [f"{'us a frame of 60 octets':50}" + "".join(f"{model:>12}" for model in models)]
    for what, name in ROWS.items():
        cells = [
            f"{median(found[model][what]) * 1e6:12.2f}" if what in found[model] else f"{'-':>12}" for model in models
        ]
        lines.append(f"{name:50}" + "".join(cells))
    lines += [_ratio(model, goal, found[model]) for goal in GOALS for model in models]
    return [*lines, *_between(found), *(_distance(model, found[model]) for model in models)]


def _ratio(model: str, goal: Goal, figures: Figures) -> str:
    what = f"{model}: {goal.ours} against {goal.theirs}"
    if goal.theirs not in figures:
        return f"{what:50}{'':12}   (goal {goal.factor:g}x: inconclusive, there is no C compiler)"
    ratio = median(figures[goal.theirs]) / median(figures[goal.ours])
    return f"{what:50}{ratio:10.2f} x   (goal {goal.factor:g}x: {'met' if ratio >= goal.factor else 'MISSED'})"


def _between(found: Mapping[str, Figures]) -> list[str]:
    e1000, virtio = found["e1000"], found["virtio-net"]
    lines = []
    for what in ("send_udp", "batch", "receive"):
        ratio = median(e1000[what]) / median(virtio[what])
        lines.append(
            f"{f'virtio-net against e1000: {what}':50}{ratio:10.2f} x   (goal 1x: {'met' if ratio >= 1 else 'MISSED'})"
        )
    return lines


def _distance(model: str, figures: Figures) -> str:
    share = median(figures["device"]) / median(figures["batch"])
    return f"{f'{model}: the device model takes of batch':50}{share:10.0%}"


def met(found: Mapping[str, Figures]) -> bool:
    """Whether no goal was missed; one that is inconclusive is none that is met, and none that is missed."""
    return not any("MISSED" in line for line in table(found))


def _main(argv: Sequence[str]) -> dict[str, Any]:
    job: Job = pickle.loads(sys.stdin.buffer.read())
    with images.Store(images.cache_root()).scratch() as folder:
        program = compiled(folder)
    namespace.enter()
    return dict(asyncio.run(rounds_of(job, int(argv[1]), program)))


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv)))
