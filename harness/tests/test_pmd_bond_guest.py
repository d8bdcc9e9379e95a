"""A bond of ours over two NICs of our own drivers, in a real guest, with Linux' bonding driver at the other ends of its cables: each mode with
the one that bonding.rst asks of a switch, 802.3ad with Linux' LACP."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from guest.netpoll.bonding import Mode, partner_mode
from harness.bench.tg3 import Rig, machine_of
from harness.case import Job
from harness.run import Bench, load

SCENES = Path(__file__).with_name("pmd_guest_scenes.py").read_text()
MODES = [mode.value for mode in Mode]
FASTER = {"speed": 1000, "duplex": "full"}  # what LACP needs to know of virtio-net
NICS: list[tuple[str, dict[str, Any], str]] = [
    ("e1000", {}, "n2"), ("e1000", {}, "n3"), ("virtio-net-pci", FASTER, "n0"), ("virtio-net-pci", FASTER, "n1"),
]  # fmt: skip  # model, properties, which NIC is at the other end of its cable


async def _plug(rig: Rig, folder: Path) -> None:
    """Four NICs, joined two and two by QEMU's own datagram wires: nothing of the host's network is needed."""
    for number, (model, properties, other) in enumerate(NICS):
        ends = {
            end: {"type": "unix", "path": str(folder / name)}
            for end, name in (("local", f"n{number}"), ("remote", other))
        }
        await rig.machine.qmp.execute("netdev_add", {"type": "dgram", "id": f"net{number}", **ends})
        mac = f"52:54:00:6e:70:{number + 1:02x}"
        device = {
            "driver": model,
            "id": f"nic{number}",
            "netdev": f"net{number}",
            "mac": mac,
            "romfile": "",
            **properties,
        }
        await rig.machine.qmp.execute("device_add", device)
        asked = rig.machine.agent.ask("nic_wait", {"id": f"n{number}", "mac": mac, "within": 30}, 35)
        known = await rig.machine.alive(asked, 40, f"NIC {number}")
        assert known["ifname"] == f"eth{number}"


async def play(job: Job, folder: Path, mode: str) -> dict[str, Any]:
    async with machine_of(job, cold=False) as machine:
        await machine.alive(machine.agent.synchronise(time.monotonic), 30, "the agent")
        rig = Rig(machine)
        await _plug(rig, folder)
        said = await rig.run("python3", "-S", "-P", "-c", SCENES, "bonded", mode, partner_mode(mode))
        found: dict[str, Any] = json.loads(said)
        return found


@pytest.fixture(scope="module")
def job(bench: Bench, testcases: Path) -> Job:
    plans = load([testcases / "send/datagrams-out.yaml"], bench.options)
    return bench.prepare(plans[0])


@pytest.mark.guest
@pytest.mark.parametrize("mode", MODES)
def test_linux_bond_is_the_other_end(job: Job, mode: str) -> None:
    with tempfile.TemporaryDirectory(prefix="pmd-") as folder:  # short: it holds sockets
        found = asyncio.run(play(job, Path(folder), mode))
    assert found["echoed"], f"200 messages, each back once and in order: {found}"
    assert found["twice"] == 0
    if mode == "802.3ad":
        assert "Number of ports: 2" in found["linux"]
        assert f"Partner Mac Address: {found['mac']}" in found["linux"]
    if mode in ("balance-rr", "broadcast"):
        assert min(found["sent"]) >= 90, "both of our slaves carry frames"
