"""What a testcase may ask of NICs that a driver of ours has taken from the guest's kernel (`stack: pmd`).

In: one validated `Scenario`. Out: messages. Rule: whatever would go through the kernel's interface, which is then not there, is told
of here, and not by a guest that cannot find it.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.plan.addresses import nics_behind, poll_mode_nics
from harness.plan.nics import MODELS
from harness.scenario.document import Path
from harness.scenario.messages import Message
from harness.scenario.model import Endpoint, Scenario, Step

LONGEST = 1500  # MTU that a receive buffer of 2048 holds


def check_poll_mode(scenario: Scenario) -> Iterator[Message]:
    for name, endpoint in scenario.endpoints.items():
        if endpoint.stack == "pmd":
            yield from _endpoint(("endpoints", name), endpoint)
        elif endpoint.at == "guest" and (shared := _shared(scenario, endpoint)):
            what = (
                f"{name!r} is to go through the kernel's interface of {shared!r}, which another endpoint takes from it"
            )
            yield Message(("endpoints", name, "stack"), what, "write stack: pmd at both, or give it a NIC of its own")
    ours = poll_mode_nics(scenario)
    for nic in sorted(ours & scenario.guest.nics.keys()):
        yield from _nic(scenario, nic)
    for index, step in enumerate(scenario.steps):
        yield from _step(("steps", index), step, ours)


def _shared(scenario: Scenario, endpoint: Endpoint) -> str | None:
    behind = nics_behind(scenario, endpoint.device)
    return next((nic for nic in behind if nic in poll_mode_nics(scenario)), None)


def _endpoint(path: Path, endpoint: Endpoint) -> Iterator[Message]:
    if endpoint.at == "host":
        what = "poll-mode drivers drive the guest's NICs; on the host there are taps"
        yield Message((*path, "stack"), what, "write stack: netpoll on the host")
    for key in ("driver", "sndbuf"):
        if key in endpoint.model_fields_set:
            what = f"{key!r} is about the kernel's packet socket, and a poll-mode driver has none"
            yield Message((*path, key), what, "remove it, or write stack: netpoll", on_key=True)


def _nic(scenario: Scenario, name: str) -> Iterator[Message]:
    nic, model = scenario.guest.nics[name], MODELS.get(scenario.guest.nics[name].model)
    if model is not None and not model.poll_mode:
        known = ", ".join(word for word, other in MODELS.items() if other.poll_mode)
        what = f"there is no poll-mode driver for {model.word}"
        yield Message(("guest", "nics", name, "model"), what, f"use one of {known}, or write stack: netpoll")
    if nic.mtu is not None and nic.mtu > LONGEST:
        what = f"poll-mode drivers have buffers for an MTU of {LONGEST}"
        yield Message(("guest", "nics", name, "mtu"), what, f"{LONGEST} or less, or write stack: netpoll")


def _step(path: Path, step: Step, ours: frozenset[str]) -> Iterator[Message]:
    if step.inject is not None and step.inject.link in ours and step.inject.by == "guest":
        what = f"the guest's kernel has no interface for {step.inject.link!r}: our driver has taken it"
        yield Message((*path, "inject", "by"), what, "pull the cable: leave `by` out")
    if step.remove is not None and step.remove.nic in ours and step.remove.how in ("unplug", "release"):
        what = f"{step.remove.nic!r} is our driver's, and the kernel cannot let go of it"
        yield Message((*path, "remove", "how"), what, "tear it out: how: rip")
