"""Behind an IOMMU (q35 with intel-iommu): our driver takes its NIC by VFIO, sends and receives, and gives it back; the kernel's driver gets it
back from one that was killed, too; UIO is refused."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bench.tg3 import SILENT, Rig
from harness.case import Job
from harness.observe.events import Clock
from harness.run import Bench, load
from harness.testbed.machine import Machine
from harness.testbed.qemu import Channels
from harness.testbed.template import blank_memory, boot_argv

SCENES = Path(__file__).with_name("pmd_guest_scenes.py").read_text()
MEMORY = 512  # MiB
BOOT = 180.0  # seconds


def echo(sock: socket.socket) -> None:
    """Each UDP datagram goes back where it came from; sums of the same words do not change when these change places."""
    while True:
        try:
            frame, sender = sock.recvfrom(2048)
        except OSError:  # closed: the test is over
            return
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            back = (
                frame[6:12]
                + frame[:6]
                + frame[12:26]
                + frame[30:34]
                + frame[26:30]
                + frame[36:38]
                + frame[34:36]
                + frame[38:]
            )
            sock.sendto(back, sender)


async def play(job: Job, folder: Path) -> dict[str, Any]:
    """The scene, in a machine with an IOMMU that is booted for it."""
    plan = job.ingredients.machine
    cmdline = f"{plan.cmdline} intel_iommu=on"
    machine = plan.model_copy(update={"machine": "q35", "memory": MEMORY, "cmdline": cmdline})
    ingredients = replace(job.ingredients, machine=machine)
    with blank_memory(MEMORY) as (memory, inherit):

        def argv(channels: Channels) -> list[str]:
            return [*boot_argv(ingredients, memory, channels), "-device", "intel-iommu"]

        async with Machine.start(argv, SILENT, Clock.start(), folder / "console", inherit) as running:
            await running.alive(
                running.agent.synchronise(time.monotonic, BOOT), BOOT, "the agent of a guest that boots"
            )
            rig = Rig(running)
            ends = {end: {"type": "unix", "path": str(folder / end)} for end in ("local", "remote")}
            await running.qmp.execute("netdev_add", {"type": "dgram", "id": "net", **ends})
            nic = {
                "driver": "e1000",
                "id": "nic",
                "netdev": "net",
                "mac": "52:54:00:6e:70:01",
                "romfile": "",
                "bus": "pb0",
            }
            await running.qmp.execute("device_add", nic)
            asked = running.agent.ask("nic_wait", {"id": "n0", "mac": nic["mac"], "within": 60}, 65)
            await running.alive(asked, 70, "the NIC")
            found: dict[str, Any] = json.loads(await rig.run("python3", "-S", "-P", "-c", SCENES, "translated"))
            return found


@pytest.mark.guest
def test_vfio_where_an_iommu_is_in_the_way(bench: Bench, testcases: Path) -> None:
    job = bench.prepare(load([testcases / "send/datagrams-out.yaml"], bench.options)[0])
    with tempfile.TemporaryDirectory(prefix="pmd-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{folder}/remote")
        threading.Thread(target=echo, args=(sock,), daemon=True).start()
        found = asyncio.run(play(job, Path(folder)))
        sock.shutdown(socket.SHUT_RDWR)
    assert found["before"]["driver"] == "e1000"
    assert found["uio"]["errno"] == errno.EXDEV
    assert "an IOMMU translates its DMA" in found["uio"]["said"]
    assert found["uio"]["after"] == found["before"]
    assert found["taken"]["driver"] == "vfio-pci"
    assert found["out of reach"]["errno"] == errno.ERANGE
    assert found["echoed"], "300 messages, each back once and in order"
    assert found["closed"] == found["before"]
    assert found["SIGKILL"] == found["taken"] | {"master": False}, "VFIO resets what nobody has open any more"
    assert found["next taker"] == found["taken"]
    assert "its taker is gone" in found["list"]
    assert "given back to e1000" in found["release"]
    for how in ("given back", "released"):
        assert found[how] == found["before"], how
