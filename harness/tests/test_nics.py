"""The table of NIC models: each variant's device_add, and on real guests that a variant and a device property are what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.nic.e1000.chip import FAULTS as e1000_faults
from harness.nic.faults import NAMES as tg3_faults
from harness.nic.models import MODELS as SERVED
from harness.nic.virtio_net.device import FAULTS as virtio_faults
from harness.observe.events import read_evidence
from harness.plan.compile import compile_plan
from harness.plan.model import Plan, Qmp
from harness.plan.nics import DRIVERS, FAULTS, MODELS
from harness.run import Bench
from harness.scenario.errors import ScenarioErrors
from harness.scenario.load import load

CASE = """
about: a NIC with device properties, and one command in the guest
guest:
  machine: {machine}
  nics:
    n0: {{model: {model}, properties: {properties}}}
endpoints:
  netconsole: {{at: guest, stack: kernel, device: n0, peer: log}}
  log: {{at: host, stack: netpoll, device: n0, peer: netconsole}}
steps:
  - run: {{argv: [sh, -c, {command!r}], may_fail: true}}
  - send: {{from: netconsole, count: 5}}
expect:
  - delivered: {{from: netconsole, to: log, at_least_sent: 5}}
"""


def plan_of(
    folder: Path, model: str, properties: dict[str, Any] | None = None, machine: str = "pc", command: str = "true"
) -> Plan:
    file = folder / "case.yaml"
    text = CASE.format(machine=machine, model=model, properties=json.dumps(properties or {}), command=command)
    file.write_text(text)
    (scenario,) = load(file)
    return compile_plan(scenario, f"{file}:1")


def plugged(plan: Plan) -> list[dict[str, Any]]:
    return [
        action.arguments
        for stage in plan.stages
        for action in stage.actions
        if isinstance(action, Qmp) and action.execute == "device_add"
    ]


VARIANTS: dict[str, dict[str, Any]] = {
    "virtio-net": {},
    "virtio-net-legacy": {"disable-legacy": "off", "disable-modern": True},
    "virtio-net-modern": {"disable-legacy": "on"},
    "virtio-net-packed": {"disable-legacy": "on", "packed": True},
}


@pytest.mark.parametrize(("model", "properties"), VARIANTS.items(), ids=VARIANTS)
def test_a_variant_is_a_device_with_properties(tmp_path: Path, model: str, properties: dict[str, Any]) -> None:
    (device,) = plugged(plan_of(tmp_path, model))
    fixed = {"driver", "id", "netdev", "mac", "romfile"}
    assert device["driver"] == "virtio-net-pci"
    assert {key: value for key, value in device.items() if key not in fixed} == properties


def test_the_authors_word_on_a_property_counts_most(tmp_path: Path) -> None:
    (device,) = plugged(plan_of(tmp_path, "virtio-net-packed", {"packed": False, "speed": 1000}))
    assert (device["packed"], device["speed"], device["disable-legacy"]) == (False, 1000, "on")


@pytest.mark.parametrize(("machine", "bus"), [("pc", None), ("q35", "rp0")])
def test_a_usb_nic_brings_its_controller(tmp_path: Path, machine: str, bus: str | None) -> None:
    controller, nic = plugged(plan_of(tmp_path, "usb-net", machine=machine))
    assert controller == {"driver": "qemu-xhci", "id": "usb-n0", **({"bus": bus} if bus else {})}
    assert (nic["driver"], nic["bus"], nic["id"]) == ("usb-net", "usb-n0.0", "nic-n0")
    assert "romfile" not in nic, "a USB device has no option ROM"


def test_every_driver_is_loaded_once_with_the_template() -> None:
    assert len(DRIVERS) == len(set(DRIVERS))
    assert {model.driver for model in MODELS.values()} < set(DRIVERS)
    assert "xhci_pci" in DRIVERS


def ran(folder: Path) -> str:
    """What the case's command printed."""
    (event,) = [
        each for each in read_evidence(folder / "evidence.jsonl") if (each["src"], each["kind"]) == ("guest", "run")
    ]
    return str(event["out"])


