"""A kernel that lacks what a case needs: named option by option before anything is started, and not blamed where nobody knows."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import images
from harness.plan.compile import compile_plan
from harness.plan.model import Plan
from harness.plan.nics import MODELS
from harness.run import Bench
from harness.scenario.load import load
from harness.testbed.config import DRIVER_OPTIONS, IKCONFIG, KernelLacks, embedded, missing, parse, read_config, require

CASE = """
about: a case that needs a good deal of its kernel
guest:
  nics:
    n0: {model: igb}
    n1: {model: usb-net}
  bonds:
    bond0: {mode: active-backup, slaves: [n0]}
endpoints:
  netconsole: {at: guest, stack: kernel, device: bond0, peer: log}
  log: {at: host, stack: netpoll, device: bond0, peer: netconsole}
  sender: {at: guest, stack: netpoll, device: n1, peer: sink}
  sink: {at: host, stack: netpoll, device: n1, peer: sender}
steps:
  - send: {from: sender, count: 1}
  - crash: {how: sysrq-c}
expect:
  - parity: {to: log}
  - event: {name: GUEST_PANICKED}
"""
FULL = """
# CONFIG_SOMETHING is not set
CONFIG_PVH=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_VIRTIO_PCI=m
CONFIG_VIRTIO_CONSOLE=m
CONFIG_HOTPLUG_PCI_ACPI=y
CONFIG_NETCONSOLE=m
CONFIG_NETCONSOLE_DYNAMIC=y
CONFIG_PACKET=y
CONFIG_BONDING=m
CONFIG_MAGIC_SYSRQ=y
CONFIG_PVPANIC=y
CONFIG_PVPANIC_PCI=m
CONFIG_IGB=m
CONFIG_USB_NET_CDCETHER=m
CONFIG_USB_XHCI_PCI=m
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "case.yaml"
    file.write_text(CASE)
    (scenario,) = load(file)
    return compile_plan(scenario, f"{file}:1")


def test_nothing_is_missing_of_a_kernel_that_has_all(plan: Plan) -> None:
    assert missing(plan, parse(FULL), modules=True) == ()


ABSENT = [line[7:].partition("=")[0] for line in FULL.splitlines() if line.startswith("CONFIG_")]


@pytest.mark.parametrize("option", [each for each in ABSENT if not each.startswith("PVPANIC")])
def test_each_option_is_asked_for(plan: Plan, option: str) -> None:
    config = parse(re.sub(rf"CONFIG_{option}=.\n", f"# CONFIG_{option} is not set\n", FULL))
    (lack,) = missing(plan, config, modules=True)
    assert lack.options == (option,)
    assert lack.why
    assert not lack.module


def test_any_driver_of_a_pvpanic_will_do(plan: Plan) -> None:
    none = re.sub(r"CONFIG_PVPANIC.*\n", "", FULL)
    assert missing(plan, parse(none + "CONFIG_PVPANIC=m\n"), True) == (), (
        "before Linux 5.13 that was the ISA device's driver"
    )
    assert missing(plan, parse(none + "CONFIG_PVPANIC_MMIO=m\n"), True) == ()
    (lack,) = missing(plan, parse(none), True)
    assert lack.options == ("PVPANIC_PCI", "PVPANIC_MMIO", "PVPANIC")


def test_modules_that_are_not_at_hand_are_missing(plan: Plan) -> None:
    lacks = missing(plan, parse(FULL.replace("CONFIG_PVPANIC=y\n", "")), modules=False)
    assert {lack.options[0] for lack in lacks} == {
        "VIRTIO_PCI", "VIRTIO_CONSOLE", "NETCONSOLE", "BONDING", "PVPANIC_PCI", "IGB", "USB_NET_CDCETHER", "USB_XHCI_PCI"
    }  # fmt: skip
    assert all(lack.module for lack in lacks)


def test_what_must_be_inside_may_be_no_module(plan: Plan) -> None:
    (lack,) = missing(plan, parse(FULL.replace("CONFIG_TMPFS=y", "CONFIG_TMPFS=m")), modules=True)
    assert (lack.options, lack.module) == (("TMPFS",), True)


