"""Watchdogs and what starves them: a crash or a step that the guest's watchdog does not do.

In: a scenario and the step. Out: messages. Rule: an action ends the guest or it does not, and each is asked for by the step that says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.scenario.crashes import FATAL, KINDS
from harness.scenario.document import Path
from harness.scenario.messages import Message
from harness.scenario.model import Crash, Scenario


def starves(scenario: Scenario, path: Path, crash: Crash) -> Iterator[Message]:
    """A crash by the watchdog, which the guest must have, with an action that ends it."""
    action = scenario.guest.watchdog
    if crash.how != "watchdog" or action in FATAL:
        return
    if action is None:
        yield Message((*path, "how"), "the guest has no watchdog", f"add to guest: watchdog: {FATAL[0]}")
    else:
        what = f"the guest outlives its watchdog's action {action!r}"
        yield Message((*path, "how"), what, "write a step `- machine: {do: starve}`, or give it another action")


def processors(scenario: Scenario, path: Path, crash: Crash) -> Iterator[Message]:
    """A crash that needs another processor than the one that panics."""
    needed = KINDS[crash.how].processors
    if scenario.guest.smp < needed:
        what = f"{crash.how} takes {needed} processors, the guest has {scenario.guest.smp}"
        yield Message((*path, "how"), what, f"add to guest: smp: {needed}")


def outlives(scenario: Scenario, path: Path) -> Iterator[Message]:
    """A watchdog that starves while the guest is to go on."""
    action = scenario.guest.watchdog
    if action is None:
        yield Message((*path, "do"), "the guest has no watchdog", "add to guest: watchdog: none")
    elif action in FATAL:
        what = f"the guest does not outlive its watchdog's action {action!r}"
        yield Message((*path, "do"), what, "write a step `- crash: {how: watchdog}`")