VIRTIO_F_VERSION_1, VIRTIO_F_RING_PACKED = 32, 34  # virtio 1.2, section 6
FEATURES = {
    "virtio-net-legacy": (False, False),
    "virtio-net-modern": (True, False),
    "virtio-net-packed": (True, True),
}


@pytest.mark.guest
@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize(("model", "wanted"), FEATURES.items(), ids=FEATURES)
def test_the_guest_negotiates_the_variant(
    bench: Bench, tmp_path: Path, model: str, wanted: tuple[bool, bool], machine: str
) -> None:
    plan = plan_of(tmp_path, model, machine=machine, command="cat /sys/class/net/eth0/device/features")
    verdict, folder = bench.run(plan)
    assert verdict.word == "PASS", verdict.why
    bits = ran(folder)
    assert (bits[VIRTIO_F_VERSION_1] == "1", bits[VIRTIO_F_RING_PACKED] == "1") == wanted


PROPERTIES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "virtio-rings": ("virtio-net", {"rx_queue_size": 512},
        "ethtool -g eth0 | sed -n '/Current/,$p' | grep -E '^(RX|TX):' | tr -s '\\t\\n' ' '", "RX: 512 TX: 256"),
    "virtio-packed": ("virtio-net", {"packed": True}, "cut -c35 /sys/class/net/eth0/device/features", "1"),
    "virtio-speed": ("virtio-net", {"speed": 2500, "duplex": "full"}, "cat /sys/class/net/eth0/speed", "2500"),
    "pci-slot": ("e1000", {"addr": "0x11"}, "basename $(readlink /sys/class/net/eth0/device)", "0000:00:11.0"),
    "e1000e-subsystem": ("e1000e", {"subsys": 4660}, "cat /sys/class/net/eth0/device/subsystem_device", "0x1234"),
}  # fmt: skip


@pytest.mark.guest
@pytest.mark.parametrize(("model", "properties", "command", "seen"), PROPERTIES.values(), ids=PROPERTIES)
def test_a_device_property_reaches_the_guest(
    bench: Bench, tmp_path: Path, model: str, properties: dict[str, Any], command: str, seen: str
) -> None:
    verdict, folder = bench.run(plan_of(tmp_path, model, properties, command=command))
    assert verdict.word == "PASS", verdict.why
    assert ran(folder).strip() == seen


@pytest.mark.guest
@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"x-no-such-thing": True}, "Property 'e1000.x-no-such-thing' not found"),
        ({"addr": "nowhere"}, "addr"),
        ({"mitigation": "on please"}, "mitigation"),
    ],
    ids=["unknown", "bad-value", "wrong-type"],
)
def test_a_bad_property_is_refused_in_qemus_own_words(
    bench: Bench, tmp_path: Path, properties: dict[str, Any], said: str
) -> None:
    verdict, _ = bench.run(plan_of(tmp_path, "e1000", properties))
    assert verdict.word == "ERROR"
    assert "QEMU refused" in verdict.why
    assert said in verdict.why


def test_the_faults_that_the_loader_knows_are_those_of_the_models() -> None:
    aside = {"silent-link", "spurious-interrupt"}  # a silent plug, and an interrupt at once
    assert {model: set(names) - aside for model, names in FAULTS.items()} == {
        "tg3": set(tg3_faults),
        "e1000": set(e1000_faults),
        "virtio-net": set(virtio_faults),
    }
    assert set(FAULTS) == set(SERVED)


def test_a_fault_that_a_model_does_not_have_is_refused_when_loaded(tmp_path: Path) -> None:
    file = tmp_path / "case.yaml"
    text = CASE.format(machine="pc", model="our-virtio-net", properties="{}", command="true")
    file.write_text(text.replace("steps:\n", "steps:\n  - fault: {nic: n0, begin: stale-status}\n"))
    with pytest.raises(ScenarioErrors, match=r"our-virtio-net has no fault 'stale-status'; it has no-interrupts"):
        load(file)
