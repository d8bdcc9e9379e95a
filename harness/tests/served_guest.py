"""A clone with a NIC that we serve in a network namespace of its own, and what Linux' driver and TCP say of it. Prints one JSON object.

    unshare -n python -m harness.tests.served_guest KERNEL content|offline|suspend|sleep MODEL [pc|q35]

In: the name of a kernel whose images are there, a scene, and a model of harness.nic.models. Out: what was found, for
harness.tests.test_tg3_guest and test_models_guest. Rule: commands in the guest are
short; a stream runs in the background there and is waited for at the host's end of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from harness.nic.client import ServedNic
from harness.observe.events import Clock
from harness.plan.nics import BRIDGE, MODELS
from harness.run import Bench, Options, load
from harness.testbed.machine import Machine, Observers
from harness.testbed.tap import open_tap
from harness.testbed.template import clone_argv, clone_memory, restore

MAC, HOST, GUEST, PORT = "52:54:00:6e:00:01", "10.0.0.1", "10.0.0.2", 5000
STREAM = 1_500_000
LOG = 6666
_NETCONSOLE = f"""
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
cd /sys/kernel/config/netconsole && mkdir sleep && cd sleep && echo eth0 > dev_name && echo {GUEST} > local_ip &&
echo {HOST} > remote_ip && echo {LOG} > remote_port && echo 1 > enabled
"""
# With MSI-X: vfio_user_instance_finalize() takes the PBA's region out of a BAR that is gone by then, an assertion (QEMU 11.1)
UNPLUG_ENDS_QEMU = ("virtio-net",)
# q35's ACPI registers: SeaBIOS maps them at 0x600 when it boots, not when it resumes from S3 (docs/findings.md), so a test has to.
_LPC = "/sys/bus/pci/devices/0000:00:1f.0/config"
_PM_BASE = f"od -An -tx1 -j64 -N5 {_LPC}"  # PMBASE and ACPI_CNTL
_MAP_PM = f"""
with open("{_LPC}", "r+b", buffering=0) as lpc, open("/dev/port", "r+b", buffering=0) as port:
    for file, at, data in (lpc, 0x40, b"\\1\\6\\0\\0"), (lpc, 0x44, b"\\x80"), (port, 0x604, b"\\1\\0"), (port, 0x628, b"\\6"):
        file.seek(at); file.write(data)  # base | 1, ACPI_EN, PM1_CNT.SCI_EN, GPE0_EN: hot-plug
"""
_PEER = f"""
import random, socket, hashlib
sock = socket.create_connection(("{HOST}", {PORT}), 30)
sock.sendall(random.Random(1).randbytes({STREAM})); sock.shutdown(socket.SHUT_WR)
digest = hashlib.sha256()
while data := sock.recv(65536): digest.update(data)
print(digest.hexdigest())
"""


class Guest:
    """The running clone: commands in it, and the NIC's process."""

    def __init__(
        self, machine: Machine, nic: ServedNic, outputs: list[dict[str, Any]], told: Mapping[str, int], driver: str
    ) -> None:
        self._machine, self.nic, self._outputs, self.driver = machine, nic, outputs, driver
        self.told = told  # how many events of each kind the device has told of

    async def run(self, command: str, within: float = 30) -> str:
        """Standard output of a shell command that takes less than `within` seconds."""
        before = len(self._outputs)
        arguments = {"argv": ["/bin/sh", "-c", command], "may_fail": True, "within": within}
        await self._machine.alive(self._machine.agent.ask("run", arguments, within), within + 5, command)
        return str(self._outputs[before]["out"])

    async def woken(self) -> None:
        """Wait until the machine sleeps, and wake it up."""
        await self._machine.qmp_event("SUSPEND", 60, "the machine's sleep", lambda _data: True)
        await self._machine.alive(self._machine.qmp.execute("system_wakeup"), 10, "system_wakeup")
        await self._machine.qmp_event("WAKEUP", 30, "the machine's waking", lambda _data: True)

    async def until(self, command: str, wanted: str, within: float) -> None:
        """Repeat a command until its output contains `wanted`."""
        deadline = time.monotonic() + within
        while wanted not in (said := await self.run(command)):
            assert time.monotonic() < deadline, f"{command}: {said!r} has no {wanted!r} after {within} s"


