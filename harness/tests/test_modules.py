"""Module parameters in testcases: read back on real guests, and refused with the reason where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.observe.events import read_evidence
from harness.plan.compile import compile_plan
from harness.plan.model import AddTap, Ask, Plan
from harness.run import Bench
from harness.scenario.errors import ScenarioErrors
from harness.scenario.load import load

CASE = """
about: a guest with modules that were loaded anew, and one command in it
guest:
  modules: {modules}
  nics:
    n0: {{model: {model}}}
endpoints:
  netconsole: {{at: guest, stack: kernel, device: n0, peer: log}}
  log: {{at: host, stack: netpoll, device: n0, peer: netconsole}}
steps:
  - run: {{argv: [sh, -c, {command!r}]}}
  - send: {{from: netconsole, count: 5}}
expect:
  - delivered: {{from: netconsole, to: log, at_least_sent: 5}}
"""


def plan_of(folder: Path, modules: dict[str, Any], model: str = "virtio-net", command: str = "true") -> Plan:
    file = folder / "case.yaml"
    file.write_text(CASE.format(modules=json.dumps(modules), model=model, command=command))
    (scenario,) = load(file)
    return compile_plan(scenario, f"{file}:1")


def test_modules_are_loaded_before_any_nic_is_there(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"e1000": {"TxDescriptors": 80}, "bonding": {"max_bonds": 0}}, "e1000")
    first, second, third, *_ = plan.stages[0].actions
    assert first == Ask(op="module", args={"name": "e1000", "parameters": {"TxDescriptors": 80}})
    assert second == Ask(op="module", args={"name": "bonding", "parameters": {"max_bonds": 0}})
    assert isinstance(third, AddTap)


BAD = {
    "a-path": '"../evil": {a: 1}',
    "no-mapping": "e1000: 80",
    "a-list": "e1000: {TxDescriptors: [80, 80]}",
}


@pytest.mark.parametrize("entry", BAD.values(), ids=BAD)
def test_what_is_no_module_is_refused_with_its_place(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(CASE.format(modules="{" + entry + "}", model="e1000", command="true"))
    with pytest.raises(ScenarioErrors, match=rf"{file}:4:\d+: "):
        load(file)


RING = "ethtool -g eth0 | sed -n '/Current/,$p' | grep ^TX: | tr -dc 0-9"
READ_BACK: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "e1000-ring": ({"e1000": {"TxDescriptors": 80}}, "e1000", RING, "80"),
    "e1000-default": ({}, "e1000", RING, "256"),
    "bonds": ({"bonding": {"max_bonds": 2}}, "virtio-net", "cat /sys/class/net/bonding_masters", "bond0 bond1"),
    "a-bool": ({"virtio_net": {"napi_tx": False}}, "virtio-net", "cat /sys/module/virtio_net/parameters/napi_tx", "N"),
    "a-dash-in-the-name": ({"ne2k-pci": {"full_duplex": 1}}, "ne2k_pci", "lsmod | grep -c ^ne2k_pci", "1"),
}  # fmt: skip


@pytest.mark.guest
@pytest.mark.parametrize(("modules", "model", "command", "seen"), READ_BACK.values(), ids=READ_BACK)
def test_a_parameter_is_in_force(
    bench: Bench, tmp_path: Path, modules: dict[str, Any], model: str, command: str, seen: str
) -> None:
    verdict, folder = bench.run(plan_of(tmp_path, modules, model, command))
    assert verdict.word == "PASS", verdict.why
    (told,) = [e for e in read_evidence(folder / "evidence.jsonl") if (e["src"], e["kind"]) == ("guest", "run")]
    assert told["out"].strip() == seen


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-parameter": ({"e1000": {"TxDescriptor": 80}}, "module e1000 has no parameter 'TxDescriptor'; did you mean TxDescriptors?"),
    "parameterless": ({"mii": {"colour": 1}}, "module mii has no parameter 'colour'; there are: none"),
    "unknown-module": ({"e1001": {"TxDescriptors": 80}}, "e1001 not found"),
    "in-use": ({"usbcore": {"nousb": True}}, "usbcore is in use"),
    "ours": ({"virtio-pci": {"force_legacy": True}}, "module virtio-pci carries the control channel"),
    "bad-value": ({"bonding": {"mode": "no-such-mode"}}, "could not insert 'bonding'"),
    "built-in": ({"firmware_class": {"path": "/tmp"}}, "firmware_class is built into this kernel"),
}  # fmt: skip


@pytest.mark.guest
@pytest.mark.parametrize(("modules", "said"), REFUSED.values(), ids=REFUSED)
def test_a_module_that_cannot_be_had_so_is_an_error_with_the_reason(
    bench: Bench, tmp_path: Path, modules: dict[str, Any], said: str
) -> None:
    verdict, _ = bench.run(plan_of(tmp_path, modules))
    assert verdict.word == "ERROR"
    assert said.lower() in verdict.why.lower()
