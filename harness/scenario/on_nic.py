"""`--nic MODEL`: the catalogue on one NIC, whatever models the testcases name.

In: loaded scenarios and a model. Out: those scenarios with every NIC of that model, and for the others why they cannot be. Rule: what a
testcase says of one model in particular is not carried over to another: device properties are dropped, and a case that is about a
driver's module parameters, one model's faults or rings of a size of its own is left out where the model has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.plan.nics import DRIVERS, MODELS
from harness.scenario.checks import check
from harness.scenario.load import Loaded
from harness.scenario.model import Nic, Scenario

VIRTIO = "virtio-net-pci"
SPEED: Mapping[str, str | int] = {"speed": 1000, "duplex": "full"}
RESIZES = ("ethtool", "-G")
AXIS = "nic"  # the name the model has in the case's name when no axis of its own gave it


def on_nic(loaded: Sequence[Loaded], model: str) -> tuple[list[Loaded], dict[str, str]]:
    """(cases, each once; by case why it is left out)."""
    kept: dict[str, Loaded] = {}
    left_out: dict[str, str] = {}
    for one in loaded:
        scenario = _replaced(one.scenario, model)
        why = _particular(one.scenario, model) or next((message.what for message in check(scenario)), "")
        if why:
            left_out[scenario.case] = why
        else:
            kept.setdefault(scenario.case, replace(one, scenario=scenario))
    return list(kept.values()), {case: why for case, why in left_out.items() if case not in kept}


def _replaced(scenario: Scenario, model: str) -> Scenario:
    nics = {name: _as(nic, model) for name, nic in scenario.guest.nics.items()}
    params = {axis: model if value in MODELS else value for axis, value in scenario.params.items()}
    if nics and model not in params.values():
        params = {AXIS: model, **params}
    guest = scenario.guest.model_copy(update={"nics": nics})
    return scenario.model_copy(update={"guest": guest, "params": params})


def _as(nic: Nic, model: str) -> Nic:
    """Another variant of the same device keeps its properties; a virtio-net in place of a NIC that knows its speed is told one, which bonds ask for."""
    if nic.model == model:
        return nic
    device = MODELS[model].device
    kept = nic.properties if MODELS[nic.model].device == device else SPEED if device == VIRTIO else {}
    return nic.model_copy(update={"model": model, "properties": dict(kept)})


def _particular(scenario: Scenario, model: str) -> str:
    """What in it is about the driver of a model that it names itself; empty if nothing is, or it names this one."""
    drivers = [module for module in scenario.guest.modules if module in DRIVERS and module != MODELS[model].driver]
    if drivers:
        return f"it sets parameters of {', '.join(drivers)}"
    resizes = any(step.run is not None and step.run.argv[:2] == RESIZES for step in scenario.steps)
    return f"{MODELS[model].driver} has no ring sizes to set" if resizes and not MODELS[model].rings else ""
