"""Expectations that can never be reached: about endpoints, crashes or links that the steps never touch.

In: one validated `Scenario`. Out: messages. Rule: a testcase whose expectation could only be INCONCLUSIVE is refused before
anything is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.frozen import Frozen
from harness.scenario.checks_steps import (
    given,
    has_drop_routine,
    served_nic,
    unknown_endpoint,
    unknown_nic,
    unseen_link,
)
from harness.scenario.document import Path
from harness.scenario.errors import suggest
from harness.scenario.messages import Message
from harness.scenario.model import (
    Counted,
    Delivered,
    Dropped,
    Failover,
    LostOnlyWhileDown,
    Parity,
    QueuedDelivered,
    SawEvent,
    Scenario,
)

Found = Iterator[Message]


def check_expect(scenario: Scenario) -> Found:
    for index, expect in enumerate(scenario.expect):
        kind, value = given(expect)
        yield from _CHECKS[type(value)](scenario, ("expect", index, kind), value)


def _flow(scenario: Scenario, path: Path, sender: str, receiver: str, at_least: int) -> Found:
    """`from` and `to` are peers, and enough is sent from the one to the other."""
    unknown = [
        *unknown_endpoint(scenario, (*path, "from"), sender),
        *unknown_endpoint(scenario, (*path, "to"), receiver),
    ]
    yield from unknown
    if unknown:
        return
    peer = scenario.endpoints[sender].peer
    if peer != receiver and peer in scenario.endpoints:
        yield Message((*path, "to"), f"{sender!r} sends to {peer!r}, not to {receiver!r}", f"write to: {peer}")
    yield from _sends(scenario, path, "from", sender, at_least)


def _sends(scenario: Scenario, path: Path, key: str, sender: str, at_least: int) -> Found:
    total = sum(step.send.count for step in scenario.steps if step.send and step.send.from_ == sender)
    if total == 0:
        yield Message((*path, key), f"no step sends from {sender!r}", f"add a step `- send: {{from: {sender}, ...}}`")
    elif at_least > total:
        what = f"at least {at_least} are asked for, but the steps send {total} from {sender!r}"
        yield Message(path, what, "send more, or ask for fewer")


def _cut(scenario: Scenario, path: Path, nic: str, device: str | None, back_up: bool) -> Found:
    """The steps cut the link of `nic` (and put it back), it carries `device`, and the guest can see it."""
    unknown = list(unknown_nic(scenario, path, nic))
    yield from unknown
    if unknown:
        return
    bond = scenario.guest.bonds.get(device or "")
    if device is not None and nic not in (bond.slaves if bond else (device,)):
        yield Message(
            path, f"{nic!r} does not carry {device!r}", "name the NIC, or a slave of the bond, that messages leave by"
        )
    states = [step.inject.state for step in scenario.steps if step.inject and step.inject.link == nic]
    if "down" not in states:
        what = f"no step cuts the link of {nic!r}"
        yield Message(path, what, f"add a step `- inject: {{link: {nic}, state: down}}`")
    elif back_up and states[-1] == "down":
        what = f"the link of {nic!r} is never put up again"
        yield Message(path, what, f"add a step `- inject: {{link: {nic}, state: up}}`")
    yield from unseen_link(scenario, path, nic)


def _crashes(scenario: Scenario) -> bool:
    return any(step.crash for step in scenario.steps)


def _delivered(scenario: Scenario, path: Path, expect: Delivered) -> Found:
    yield from _flow(scenario, path, expect.from_, expect.to, expect.at_least_sent)
    endpoint = scenario.endpoints.get(expect.from_)
    if expect.except_dropped and endpoint is not None and endpoint.stack == "kernel":
        what = f"{expect.from_!r} is the kernel's netconsole, which has no drop routine to name what it dropped"
        yield Message((*path, "except_dropped"), what, "remove it, or use lost_only_while_down")


def _parity(scenario: Scenario, path: Path, expect: Parity) -> Found:
    at = (*path, "to")
    yield from unknown_endpoint(scenario, at, expect.to)
    endpoint = scenario.endpoints.get(expect.to)
    peer = scenario.endpoints.get(endpoint.peer) if endpoint else None
    if peer is not None and (peer.stack != "kernel" or peer.at != "guest"):
        what = f"{expect.to!r} hears no kernel: its peer is not the guest's netconsole"
        yield Message(at, what, "name an endpoint whose peer has stack: kernel")
    if not _crashes(scenario):
        what = "parity is about a panic, but no step crashes the guest"
        yield Message(path, what, "add a step `- crash: {how: sysrq-c}`, or expect `delivered`")


def _device_counted(scenario: Scenario, path: Path, expect: Counted) -> Found:
    yield from served_nic(scenario, (*path, "nic"), expect.nic)


def _event(scenario: Scenario, path: Path, expect: SawEvent) -> Found:
    if expect.name == "GUEST_PANICKED" and not _crashes(scenario):
        yield Message(
            path, "GUEST_PANICKED follows a crash, but no step crashes the guest", "add a step `- crash: ...`"
        )


def _drop_flow(scenario: Scenario, path: Path, by: str, link: str, at_least: int, back_up: bool) -> Found:
    unknown = list(unknown_endpoint(scenario, (*path, "by"), by))
    yield from unknown
    device = None
    if not unknown:
        device = scenario.endpoints[by].device
        yield from has_drop_routine(scenario, (*path, "by"), by)
        yield from _sends(scenario, path, "by", by, at_least)
    yield from _cut(scenario, (*path, "link"), link, device, back_up)


def _dropped(scenario: Scenario, path: Path, expect: Dropped) -> Found:
    yield from _drop_flow(scenario, path, expect.by, expect.link, expect.at_least, back_up=False)


def _queued_delivered(scenario: Scenario, path: Path, expect: QueuedDelivered) -> Found:
    yield from _drop_flow(scenario, path, expect.by, expect.link, expect.at_least, back_up=True)
    endpoint = scenario.endpoints.get(expect.by)
    if endpoint is not None and endpoint.stack == "netpoll" and endpoint.on_drop != "queue":
        what = f"{expect.by!r} queues nothing: its on_drop is {endpoint.on_drop}"
        yield Message((*path, "by"), what, f"write on_drop: queue at endpoint {expect.by!r}")


def _lost_only_while_down(scenario: Scenario, path: Path, expect: LostOnlyWhileDown) -> Found:
    yield from _flow(scenario, path, expect.from_, expect.to, 3 * expect.at_least_sent)
    endpoint = scenario.endpoints.get(expect.from_)
    device = endpoint.device if endpoint else None
    yield from _cut(scenario, (*path, "link"), expect.link, device, back_up=True)


def _failover(scenario: Scenario, path: Path, expect: Failover) -> Found:
    bonds = scenario.guest.bonds
    bond = bonds.get(expect.bond)
    if bond is None:
        yield Message((*path, "bond"), f"{expect.bond!r} is no bond", suggest(expect.bond, bonds, "bonds"))
    else:
        if len(bond.slaves) < 2:
            yield Message((*path, "bond"), f"{expect.bond!r} has one slave, nothing to fail over to", "give it two")
        if bond.miimon == 0:
            what = f"miimon is 0, so {expect.bond!r} never notices a link that goes down"
            yield Message((*path, "bond"), what, "set miimon, e.g. 100")
    yield from _cut(scenario, (*path, "cut"), expect.cut, expect.bond if bond else None, back_up=False)
    unknown = list(unknown_endpoint(scenario, (*path, "from"), expect.from_))
    yield from unknown
    if unknown:
        return
    if bond and scenario.endpoints[expect.from_].device != expect.bond:
        what = f"{expect.from_!r} sends over {scenario.endpoints[expect.from_].device!r}, not over {expect.bond!r}"
        yield Message((*path, "from"), what, "name an endpoint on the bond")
    if not _crashes(scenario):  # a panic's own messages count as sent
        yield from _sends(scenario, path, "from", expect.from_, 1)


_CHECKS: dict[type[Frozen], Callable[[Scenario, Path, Any], Found]] = {
    Delivered: _delivered,
    Parity: _parity,
    SawEvent: _event,
    Counted: _device_counted,
    Dropped: _dropped,
    QueuedDelivered: _queued_delivered,
    LostOnlyWhileDown: _lost_only_while_down,
    Failover: _failover,
}
