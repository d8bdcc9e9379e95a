"""What the steps before a step have brought about, and the questions that several checks ask of names.

In: one validated `Scenario`, read step by step. Out: messages. Rule: a `Story` only remembers; what may follow what is said by the
checks of each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.frozen import Frozen
from harness.plan.nics import MODELS
from harness.scenario.document import Path
from harness.scenario.errors import suggest
from harness.scenario.injections import InjectLink, Remove
from harness.scenario.messages import Message
from harness.scenario.model import Frames, Scenario, Send

Found = Iterator[Message]


@dataclass
class Story:
    """What has happened before a step. Values are step indices, or the send itself."""

    scenario: Scenario
    sends: dict[str, Send] = field(default_factory=dict)  # by label
    strange: dict[str, Frames] = field(default_factory=dict)  # by label
    running: dict[str, int] = field(default_factory=dict)  # background sends nobody has waited for
    down: dict[str, int] = field(default_factory=dict)  # links that are down
    tapless: dict[str, int] = field(default_factory=dict)  # taps without carrier
    away: dict[str, Remove] = field(default_factory=dict)  # NICs that were taken away
    filtered: dict[str, int] = field(default_factory=dict)  # NICs with a filter
    flapping: dict[str, int] = field(default_factory=dict)  # links that flap beside the steps
    faults: dict[str, list[str]] = field(default_factory=dict)  # by NIC: what is wrong with it
    armed: dict[int, InjectLink] = field(default_factory=dict)  # by step: what waits for the burst of a panic
    crashed: int | None = None
    server: str = "running"  # that of the dump
    paused: int | None = None
    polling: int | None = None  # our stack in the guest has crashed: nobody is interrupted
    stopped: set[str] = field(default_factory=set)  # NICs whose reader has stopped

    def sent_to(self, endpoint: str) -> int:
        """How many numbered messages the peer of `endpoint` has been told to send, or to send back."""
        peer = self.scenario.endpoints[endpoint].peer
        senders = (peer, endpoint) if self.scenario.endpoints[peer].echo else (peer,)
        return sum(send.count for send in self.sends.values() if send.from_ in senders)


def given(item: Frozen) -> tuple[str, Any]:
    """The one key of a step or an expectation, and its value."""
    return next((name, value) for name in type(item).model_fields if (value := getattr(item, name)) is not None)


def unknown_endpoint(scenario: Scenario, path: Path, name: str) -> Found:
    if name not in scenario.endpoints:
        yield Message(path, f"{name!r} is no endpoint", suggest(name, scenario.endpoints, "endpoints"))


def unknown_nic(scenario: Scenario, path: Path, name: str) -> Found:
    if name in scenario.guest.bonds:
        yield Message(
            path, f"{name!r} is a bond", f"name one of its slaves: {', '.join(scenario.guest.bonds[name].slaves)}"
        )
    elif name not in scenario.guest.nics:
        yield Message(path, f"{name!r} is no NIC", suggest(name, scenario.guest.nics, "NICs"))


def unseen_link(scenario: Scenario, path: Path, nic: str) -> Found:
    """QEMU drops the frames of these models but never tells the guest."""
    model = MODELS.get(scenario.guest.nics[nic].model) if nic in scenario.guest.nics else None
    if model is not None and not model.link:
        what = f"the guest cannot see the link of {nic!r}: QEMU's {model.word} does not follow set_link"
        visible = ", ".join(word for word, other in MODELS.items() if other.link)
        yield Message(path, what, f"use one of {visible}")


def served_nic(scenario: Scenario, path: Path, nic: str) -> Found:
    """Only our own models do what a testcase asks them to."""
    yield from unknown_nic(scenario, path, nic)
    model = MODELS.get(scenario.guest.nics[nic].model) if nic in scenario.guest.nics else None
    if model is not None and not model.served:
        ours = ", ".join(word for word, other in MODELS.items() if other.served)
        yield Message(path, f"{nic!r} is QEMU's {model.word}, which takes no faults and counts nothing", f"use {ours}")


def alive(story: Story, path: Path, does: str) -> Found:
    """The guest still lives at this step, which it needs for what it `does`."""
    if story.crashed is not None:
        what = f"{does}, but step {story.crashed + 1} crashed the guest"
        yield Message(path, what, "move it before the crash")
    elif story.paused is not None:
        what = f"{does}, but step {story.paused + 1} paused the machine"
        yield Message(path, what, "resume it before: `- machine: {do: resume}`")


def is_served(scenario: Scenario, nic: str) -> bool:
    """Whether a NIC of the guest is a model of ours."""
    model = MODELS.get(scenario.guest.nics[nic].model)
    return model is not None and model.served
