"""Contradictions that no single key shows. (First cut: references; grown below.)"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from harness.plan.nics import MODELS
from harness.scenario.errors import suggest
from harness.scenario.messages import Message
from harness.scenario.model import Scenario


def check(scenario: Scenario, known_kernels: Collection[str] | None) -> Iterator[Message]:
    if known_kernels is not None and scenario.guest.kernel not in known_kernels:
        what = f"unknown kernel {scenario.guest.kernel!r}"
        yield Message(("guest", "kernel"), what, suggest(scenario.guest.kernel, known_kernels, "kernels"))
    for name, nic in scenario.guest.nics.items():
        if nic.model not in MODELS:
            what = f"unknown NIC model {nic.model!r}"
            yield Message(("guest", "nics", name, "model"), what, suggest(nic.model, MODELS, "models"))
