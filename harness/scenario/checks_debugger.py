"""A debugger that nobody serves, or that shares the capture kernel with a dump.

In: one validated `Scenario`, and its steps with the story so far. Out: messages. Rule: the capture kernel has one client.
"""

from __future__ import annotations

from harness.scenario.debuggers import Debug, Debugged
from harness.scenario.document import Path
from harness.scenario.errors import suggest
from harness.scenario.messages import Message
from harness.scenario.model import Scenario
from harness.scenario.story import Found, Story


def check_debugger(scenario: Scenario) -> Found:
    """About the device, and what else wants the capture kernel."""
    if (debugger := scenario.debugger) is None:
        return
    path: Path = ("debugger", "device")
    if scenario.dump is not None:
        what = "the capture kernel has one client: it cannot send a dump and serve a debugger"
        yield Message(("debugger",), what, "write two testcases", on_key=True)
    if debugger.device in scenario.guest.bonds:
        what = f"{debugger.device!r} is a bond: gdb's datagrams leave by the host's kernel, which has no bond over the taps"
        yield Message(path, what, "write a NIC")
    elif debugger.device not in scenario.guest.nics:
        what = f"device {debugger.device!r} is no NIC of the guest"
        yield Message(path, what, suggest(debugger.device, scenario.guest.nics, "NICs"))


def _needs_debugger(scenario: Scenario, path: Path) -> Found:
    if scenario.debugger is None:
        yield Message(path, "there is no debugger in this testcase", "add `debugger: {device: ...}`")


def debug(story: Story, _index: int, path: Path, _step: Debug) -> Found:
    """A step."""
    yield from _needs_debugger(story.scenario, path)
    if story.crashed is None:
        yield Message(path, "there is nothing to debug before a crash", "move it behind the crash")


def debugged(scenario: Scenario, path: Path, _expect: Debugged) -> Found:
    """An expectation."""
    yield from _needs_debugger(scenario, path)
    if not any(step.debug for step in scenario.steps):
        yield Message(path, "no step has gdb attach", "add a step `- debug: {}` behind the crash")