def test_what_no_step_needs_is_not_asked_for() -> None:
    file = Path(__file__).resolve().parents[2] / "testcases" / "send" / "datagrams-out.yaml"
    plan = next(compile_plan(case, "") for case in load(file) if case.params["nic"] == "virtio-net")
    lean = re.sub(r"CONFIG_(NETCONSOLE.*|BONDING|MAGIC_SYSRQ|PVPANIC.*|IGB|USB_.*)=.\n", "", FULL)
    assert [lack.options for lack in missing(plan, parse(lean), True)] == [("VIRTIO_NET",)]


def test_every_model_has_its_drivers_options() -> None:
    assert DRIVER_OPTIONS.keys() == {model.driver for model in MODELS.values()}


def test_all_that_is_missing_is_said_at_once(plan: Plan) -> None:
    config = parse(FULL.replace("CONFIG_IGB=m\n", "").replace("CONFIG_BONDING=m\n", ""))
    other = plan.model_copy(update={"case": "another"})
    with pytest.raises(KernelLacks) as lacks:
        require([plan, other], "bzImage (Linux 6.9.0)", config, modules=True)
    said = str(lacks.value).splitlines()
    assert said == [
        "kernel bzImage (Linux 6.9.0) lacks what these cases need:",
        f"  CONFIG_BONDING: the testcase has a bond; needed by {plan.case} and 1 more",
        f"  CONFIG_IGB: the driver igb; needed by {plan.case} and 1 more",
        "  -> scripts/config -e BONDING -e IGB && make olddefconfig, and build again; or leave these cases out: -k",
    ]


def test_modules_are_asked_for_by_their_option(plan: Plan) -> None:
    with pytest.raises(KernelLacks, match=r"CONFIG_IGB \(a module here\)") as lacks:
        require([plan], "bzImage", parse(FULL), modules=False)
    assert "--modules DIR" in str(lacks.value)


def test_an_unknown_configuration_is_no_reproach(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF without anything")
    config = read_config(None, tmp_path / "vmlinux")
    assert config is None
    require([plan], "bzImage", config, modules=True)


def test_a_configuration_in_the_image_is_found(tmp_path: Path) -> None:
    packed = gzip.compress(FULL.encode())
    image = b"\x7fELF" + bytes(100) + IKCONFIG + packed + b"IKCFG_ED" + bytes(100)
    assert embedded(image) == parse(FULL)
    assert embedded(image.replace(packed[:20], bytes(20))) is None, "damaged"
    (tmp_path / "config").write_text("CONFIG_PVH=y\n")
    (tmp_path / "vmlinux").write_bytes(image)
    assert read_config(tmp_path / "config", tmp_path / "vmlinux") == {"PVH": "y"}, "the file comes first"
    assert read_config(None, tmp_path / "vmlinux") == parse(FULL)


@pytest.mark.guest
def test_the_command_line_says_so_before_anything_is_started(bench: Bench, testcases: Path, tmp_path: Path) -> None:
    """Debian's own kernel as one of the user's, whose configuration was edited."""
    kernel = bench.kernel(images.DEFAULT_KERNEL)
    assert kernel.config is not None
    shutil.copy(kernel.bzimage, tmp_path / "bzImage")
    edited = re.sub(r"(?m)^CONFIG_(E1000|NETCONSOLE_DYNAMIC)=.*\n", "", kernel.config.read_text())
    (tmp_path / "config").write_text(edited)
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "run",
        testcases / "crash" / "panic.yaml",
        "--kernel",
        tmp_path / "bzImage",
    ]
    command += ["--modules", kernel.modules or "", "--results", tmp_path / "r"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert (
        "CONFIG_NETCONSOLE_DYNAMIC: netconsole's targets are made through configfs; needed by crash/panic["
        in done.stderr
    )
    assert "CONFIG_E1000: the driver e1000" in done.stderr
    assert not (tmp_path / "r").exists()
    assert "booting" not in done.stderr

    fine = re.sub(r"(?m)^CONFIG_E1000=.*\n", "", kernel.config.read_text())
    (tmp_path / "config").write_text(fine)
    command += ["-k", "virtio", "--collect-only"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, "what is not selected needs nothing: " + done.stderr