async def stream(guest: Guest, listening: socket.socket) -> dict[str, bool]:
    """A TCP stream each way; whether both came through byte-exact."""
    await guest.run(f"python3 -c '{_PEER.strip()}' > /tmp/digest 2>&1 &")

    def serve() -> bool:
        with listening.accept()[0] as peer:
            digest = hashlib.sha256()
            while data := peer.recv(1 << 16):
                digest.update(data)
            peer.sendall(random.Random(2).randbytes(STREAM))
        return digest.hexdigest() == hashlib.sha256(random.Random(1).randbytes(STREAM)).hexdigest()

    out = await asyncio.wait_for(asyncio.to_thread(serve), 60)
    await guest.until("cat /tmp/digest", hashlib.sha256(random.Random(2).randbytes(STREAM)).hexdigest(), 60)
    return {"out": out, "in": True}


async def scene(guest: Guest) -> dict[str, Any]:
    """What is found on a NIC that is up."""
    found: dict[str, Any] = {"interrupt": await guest.run("grep -E 'eth0|-input' /proc/interrupts")}
    with socket.create_server((HOST, PORT)) as listening:
        listening.settimeout(60)
        for tso in ("on", "off"):
            await guest.run(f"ethtool -K eth0 tso {tso} gso {tso}")
            found[f"tso {tso}"] = await stream(guest, listening)
    found["self-test"] = await guest.run("ethtool -t eth0 online")
    await guest.nic.command("link", up=False)
    await guest.until("cat /sys/class/net/eth0/carrier", "0", 10)
    await guest.nic.command("link", up=True)
    await guest.until("cat /sys/class/net/eth0/carrier", "1", 10)
    await guest.run(f"ip link set eth0 down; rmmod {guest.driver}; modprobe {guest.driver}; ip link set eth0 up")
    await guest.until("cat /sys/class/net/eth0/carrier", "1", 20)
    found["dmesg"] = await complaints(guest)
    return found


async def complaints(guest: Guest) -> str:
    """What the kernel holds against the NIC."""
    return await guest.run(f"dmesg -l emerg,alert,crit,err,warn | grep -iE '{guest.driver}|eth0|irq|bug|call trace'")


async def offline(guest: Guest) -> dict[str, Any]:
    """tg3_self_test() with ETH_TEST_FL_OFFLINE: resets, registers, memory, loopbacks. The link comes back afterwards."""
    said = await guest.run("ethtool -t eth0 offline; echo status $?", within=300)
    await guest.until("cat /sys/class/net/eth0/carrier", "1", 20)
    return {"self-test": said}


async def suspend(guest: Guest) -> dict[str, Any]:
    """The kernel suspends all devices and wakes them, with an address and a link that must be as before.

    pm_test=devices (Documentation/power/basic-pm-debugging.rst) stops before the machine itself sleeps.
    """
    await guest.run("echo devices > /sys/power/pm_test; echo 1 > /sys/module/suspend/parameters/pm_test_delay")
    found: dict[str, Any] = {}
    for state in ("freeze", "mem"):
        before = await guest.run("dmesg | grep -c 'PM: suspend exit'")
        resets = guest.told["reset"]
        found[state] = await guest.run(f"echo {state} > /sys/power/state && echo woken", within=60)
        found[f"{state} ends"] = int(await guest.run("dmesg | grep -c 'PM: suspend exit'")) - int(before)
        await guest.until("cat /sys/class/net/eth0/carrier", "1", 20)
        found[f"resets by {state}"] = guest.told["reset"] - resets
        with socket.create_server((HOST, PORT)) as listening:
            listening.settimeout(60)
            found[f"stream after {state}"] = await stream(guest, listening)
    found["dmesg"] = await complaints(guest)
    return found


async def sleep(guest: Guest) -> dict[str, Any]:
    """The whole machine suspends to RAM (ACPI S3) and is woken by QMP; netconsole before and after, and a TCP stream.

    QEMU resets every device on the way up, so what tg3_resume() finds is a chip after power-on.
    """
    found: dict[str, Any] = {"states": await guest.run("cat /sys/power/mem_sleep")}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind((HOST, LOG))
        await guest.run(_NETCONSOLE)
        found["said before"] = await _heard(guest, log, "before the sleep")
        resets = guest.told["reset"]
        command = "echo deep > /sys/power/mem_sleep && echo mem > /sys/power/state && echo woken"
        asked = asyncio.create_task(guest.run(command, within=120))  # answered when the machine is awake again
        await guest.woken()
        found["mem"] = await asked
        found["pm base"] = await guest.run(f"test -e {_LPC} && {_PM_BASE}")
        await guest.until("cat /sys/class/net/eth0/carrier", "1", 20)
        found["resets"] = guest.told["reset"] - resets
        found["said after"] = await _heard(guest, log, "after the sleep")
    with socket.create_server((HOST, PORT)) as listening:
        listening.settimeout(60)
        found["stream"] = await stream(guest, listening)
    found["dmesg"] = await complaints(guest)
    return found


