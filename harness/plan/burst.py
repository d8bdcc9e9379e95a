"""An action whose time is a place in a panic's burst -> an `Arm`.

In: the author's `after`, and the NIC that is injected into. Out: the action, armed. Rule: the wire's lines are the frames of the guest's
netconsole over one NIC, so the plan names their flows.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.plan.addresses import ip_of, nics_behind, port_of
from harness.plan.model import Arm, Device, Qmp, TapLink
from harness.scenario.injections import Burst
from harness.scenario.model import Endpoint, Scenario


def arm(step: int, action: Qmp | Device | TapLink, after: Burst, nic: str, scenario: Scenario) -> Arm:
    """`action` of step `step` once the line of `after` has been seen; `nic` is the one whose wire counts if the author names none."""
    counted = after.nic or nic
    flows = tuple(_flows(scenario, counted)) if after.seen == "wire" else ()
    return Arm(step=step, line=after.line, seen=after.seen, nic=counted, flows=flows, action=action)


def netconsoles_over(scenario: Scenario, nic: str) -> Iterator[tuple[str, Endpoint]]:
    """The guest's netconsoles whose frames may leave over `nic`."""
    for name, endpoint in scenario.endpoints.items():
        if endpoint.stack == "kernel" and nic in nics_behind(scenario, endpoint.device):
            yield name, endpoint


def _flows(scenario: Scenario, nic: str) -> Iterator[tuple[str, int, str, int]]:
    for name, endpoint in netconsoles_over(scenario, nic):
        peer = endpoint.peer
        yield ip_of(scenario, name), port_of(scenario, name), ip_of(scenario, peer), port_of(scenario, peer)


def place(after: Burst, nic: str) -> str:
    """In words, for titles: `line 10 of the panic on the console`."""
    where = "the console" if after.seen == "console" else f"the wire of {after.nic or nic}"
    return f"line {after.line} of the panic on {where}"
