"""A dump that nobody could send, a server that nobody needs, an expectation of a dump that there is not.

In: one validated `Scenario`, and its steps with the story so far. Out: messages. Rule: a guest that captures is one that we build, with room for a
second kernel beside its own.
"""

from __future__ import annotations

from harness.plan.nics import MODELS
from harness.scenario.document import Path
from harness.scenario.dumps import Dump, Dumped, DumpServer, WaitDump
from harness.scenario.errors import suggest
from harness.scenario.messages import Message
from harness.scenario.model import Scenario
from harness.scenario.story import Found, Story

# MiB. The crash region takes 192, and while a template boots, the archive and what is unpacked of it are in memory at the same time.
LEAST, MOST = 768, 2048


def captures(scenario: Scenario) -> bool:
    """A capture kernel is loaded."""
    return scenario.guest.capture or scenario.dump is not None or scenario.debugger is not None


def check_capture(scenario: Scenario) -> Found:
    """About the machine, and where the dump goes."""
    guest = scenario.guest
    if captures(scenario) and guest.memory < LEAST:
        what = f"{guest.memory} MiB are too few for a guest with a capture kernel"
        path: Path = ("guest", "memory") if "memory" in guest.model_fields_set else ("guest",)
        yield Message(path, what, f"write memory: {LEAST} at least")
    if captures(scenario) and guest.disk is not None:
        yield Message(
            ("guest", "disk"),
            "no capture kernel is loaded into a guest that we did not build",
            "remove it",
            on_key=True,
        )
    if scenario.dump is not None:
        yield from _device(scenario, scenario.dump.device)
        yield from _pages(scenario.dump)
        yield from _driver(scenario, scenario.dump)
        if guest.memory > MOST:
            yield Message(
                ("guest", "memory"),
                f"{guest.memory} MiB: a dump is compared with RAM that has no hole",
                f"write {MOST} at most",
            )


def _pages(dump: Dump) -> Found:
    if dump.protocol == "netdump" and dump.pages == "kernel":
        what = "Red Hat's server asks for each page by its number, and knows nothing of makedumpfile"
        yield Message(("dump", "pages"), what, "write pages: all, or protocol: debugnet")
    if dump.panics is not None and (dump.protocol == "netdump" or dump.pages == "all"):
        yield Message(
            ("dump", "panics"), "it counts what makedumpfile has put out", "write pages: kernel, or remove it"
        )


def _driver(scenario: Scenario, dump: Dump) -> Found:
    """Bonds are the kernel's, and it has no interface of a NIC that it does not drive."""
    nic = scenario.guest.nics.get(dump.device)
    path = ("dump", "driver")
    if dump.driver == "pmd" and dump.device in scenario.guest.bonds:
        yield Message(path, f"{dump.device!r} is a bond of the kernel's", "name a NIC, or write driver: kernel")
    elif dump.driver == "pmd" and nic is not None and nic.model in MODELS and not MODELS[nic.model].poll_mode:
        known = ", ".join(word for word, other in MODELS.items() if other.poll_mode)
        yield Message(path, f"there is no poll-mode driver for {nic.model}", f"use one of {known}, or driver: kernel")


def _device(scenario: Scenario, device: str) -> Found:
    guest, path = scenario.guest, ("dump", "device")
    if device not in guest.nics and device not in guest.bonds:
        what = f"device {device!r} is no NIC or bond of the guest"
        yield Message(path, what, suggest(device, [*guest.nics, *guest.bonds], "devices"))
        return
    for bond, its in guest.bonds.items():
        if device in its.slaves:
            yield Message(path, f"{device!r} is a slave of {bond!r}", f"write device: {bond}")
    for nic in guest.bonds[device].slaves if device in guest.bonds else (device,):
        model = MODELS.get(guest.nics[nic].model) if nic in guest.nics else None
        if model is not None and model.controller is not None:
            yield Message(path, f"{nic!r} is on USB, for which the capture kernel has no driver", "use a PCI model")


def _needs_dump(scenario: Scenario, path: Path) -> Found:
    if scenario.dump is None:
        yield Message(path, "there is no dump in this testcase", "add `dump: {device: ...}`")


def dump_server(story: Story, _index: int, path: Path, step: DumpServer) -> Found:
    """A step: it runs from the set-up on."""
    yield from _needs_dump(story.scenario, path)
    if story.server == step.state:
        yield Message((*path, "state"), f"the server is {step.state} already", "remove this step")
    story.server = step.state


def wait_dump(story: Story, _index: int, path: Path, wait: WaitDump) -> Found:
    """A wait."""
    yield from _needs_dump(story.scenario, path)
    if story.crashed is None:
        yield Message(path, "no dump begins before a crash", "move it behind the crash")
    if wait.dump == "complete" and "mib" in wait.model_fields_set:
        yield Message((*path, "mib"), "a complete dump has all its bytes", "remove it, or write dump: begun")


def dumped(scenario: Scenario, path: Path, expect: Dumped) -> Found:
    """An expectation."""
    yield from _needs_dump(scenario, path)
    if not any(step.crash for step in scenario.steps):
        yield Message(path, "no step crashes the guest", "add a step `- crash: {how: sysrq-c}`")
    if scenario.dump is not None and not expect.complete and scenario.dump.panics is None:
        yield Message(
            (*path, "complete"), "nothing keeps this dump from being complete", "write dump: {panics: 256, ...}"
        )