async def _heard(guest: Guest, log: socket.socket, words: str) -> bool:
    """Whether netconsole brings a line of the kernel log that is written now."""
    await guest.run(f"echo {words} > /dev/kmsg")

    def listen() -> bool:
        deadline = time.monotonic() + 20
        while (left := deadline - time.monotonic()) > 0:
            log.settimeout(left)
            with contextlib.suppress(TimeoutError):
                if words.encode() in log.recv(2048):
                    return True
        return False

    return await asyncio.to_thread(listen)


SCENES = {"content": scene, "offline": offline, "suspend": suspend, "sleep": sleep}
Scene = Callable[[Guest], Awaitable[dict[str, Any]]]


async def main(kernel: str, play: Scene, model: str = "tg3", chipset: str = "pc") -> dict[str, Any]:
    testcase = Path(__file__).resolve().parents[2] / "testcases" / "crash" / "panic.yaml"
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Options(results=Path(folder), kernel=kernel), lambda text: print(text, file=sys.stderr))
        plan = load([testcase], bench.options)[0]
        plan = plan.model_copy(update={"machine": plan.machine.model_copy(update={"machine": chipset})})
        job = await asyncio.to_thread(bench.prepare, plan)
        bench.close()
        outputs: list[dict[str, Any]] = []
        observers = Observers(
            lambda *_: None,
            lambda *_: None,
            lambda kind, _t, keys: outputs.append(dict(keys)) if kind == "run" else None,
        )
        with clone_memory(job.template, shared=True) as (memory, inherit):
            argv = partial(clone_argv, job.ingredients, memory)
            async with Machine.start(argv, observers, Clock.start(), Path(folder) / "console", inherit) as machine:
                await restore(machine, job.template)
                return await plugged(machine, outputs, play, model, {"bus": BRIDGE} if chipset == "q35" else {})


async def plugged(
    machine: Machine, outputs: list[dict[str, Any]], play: Scene, model: str, place: Mapping[str, str]
) -> dict[str, Any]:
    driver = next(row.driver for row in MODELS.values() if row.ours == model)
    await machine.alive(machine.agent.synchronise(time.monotonic), 30, "the agent")
    tap = await asyncio.to_thread(open_tap, "tap0")
    await asyncio.to_thread(_give_address, "tap0")
    remarks: list[str] = []
    kinds: Counter[str] = Counter()

    def observe(event: dict[str, Any]) -> None:
        kinds[event["kind"]] += 1
        if event["kind"] == "remark":
            remarks.append(str(event))

    nic = ServedNic.start(tap, MAC, observe, model=model)
    try:
        await nic.ready()
        arguments = {"driver": "vfio-user-pci", "id": "nic", "socket": {"type": "unix", "path": nic.path}, **place}
        await machine.alive(machine.qmp.execute("device_add", arguments), 30, "device_add")
        await machine.alive(machine.agent.ask("nic_wait", {"id": "n0", "mac": MAC, "driver": driver}, 30), 40, driver)
        guest = Guest(machine, nic, outputs, kinds, driver)
        await guest.run(f"ip link set eth0 up; ip addr add {GUEST}/24 dev eth0")
        await guest.until("cat /sys/class/net/eth0/carrier", "1", 20)
        found = await play(guest)
        if model in UNPLUG_ENDS_QEMU:
            return {**found, "remarks": remarks}
        if place and play is sleep:
            await guest.run(f"python3 -c '{_MAP_PM.strip()}'")
        await machine.alive(machine.qmp.execute("device_del", {"id": "nic"}), 10, "device_del")
        await machine.qmp_event("DEVICE_DELETED", 30, "the NIC's end", lambda data: data.get("device") == "nic")
        return {**found, "remarks": remarks}
    finally:
        nic.close()


def _give_address(interface: str) -> None:
    with IPRoute() as netlink:
        netlink.addr("add", index=netlink.link_lookup(ifname=interface)[0], address=HOST, prefixlen=24)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], SCENES[sys.argv[2]], *sys.argv[3:]))))
