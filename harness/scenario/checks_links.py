"""Links that flap, NICs that are taken away and put back, filters in QEMU: what the steps before, the model or the bond rule out.

In: one such step and the story so far. Out: messages. Rule: whatever takes a link down or puts it up is known here by one function,
`changes`, so that expectations about a cut accept every way of making one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from harness.scenario.checks_inject import over, present
from harness.scenario.document import Path
from harness.scenario.injections import Filter, Flap, Remove, Restore
from harness.scenario.messages import Message
from harness.scenario.model import Scenario
from harness.scenario.story import Found, Story, alive, unknown_nic
from harness.scenario.words import Way


class Change(NamedTuple):
    """A link goes down or comes up outside of a panic. `silent`: the guest cannot see it, whatever its NIC."""

    state: Literal["down", "up"]
    way: Way = "both"
    silent: bool = False
    by_cable: bool = False


def changes(scenario: Scenario, nic: str) -> Iterator[Change]:
    """What the steps do to the link of `nic`, in order."""
    filtered: Way = "both"
    for step in scenario.steps:
        if step.inject and step.inject.link == nic and step.inject.after is None:
            by_tap = step.inject.by == "tap"
            yield Change(step.inject.state, "rx" if by_tap else "both", by_tap, step.inject.by == "cable")
        elif step.flap and step.flap.link == nic:
            yield from (Change("down", by_cable=True), Change("up", by_cable=True))
        elif step.remove and step.remove.nic == nic:
            yield Change("down", silent=step.remove.how in ("rip", "tap"))
        elif step.restore and step.restore.nic == nic:
            yield Change("up")
        elif step.filter and step.filter.nic == nic and step.filter.hold is None:
            filtered = step.filter.lose or filtered
            yield Change("down" if step.filter.lose else "up", filtered, silent=True)


def flap(story: Story, index: int, path: Path, step: Flap) -> Found:
    """The cable goes out and in."""
    unknown = list(unknown_nic(story.scenario, (*path, "link"), step.link))
    yield from unknown
    if unknown:
        return
    yield from over(story, path)
    yield from present(story, (*path, "link"), step.link)
    if step.link in story.down:
        what = f"the link of {step.link!r} is down since step {story.down[step.link] + 1}"
        yield Message((*path, "link"), what, "put it up before")
    if step.period * step.times > story.scenario.timeout:
        what = f"{step.times} times {step.period:g} s is longer than the case's timeout of {story.scenario.timeout:g} s"
        yield Message((*path, "times"), what, "raise `timeout`, or flap less often")
    if step.background:
        story.flapping[step.link] = index


def remove(story: Story, _index: int, path: Path, step: Remove) -> Found:
    """A NIC, or what belongs to it, goes away."""
    unknown = list(unknown_nic(story.scenario, (*path, "nic"), step.nic))
    yield from unknown
    if unknown:
        return
    yield from alive(story, path, f"{step.nic!r} is to be taken away")
    yield from present(story, (*path, "nic"), step.nic)
    bonds = [name for name, bond in story.scenario.guest.bonds.items() if step.nic in bond.slaves]
    if step.how == "release" and not bonds:
        yield Message((*path, "how"), f"{step.nic!r} is no slave of a bond", "name a slave, or write how: unplug")
    story.away[step.nic] = step


def restore(story: Story, _index: int, path: Path, step: Restore) -> Found:
    """It comes back."""
    at = (*path, "nic")
    unknown = list(unknown_nic(story.scenario, at, step.nic))
    yield from unknown
    if unknown:
        return
    yield from alive(story, path, f"{step.nic!r} is to be put back")
    before = story.away.pop(step.nic, None)
    if before is None:
        yield Message(at, f"{step.nic!r} has not been taken away here", "remove it before, or leave this step out")
    elif before.how == "rip":
        yield Message(at, f"{step.nic!r} was torn out, which QEMU takes for the end of it", "remove it by how: unplug")
    elif before.how == "tap":
        yield Message(at, f"the tap of {step.nic!r} is gone, and QEMU's backend with it", "use inject with by: tap")
    ours = [name for name, end in story.scenario.endpoints.items() if end.at == "guest" and end.ours]
    for name in ours:
        if story.scenario.endpoints[name].device == step.nic and before is not None and before.how == "unplug":
            what = f"{name!r} has its socket on the interface that went away with {step.nic!r}"
            yield Message(at, what, "put our stack on a bond, or use stack: kernel")


def filtered(story: Story, index: int, path: Path, step: Filter) -> Found:
    """A filter object on the NIC's backend."""
    unknown = list(unknown_nic(story.scenario, (*path, "nic"), step.nic))
    yield from unknown
    if unknown:
        return
    yield from over(story, path)
    yield from present(story, (*path, "nic"), step.nic)
    if step.lose is not None and step.hold is not None:
        yield Message(path, "a filter loses frames or holds them", "give one of lose, hold")
    if (step.hold is None) != (step.seconds is None):
        yield Message(path, "how long frames are held is said by `seconds`", "give both of hold, seconds, or neither")
    begins = step.lose is not None or step.hold is not None
    if begins and step.nic in story.filtered:
        what = f"{step.nic!r} has a filter since step {story.filtered[step.nic] + 1}"
        yield Message((*path, "nic"), what, f"take it away before: `- filter: {{nic: {step.nic}}}`")
    if not begins and step.nic not in story.filtered:
        yield Message((*path, "nic"), f"{step.nic!r} has no filter here", "give one of lose, hold")
    if begins:
        story.filtered[step.nic] = index
    else:
        story.filtered.pop(step.nic, None)
