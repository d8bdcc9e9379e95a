"""`--nic MODEL`: every case on one model, each once, and what cannot be put there is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.model import Qmp
from harness.run import Options, load
from harness.scenario.load import load_tree
from harness.scenario.on_nic import on_nic

CASE = """
about: two NICs of two models, one with properties
matrix:
  nic: [e1000, virtio-net]
guest:
  nics:
    n0: {model: "${nic}"}
    n1: {model: virtio-net, properties: {speed: 1000}}
endpoints:
  netconsole: {at: guest, stack: kernel, device: n0, peer: log}
  log: {at: host, stack: netpoll, device: n0, peer: netconsole}
steps:
  - crash: {how: sysrq-c}
expect:
  - parity: {to: log}
known_bugs:
  - when: {nic: virtio-net}
    verdict: FAIL
    checks: [parity]
    reason: stated by a test to see whose bug it is
"""
LACP = (
    Path(__file__).resolve().parents[2] / "testcases/bonding/lacp.yaml"
)  # n0 is a virtio-net that is told its speed, n1 an e1000
TOLD = {"speed": 1000, "duplex": "full"}
PARAMETERS = CASE.replace("guest:\n", "guest:\n  modules: {e1000: {TxDescriptors: 80}}\n", 1)


def case(folder: Path, text: str) -> Path:
    path = folder / "testcases" / "two.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_each_case_once_with_all_nics_of_that_model(tmp_path: Path) -> None:
    kept, reasons = on_nic(load_tree([case(tmp_path, CASE)]), "tg3")
    assert [one.scenario.case for one in kept] == ["two[nic=tg3]"]
    assert {nic.model for nic in kept[0].scenario.guest.nics.values()} == {"tg3"}
    assert kept[0].scenario.guest.nics["n1"].properties == {}, "they are of another device"
    assert reasons == {}


def test_a_model_that_was_named_keeps_its_properties(tmp_path: Path) -> None:
    kept, _ = on_nic(load_tree([case(tmp_path, CASE)]), "virtio-net")
    assert kept[0].scenario.guest.nics["n1"].properties == {"speed": 1000}


@pytest.mark.parametrize(("nic", "known"), [("virtio-net", True), ("tg3", False)])
def test_known_bugs_are_those_of_the_model_that_runs(tmp_path: Path, nic: str, known: bool) -> None:
    (plan,) = load([case(tmp_path, CASE)], Options(results=tmp_path, nic=nic))
    assert (plan.known_bug is not None) == known
    assert plan.options == ("--nic", nic), "so that the command that repeats the case says it, too"


@pytest.mark.parametrize(("nic", "kept"), [("e1000", 1), ("e1000-82545em", 1), ("tg3", 0)])
def test_parameters_of_a_driver_stay_with_it(tmp_path: Path, nic: str, kept: int) -> None:
    cases, reasons = on_nic(load_tree([case(tmp_path, PARAMETERS.replace("virtio-net", "e1000e"))]), nic)
    assert len(cases) == kept
    assert reasons == ({} if kept else {"two[nic=tg3]": "it sets parameters of e1000"})


def test_jumbo_frames_are_left_out_for_a_model_without_them(testcases: Path) -> None:
    kept, reasons = on_nic(load_tree([testcases / "poll" / "ring-runs-out.yaml"]), "tg3")
    assert kept == []
    assert reasons == {"poll/ring-runs-out[nic=tg3]": "tg3 has no MTU of 9000"}


@pytest.mark.parametrize(("model", "kept"), [("rtl8139", 0), ("pcnet", 1), ("tulip", 0), ("usb-net", 0), ("e1000e", 1)])
def test_rings_of_a_size_of_their_own_are_left_out_for_a_driver_that_sets_none(
    model: str, kept: int, testcases: Path
) -> None:
    cases, reasons = on_nic(load_tree([testcases / "poll" / "task-list-by-sysrq.yaml"]), model)
    assert len(cases) == kept
    assert all("has no ring sizes to set" in why for why in reasons.values())


def test_bond_modes_that_a_driver_is_of_no_use_in_are_left_out(testcases: Path) -> None:
    kept, reasons = on_nic(load_tree([testcases / "bonding" / "modes.yaml"]), "pcnet")
    assert len(kept) == 5
    assert reasons == {
        "bonding/modes[nic=pcnet,mode=balance-alb]": "pcnet takes no other MAC while it is up, as balance-alb asks it to"
    }
    kept, reasons = on_nic(load_tree([testcases / "bonding" / "lacp.yaml"]), "pcnet")
    assert not kept
    assert all("tells no speed and full duplex" in why for why in reasons.values())


def test_what_a_model_cannot_do_is_left_out_with_the_reason(testcases: Path) -> None:
    said: list[str] = []
    load([testcases / "drop", testcases / "tg3"], Options(results=Path(), nic="i82559er"), said.append)
    assert any("does not follow set_link" in line for line in said)
    assert any("takes no faults" in line for line in said)


def test_the_catalogue_fits_tg3(testcases: Path) -> None:
    cases, reasons = on_nic(load_tree([testcases]), "tg3")
    assert len(cases) > 60
    assert set(reasons.values()) <= {
        "it sets parameters of e1000",
        "it sets parameters of e100",
        "tg3 has no MTU of 9000",
        "tg3 is a model of ours, which loses what nobody reads",
    }


@pytest.mark.parametrize(
    ("model", "n0", "n1"),
    [
        ("virtio-net-packed", TOLD, TOLD),
        ("virtio-net", TOLD, TOLD),
        ("e1000e", {}, {}),
        ("e1000", {}, {}),
    ],
)
def test_properties_of_a_replaced_nic(model: str, n0: dict[str, object], n1: dict[str, object]) -> None:
    kept, left_out = on_nic(load_tree([LACP]), model)
    assert kept
    assert not left_out
    for loaded in kept:
        nics = loaded.scenario.guest.nics
        assert {name: nic.model for name, nic in nics.items()} == {"n0": model, "n1": model}
        assert (nics["n0"].properties, nics["n1"].properties) == (n0, n1)


def test_a_usb_nic_that_is_put_back_finds_its_controller() -> None:
    again = LACP.parents[1] / "netconsole/comes-back.yaml"
    for plan in load([again], Options(results=Path(), wires="tap", nic="usb-net")):
        actions = [action for stage in plan.stages for action in stage.actions if isinstance(action, Qmp)]
        plugged = [action.arguments["driver"] for action in actions if action.execute == "device_add"]
        assert plugged == ["qemu-xhci", "usb-net", "usb-net"]
