"""Poll-mode drivers and the NIC they take, in a real guest: whatever ends the taker the kernel's driver gets it back and works; what
cannot be is refused and undone; after a crash of the stack polling is all there is."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.observe.events import read_evidence
from harness.run import Bench, load

SCENES = Path(__file__).with_name("pmd_guest_scenes.py").read_text()
TESTCASE = """\
about: what happens to a NIC around a poll-mode driver
guest:
  nics:
    n0: {model: e1000}
    n1: {model: virtio-net}
endpoints:
  kernel: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: kernel}
timeout: 300
steps: STEPS
expect:
  - event: {name: SHUTDOWN}
"""


HEARD = {"wait": {"received": "log", "count": 1}}


def scene(name: str, *, behind: bool = False) -> dict[str, Any]:
    """A step that plays it; `behind`: its words go to a file, and the steps go on."""
    argv = ["python3", "-S", "-P", "-c", SCENES, name]
    if behind:
        argv = ["sh", "-c", '"$@" > /tmp/out 2>&1 & until [ -e /tmp/crashed ]; do sleep 0.05; done', "sh", *argv]
    return {"run": {"argv": argv, "within": 90}}


def play(bench: Bench, folder: Path, *steps: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What each command said, and all the evidence."""
    path = folder / "scene.yaml"
    path.write_text(TESTCASE.replace("STEPS", json.dumps(steps)))
    (plan,) = load([path], bench.options)
    verdict, evidence = bench.run(plan)
    records = list(read_evidence(evidence / "evidence.jsonl"))
    runs = [each for each in records if each["src"] == "guest" and each["kind"] == "run"]
    assert [each["rc"] for each in runs] == [0] * sum("run" in step for step in steps), (
        f"{verdict.why}\n{runs}\n{evidence}"
    )
    return [json.loads(each["out"]) if each["out"].strip() else {} for each in runs], records


@pytest.mark.guest
def test_the_kernel_gets_its_nic_back_whatever_ends_the_taker(bench: Bench, tmp_path: Path) -> None:
    (found, after), records = play(
        bench, tmp_path, scene("lives"), scene("after"), {"wait": {"console": "has it back"}}, HEARD
    )
    home = found["before"]
    assert home == {"driver": "e1000", "interfaces": ["eth0"], "override": "(null)", "hugepages": 0, "on file": 0}
    taken = {"driver": "uio_pci_generic", "interfaces": [], "override": "uio_pci_generic", "hugepages": 1, "on file": 1}
    assert found["in use"]["errno"] == errno.EBUSY
    assert "eth0 is up; `ip link set eth0 down` first" in found["in use"]["said"]
    assert found["in use"]["after"] == home
    assert found["taken"] == taken
    assert found["busy"]["errno"] == errno.EBUSY
    assert "is in use: process " in found["busy"]["said"]
    assert found["busy"]["after"] == taken
    for how in ("SIGTERM", "exit", "given back", "released"):
        assert found[how] == home, how
    assert found["SIGKILL"] == taken | {"master": False}, "no DMA into memory that is somebody else's"
    assert found["next taker"] == taken
    assert "its taker is gone" in found["list"]
    assert "given back to e1000" in found["release"]
    assert after == home
    heard = [each.get("text", "") for each in records if each["kind"] == "rx" and each.get("endpoint") == "log"]
    assert any("the kernel has it back" in text for text in heard), "netconsole, over the driver that was bound again"


REFUSALS = {
    "no such device": (errno.ENODEV, "no PCI device '0000:7f:1f.7'; there are: 0000:00:00.0"),
    "no driver": (errno.ENODEV, "there are drivers for 8086:100e, 14e4:169b"),
    "unexpected id": (errno.ENODEV, "not an 82540EM (8086:100e)"),
    "BAR too small": (errno.EINVAL, "BAR 0 has 0x20000 bytes, the driver needs 0x100000"),
    "BAR in ports": (errno.EINVAL, "BAR 1 is in I/O ports"),
    "no BAR": (errno.EINVAL, "BAR 3 is not there"),
    "out of reach": (errno.ERANGE, "beyond the 20 bits of address that the device has"),
    "too much": (errno.ENOMEM, "more than a hugepage"),
    "no hugepages": (errno.ENOMEM, "no hugepages for the rings: "),
}


@pytest.mark.guest
def test_what_cannot_be_is_refused_and_undone(bench: Bench, tmp_path: Path) -> None:
    (found,), _ = play(bench, tmp_path, scene("refusals"))
    assert found["before"]["driver"] == found["closed"]["driver"] == "e1000"
    assert found["other's driver"] == "virtio-pci"
    for name, (code, said) in REFUSALS.items():
        assert found[name]["errno"] == code, name
        assert said in found[name]["said"], name
    for name in ("no such device", "no driver", "unexpected id", "no hugepages"):
        assert found[name]["after"] == found["before"], name


@pytest.mark.guest
def test_after_a_crash_polling_is_all_there_is(bench: Bench, tmp_path: Path) -> None:
    steps = (
        scene("crashed", behind=True),
        {"inject": {"link": "n0", "state": "down"}},
        {"run": {"argv": ["sh", "-c", "until tail -n 1 /tmp/out | grep '^{'; do sleep 0.05; done"], "within": 40}},
    )
    (_, found), _ = play(bench, tmp_path, *steps)
    assert found["interrupts before"] != 0
    assert found["interrupts"] == found["interrupts after"] == 0, "IMS: never enabled again"
    assert found["sent"] == found["wanted"], "a full ring was cleaned by polling"
    assert min(found["polled"], found["stopped"]) >= 2
    assert found["carrier"] is False, "seen by polling"
    assert found["queue stopped"] is True
