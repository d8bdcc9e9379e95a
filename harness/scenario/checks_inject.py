"""Links that are cut and put back: now, or in the burst of a panic that is still to come.

In: an `inject` step and the story so far. Out: messages. Rule: what is armed changes no link for the steps before the crash, and
what is to happen in a burst has to be armed before that burst.
"""

from __future__ import annotations

from collections import defaultdict

from harness.plan.burst import netconsoles_over
from harness.scenario.checks_dump import captures
from harness.scenario.document import Path
from harness.scenario.injections import Burst, InjectLink
from harness.scenario.messages import Message
from harness.scenario.story import Found, Story, unknown_nic


def inject(story: Story, index: int, path: Path, step: InjectLink) -> Found:
    """One step."""
    yield from unknown_nic(story.scenario, (*path, "link"), step.link)
    if step.after is not None:
        yield from _armed(story, index, path, step, step.after)
        return
    yield from _now(story, index, path, step)


def _now(story: Story, index: int, path: Path, step: InjectLink) -> Found:
    yield from over(story, path)
    yield from present(story, (*path, "link"), step.link)
    if (waits := next((n for n, other in story.armed.items() if other.link == step.link), None)) is not None:
        what = f"the link of {step.link!r} is to change in the burst, by step {waits + 1}"
        yield Message(path, what, "change it before that step")
    downs = story.tapless if step.by == "tap" else story.down
    was_down = downs.get(step.link)
    if step.state == "down" and was_down is not None:
        what = f"the link of {step.link!r} has been down since step {was_down + 1}"
        yield Message((*path, "state"), what, "put it up in between, or remove this step")
    if step.state == "up" and was_down is None:
        yield Message(
            (*path, "state"), f"the link of {step.link!r} is up here", "put it down first, or remove this step"
        )
    if step.state == "down":
        downs.setdefault(step.link, index)
    else:
        downs.pop(step.link, None)


def over(story: Story, path: Path) -> Found:
    """What is done after the crash changes nothing that a dead kernel still says; but a capture kernel is not dead."""
    if story.crashed is not None and not captures(story.scenario):
        what = f"the panic of step {story.crashed + 1} is over when this is done, and a dead kernel says nothing more"
        yield Message(path, what, "write it before the crash, with `after: {line: ..., seen: console}`")


def present(story: Story, path: Path, nic: str) -> Found:
    """The NIC has not been taken away, and no other step has hold of its link."""
    if nic in story.away:
        yield Message(path, f"{nic!r} has been taken away: {story.away[nic].how}", "restore it before, or name another")
    if nic in story.flapping:
        what = f"the link of {nic!r} flaps beside the steps since step {story.flapping[nic] + 1}"
        yield Message(path, what, "leave it alone, or flap without background")


def _armed(story: Story, index: int, path: Path, step: InjectLink, after: Burst) -> Found:
    if step.by == "guest":
        yield Message((*path, "by"), "a guest that panics sets no link down", "write by: cable, or remove `after`")
    if story.crashed is not None:
        what = f"the burst of lines of step {story.crashed + 1}'s panic is over when this step is reached"
        yield Message((*path, "after"), what, "write it before the crash")
    counted = after.nic or step.link
    if after.nic is not None and after.seen == "console":
        yield Message((*path, "after", "nic"), "the console's lines come over no NIC", "remove it, or write seen: wire")
    elif after.nic is not None:
        yield from unknown_nic(story.scenario, (*path, "after", "nic"), after.nic)
    known = counted in story.scenario.guest.nics
    if after.seen == "wire" and known and not list(netconsoles_over(story.scenario, counted)):
        what = f"no netconsole sends over {counted!r}, so no line of a panic is ever seen on its wire"
        yield Message((*path, "after", "seen"), what, "name the NIC of one with `nic`, or write seen: console")
    story.armed[index] = step


def armed(story: Story) -> Found:
    """All steps have been read: is there a burst for what is armed, and can it happen in that order?"""
    if story.crashed is None:
        for index in story.armed:
            path: Path = ("steps", index, "inject", "after")
            yield Message(
                path, "no step crashes the guest, so no panic prints a line", "add a step `- crash: ...` after it"
            )
    by_link: defaultdict[str, list[tuple[int, InjectLink]]] = defaultdict(list)
    for index, step in story.armed.items():
        by_link[step.link].append((index, step))
    for link, steps in by_link.items():
        yield from _in_turn(steps, link in story.down)


def _in_turn(steps: list[tuple[int, InjectLink]], is_down: bool) -> Found:
    """Each change of a link comes after the one before it, and changes something."""
    before: Burst | None = None
    for index, step in steps:
        path: Path = ("steps", index, "inject")
        if (step.state == "down") == is_down:
            what = f"the link of {step.link!r} is {step.state} already when this line is seen"
            yield Message((*path, "state"), what, "let down and up follow each other")
        after = step.after
        same = before is not None and after is not None and (before.seen, before.nic) == (after.seen, after.nic)
        if same and before is not None and after is not None and after.line <= before.line:
            what = f"line {after.line} has been seen before line {before.line}, at which the step before this one acts"
            yield Message((*path, "after", "line"), what, f"give a line after {before.line}, or change their order")
        is_down, before = step.state == "down", after
