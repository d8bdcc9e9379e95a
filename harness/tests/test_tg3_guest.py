"""Linux' unmodified tg3 on our model, in real guests: it binds, says nothing bad, carries TCP byte-exact with and without
segmentation offload, survives a link flap and being loaded again, and can be unplugged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import images
from harness.plan.model import Plan
from harness.run import Bench, load

LONG = ("debian-5.10", "debian-backports")  # the rest in each gate
KERNELS = ["debian-6.1", "debian-6.12", *(pytest.param(name, marks=pytest.mark.long) for name in LONG)]


def played(kernel: str, scene: str, model: str = "tg3", chipset: str = "pc") -> dict[str, Any]:
    """What a scene of harness.tests.served_guest found."""
    builder = images.Builder()  # here, where there is a network
    images.ensure_qemu(builder)
    images.ensure_guest(images.ensure_kernel(kernel, builder), builder)
    own_network = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*own_network, sys.executable, "-m", "harness.tests.served_guest", kernel, scene, model, chipset]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert not [remark for remark in found["remarks"] if "defect" in remark or "violation" in remark]
    return found


@pytest.mark.guest
@pytest.mark.netns
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernels_own_driver_is_content(kernel: str) -> None:
    found = played(kernel, "content")
    assert found["dmesg"] == "", "no complaint of the kernel"
    assert "MSI" in found["interrupt"]
    for tso in ("tso on", "tso off"):
        assert found[tso] == {"out": True, "in": True}, tso
    assert "PASS" in found["self-test"]


@pytest.mark.guest
@pytest.mark.netns
@pytest.mark.long
def test_the_driver_tests_the_whole_chip_and_finds_no_fault() -> None:
    """Long: 280,000 register accesses."""
    said = played("debian-6.1", "offline")["self-test"]
    results = [
        int(line.split()[-1])
        for line in said.splitlines()
        if re.search(r"test|status", line) and line.split()[-1].isdigit()
    ]
    assert "result is PASS" in said, said
    assert len(results) == 9, said
    assert not any(results), said


@pytest.mark.guest
@pytest.mark.netns
@pytest.mark.long
def test_the_driver_suspends_and_resumes_the_chip() -> None:
    found = played("debian-6.1", "suspend")
    for state in ("freeze", "mem"):
        assert found[state] == "woken\n"
        assert found[f"{state} ends"] == 1, "the kernel says that it slept"
        assert found[f"resets by {state}"] >= 2, "tg3_suspend() halts the chip, tg3_resume() starts it"
        assert found[f"stream after {state}"] == {"out": True, "in": True}
    assert found["dmesg"] == "", "no complaint of the kernel"


@pytest.mark.guest
@pytest.mark.netns
@pytest.mark.parametrize("chipset", ["pc", pytest.param("q35", marks=pytest.mark.long)])
def test_the_machine_sleeps_and_wakes_with_the_chip(chipset: str) -> None:
    found = played("debian-6.1", "sleep", chipset=chipset)  # and unplugged afterwards
    assert "[deep]" in found["states"]
    assert found["mem"] == "woken\n"
    assert found["resets"] >= 2, "tg3_suspend() halts the chip, tg3_resume() starts it"
    assert found["said before"]
    assert found["said after"], "netconsole speaks again"
    assert found["stream"] == {"out": True, "in": True}
    assert found["dmesg"] == "", "no complaint of the kernel"
    if chipset == "q35":
        assert found["pm base"].split() == ["01", "00", "00", "00", "00"], (
            "SeaBIOS restores it by now? docs/findings.md"
        )


@pytest.mark.guest
@pytest.mark.netns
def test_a_qemu_that_lacks_the_device_makes_the_case_inconclusive(bench: Bench, testcases: Path) -> None:
    """As QEMU before 10.1 does, this one refuses a device that it does not have."""
    plan = load([testcases / "tg3" / "receives.yaml"], bench.options)[0]
    said = plan.model_dump_json(by_alias=True).replace('"driver":"vfio-user-pci"', '"driver":"vfio-user-of-old"')
    verdict, _ = bench.run(Plan.model_validate_json(said))
    assert verdict.word == "INCONCLUSIVE"
    assert "no vfio-user-pci" in verdict.why
