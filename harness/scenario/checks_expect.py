"""Expectations that can never be reached: about endpoints, crashes or links that the steps never touch.

In: one validated `Scenario`. Out: messages. Rule: a testcase whose expectation could only be INCONCLUSIVE is refused before
anything is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.frozen import Frozen
from harness.plan.addresses import nics_behind
from harness.scenario.checks_debugger import debugged
from harness.scenario.checks_dump import dumped
from harness.scenario.checks_links import changes
from harness.scenario.checks_steps import expression, has_drop_routine
from harness.scenario.crashes import ends
from harness.scenario.debuggers import Debugged
from harness.scenario.document import Path
from harness.scenario.dumps import Dumped
from harness.scenario.errors import suggest
from harness.scenario.expectations import (
    ArpAnswered,
    CarrierFollows,
    Counted,
    Delivered,
    Dropped,
    Echoed,
    Failover,
    Flooded,
    HeldBack,
    LostOnlyWhileDown,
    NotReceived,
    Parity,
    Polled,
    Pressed,
    QueuedDelivered,
    SawEvent,
)
from harness.scenario.messages import Message
from harness.scenario.model import Crash, Frames, Scenario
from harness.scenario.oracles import BurstFailover, CountersAgree, Latency, QueueStopped, Sequence
from harness.scenario.polling import Uninterrupted
from harness.scenario.story import Found, given, served_nic, unknown_endpoint, unknown_nic, unseen_link


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
    own = list(changes(scenario, nic))
    states = [change.state for change in own]
    if "down" not in states:
        what = f"no step cuts the link of {nic!r}"
        yield Message(path, what, f"add a step `- inject: {{link: {nic}, state: down}}`")
    elif back_up and states[-1] == "down":
        what = f"the link of {nic!r} is never put up again"
        yield Message(path, what, f"add a step `- inject: {{link: {nic}, state: up}}`")
    if not own or any(change.by_cable for change in own):
        yield from unseen_link(scenario, path, nic)


def _crashes(scenario: Scenario) -> bool:
    return any(step.crash for step in scenario.steps)


def _panics(scenario: Scenario, path: Path, what: str, remedy: str) -> Found:
    """A crash that ends in a panic, or there is nothing to read."""
    if not _crashes(scenario):
        yield Message(path, f"{what}, but no step crashes the guest", remedy)
    elif silent := next(
        (each.crash for each in scenario.steps if each.crash and _no_panic(scenario, each.crash)), None
    ):
        how = f"{silent.how} ({scenario.guest.watchdog})" if silent.how == "watchdog" else silent.how
        yield Message(path, f"{what}, but a crash by {how} ends the machine without one", "expect `delivered`")


def _no_panic(scenario: Scenario, crash: Crash) -> bool:
    return ends(scenario.guest, crash) == "machine"


def _delivered(scenario: Scenario, path: Path, expect: Delivered) -> Found:
    yield from _flow(scenario, path, expect.from_, expect.to, expect.at_least_sent)
    endpoint = scenario.endpoints.get(expect.from_)
    if expect.except_dropped and endpoint is not None and endpoint.stack == "kernel":
        what = f"{expect.from_!r} is the kernel's netconsole, which has no drop routine to name what it dropped"
        yield Message((*path, "except_dropped"), what, "remove it, or use lost_only_while_down")
    if expect.except_cut is not None and endpoint is not None:
        yield from _excused(scenario, (*path, "except_cut"), expect.except_cut, endpoint.device)
    if expect.but_last and not any(step.crash and _no_panic(scenario, step.crash) for step in scenario.steps):
        what = "the last messages may be missing where the machine is killed, but no step does that"
        yield Message((*path, "but_last"), what, "remove it, or add a step `- crash: {how: kill}`")


def _parity(scenario: Scenario, path: Path, expect: Parity) -> Found:
    at = (*path, "to")
    yield from unknown_endpoint(scenario, at, expect.to)
    endpoint = scenario.endpoints.get(expect.to)
    peer = scenario.endpoints.get(endpoint.peer) if endpoint else None
    if peer is not None and (peer.stack != "kernel" or peer.at != "guest"):
        what = f"{expect.to!r} hears no kernel: its peer is not the guest's netconsole"
        yield Message(at, what, "name an endpoint whose peer has stack: kernel")
    yield from _panics(
        scenario, path, "parity is about a panic", "add a step `- crash: {how: sysrq-c}`, or expect `delivered`"
    )
    if expect.behind is not None:
        yield from expression((*path, "behind"), expect.behind)
    if expect.except_cut is not None and peer is not None:
        yield from _excused(
            scenario, (*path, "except_cut"), expect.except_cut, peer.device, ", after: {line: 10, seen: console}"
        )


def _excused(scenario: Scenario, path: Path, nic: str, device: str, when: str = "") -> Found:
    """The steps cut the link of `nic`, and what is said may be sent over it."""
    unknown = list(unknown_nic(scenario, path, nic))
    yield from unknown
    if unknown:
        return
    if nic not in nics_behind(scenario, device):
        yield Message(
            path, f"{nic!r} does not carry {device!r}", "name the NIC, or a slave of the bond, that lines leave by"
        )
    if not any(step.inject and (step.inject.link, step.inject.state) == (nic, "down") for step in scenario.steps):
        remedy = f"add a step `- inject: {{link: {nic}, state: down{when}}}`"
        yield Message(path, f"no step cuts the link of {nic!r}", remedy)


def _device_counted(scenario: Scenario, path: Path, expect: Counted) -> Found:
    yield from served_nic(scenario, (*path, "nic"), expect.nic)


def _event(scenario: Scenario, path: Path, expect: SawEvent) -> Found:
    if expect.name == "GUEST_PANICKED":
        yield from _panics(scenario, path, "GUEST_PANICKED follows a crash", "add a step `- crash: ...`")


def _carrier_follows(scenario: Scenario, path: Path, expect: CarrierFollows) -> Found:
    """That the guest cannot see the link is what `seen: false` is about."""
    at = (*path, "link")
    unknown = list(unknown_nic(scenario, at, expect.link))
    yield from unknown
    if unknown:
        return
    own = list(changes(scenario, expect.link))
    if not any(change.by_cable for change in own):
        what = f"no step cuts the link of {expect.link!r}"
        yield Message(at, what, f"add a step `- inject: {{link: {expect.link}, state: down}}`")
    if expect.seen:
        yield from unseen_link(scenario, at, expect.link)


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
    if endpoint is not None and endpoint.ours and endpoint.on_drop != "queue":
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


def _counted(scenario: Scenario, path: Path, name: str) -> Found:
    if _crashes(scenario):
        what = f"the counters of {name!r} are asked for at the end, when a step has crashed the guest"
        yield Message(path, what, "crash in another testcase")


def _polled(scenario: Scenario, path: Path, expect: Polled) -> Found:
    at = (*path, "by")
    unknown = list(unknown_endpoint(scenario, at, expect.by))
    yield from unknown
    if unknown:
        return
    endpoint = scenario.endpoints[expect.by]
    if endpoint.stack == "kernel":
        yield Message(at, f"{expect.by!r} is the kernel's netconsole, which counts no polls", "use stack: netpoll")
    elif endpoint.at == "host":
        yield Message(
            at, f"{expect.by!r} is on a tap of the host, whose queue never stops", "name the guest's endpoint"
        )
    yield from _sends(scenario, path, "by", expect.by, expect.at_least)
    yield from _counted(scenario, path, expect.by)


def _strange(scenario: Scenario, path: Path, key: str, name: str, at_least: int, kind: str | None = None) -> Found:
    """The steps send enough frames that are not for `name`."""
    unknown = list(unknown_endpoint(scenario, (*path, key), name))
    yield from unknown
    if unknown:
        return
    total = sum(each.count for each in _frames_to(scenario, name) if kind in (None, each.kind))
    what = f"frames {kind}" if kind else "strange frames"
    if not total:
        remedy = f"add a step `- frames: {{from: {scenario.endpoints[name].peer}, kind: {kind or '...'}}}`"
        yield Message((*path, key), f"no step sends {what} to {name!r}", remedy)
    elif at_least > total:
        said = f"at least {at_least} are asked for, but the steps send {total} {what} to {name!r}"
        yield Message(path, said, "send more, or ask for fewer")


def _frames_to(scenario: Scenario, name: str) -> Iterator[Frames]:
    peer = scenario.endpoints[name].peer
    return (step.frames for step in scenario.steps if step.frames and step.frames.from_ == peer)


def _not_received(scenario: Scenario, path: Path, expect: NotReceived) -> Found:
    yield from _strange(scenario, path, "at", expect.at, expect.at_least)
    if expect.at not in scenario.endpoints:
        return
    peer = scenario.endpoints[expect.at].peer
    last = max((n for n, step in enumerate(scenario.steps) if step.frames and step.frames.from_ == peer), default=None)
    after = scenario.steps[last + 1 :] if last is not None else scenario.steps
    if last is not None and not any(step.send and step.send.from_ == peer for step in after):
        what = f"nothing is sent to {expect.at!r} after the frames, so nothing shows that it was listening"
        yield Message((*path, "at"), what, f"add a step `- send: {{from: {peer}, ...}}` after them")
    if expect.fate == "eaten":
        yield from _counted(scenario, path, expect.at)


def _arp_answered(scenario: Scenario, path: Path, expect: ArpAnswered) -> Found:
    yield from _strange(scenario, path, "by", expect.by, expect.at_least, "arp-request")


def _echoed(scenario: Scenario, path: Path, expect: Echoed) -> Found:
    unknown = list(unknown_endpoint(scenario, (*path, "by"), expect.by))
    yield from unknown
    if unknown:
        return
    endpoint = scenario.endpoints[expect.by]
    if not endpoint.echo:
        yield Message((*path, "by"), f"{expect.by!r} sends nothing back", f"write echo: true at endpoint {expect.by!r}")
    elif endpoint.peer in scenario.endpoints:
        yield from _sends(scenario, path, "by", endpoint.peer, expect.at_least)


def _flooded(scenario: Scenario, path: Path, expect: Flooded) -> Found:
    unknown = list(unknown_nic(scenario, (*path, "nic"), expect.nic))
    yield from unknown
    yield from _panics(
        scenario, path, "floods are counted from a crash to the end of its panic", "add a step `- crash: ...`"
    )
    ends = scenario.endpoints
    floods = [step.flood.to for step in scenario.steps if step.flood and step.flood.to in ends]
    if not unknown and not any(expect.nic in nics_behind(scenario, ends[to].device) for to in floods):
        yield Message((*path, "nic"), f"no step floods {expect.nic!r}", "add a step `- flood: ...`")


def _burst_failover(scenario: Scenario, path: Path, expect: BurstFailover) -> Found:
    bond = scenario.guest.bonds.get(expect.bond)
    if bond is None:
        bonds = list(scenario.guest.bonds)
        yield Message((*path, "bond"), f"{expect.bond!r} is no bond", suggest(expect.bond, bonds, "bonds"))
    elif expect.cut not in bond.slaves:
        what = f"{expect.cut!r} is no slave of {expect.bond!r}"
        yield Message((*path, "cut"), what, suggest(expect.cut, bond.slaves, "slaves"))
    elif not any(step.inject and step.inject.link == expect.cut and step.inject.after for step in scenario.steps):
        what = f"no step cuts {expect.cut!r} in the middle of a panic"
        yield Message(
            (*path, "cut"),
            what,
            f"add `- inject: {{link: {expect.cut}, state: down, after: {{line: 10, seen: wire}}}}`",
        )
    yield from unknown_endpoint(scenario, (*path, "to"), expect.to)


def _queue_stopped(scenario: Scenario, path: Path, expect: QueueStopped) -> Found:
    if expect.by == "kernel":
        yield from unknown_nic(scenario, (*path, "nic"), expect.nic)
        if scenario.guest.disk is not None:
            yield Message(
                (*path, "by"), "where a disk's own kernel keeps its queues is not known", "leave it out, or `disk`"
            )
        return
    own = [end.device for end in scenario.endpoints.values() if (end.at, end.stack) == ("guest", "netpoll")]
    if expect.nic not in own:
        what = f"no endpoint of the guest with stack: netpoll is on {expect.nic!r}"
        yield Message((*path, "nic"), what, suggest(expect.nic, own, "devices with one"))


def _uninterrupted(scenario: Scenario, path: Path, expect: Uninterrupted) -> Found:
    yield from unknown_endpoint(scenario, (*path, "by"), expect.by)
    endpoint = scenario.endpoints.get(expect.by)
    if endpoint is not None and endpoint.stack != "pmd":
        what = f"{expect.by!r} is on {endpoint.stack}, whose interrupts are the kernel's"
        yield Message((*path, "by"), what, "name an endpoint of the guest with stack: pmd")
    if not any(step.context for step in scenario.steps):
        what = "no step has our stack crash, so interrupts are served"
        yield Message((*path, "by"), what, f"add `- context: {{of: {expect.by}, becomes: crashed}}`")


def _held_back(scenario: Scenario, path: Path, expect: HeldBack) -> Found:
    yield from _flow(scenario, path, expect.from_, expect.to, expect.at_least)
    yield from unknown_nic(scenario, (*path, "nic"), expect.nic)
    states = [step.reader.state for step in scenario.steps if step.reader and step.reader.nic == expect.nic]
    if states[:2] != ["stopped", "running"]:
        what = f"no steps stop the reader of {expect.nic!r} and let it go on"
        yield Message(
            (*path, "nic"), what, f"add `- reader: {{nic: {expect.nic}, state: stopped}}`, and `running` later"
        )


def _pressed(scenario: Scenario, path: Path, expect: Pressed) -> Found:
    at = (*path, "at")
    unknown = list(unknown_endpoint(scenario, at, expect.at))
    yield from unknown
    if unknown:
        return
    endpoint = scenario.endpoints[expect.at]
    if not endpoint.sysrq:
        yield Message(at, f"{expect.at!r} presses no keys", f"write sysrq: true at endpoint {expect.at!r}")
        return
    own = [step.keys.forge is None for step in scenario.steps if step.keys and step.keys.from_ == endpoint.peer]
    own += [True for step in scenario.steps if step.crash and step.crash.from_ == endpoint.peer]  # always the last
    if not own or not own[-1]:
        what = f"the last keys are not from {endpoint.peer!r}, so nothing shows that {expect.at!r} was listening"
        yield Message(at, what, f"add a step `- keys: {{from: {endpoint.peer}, keys: h}}` at the end")


def _latency(scenario: Scenario, path: Path, expect: Latency) -> Found:
    unknown = [
        *unknown_endpoint(scenario, (*path, "from"), expect.from_),
        *unknown_endpoint(scenario, (*path, "to"), expect.to),
    ]
    yield from unknown
    if not unknown and not (scenario.endpoints[expect.from_].stack == "kernel" and _crashes(scenario)):
        yield from _flow(scenario, path, expect.from_, expect.to, 1)
    limit = expect.most if expect.most is not None else expect.p99
    if limit is None:
        yield Message(path, "no limit is given, so nothing can be too late", "give p99 or most, in seconds")
    elif limit < expect.at_least:
        what = f"what took {expect.at_least:g} s is over the limit of {limit:g} s, so this can never hold"
        yield Message((*path, "at_least"), what, "ask for less, or allow more")


def _sequence(scenario: Scenario, path: Path, expect: Sequence) -> Found:
    yield from _flow(scenario, path, expect.from_, expect.to, 1)
    endpoint = scenario.endpoints.get(expect.from_)
    if endpoint is not None and not endpoint.extended:
        what = f"{expect.from_!r} sends no extended headers, so its lines have no numbers"
        yield Message((*path, "from"), what, f"write extended: true at endpoint {expect.from_!r}")
    sends = [index for index, step in enumerate(scenario.steps) if step.send and step.send.from_ == expect.from_]
    reads = [index for index, step in enumerate(scenario.steps) if step.records]
    if not reads or (sends and reads[-1] < sends[-1]):
        what = "nothing reads the kernel's log after the last send, so nobody knows which numbers there are"
        yield Message(path, what, "add a step `- records: {by: agent}` after it")


def _counters_agree(scenario: Scenario, path: Path, expect: CountersAgree) -> Found:
    devices = [*scenario.guest.nics, *scenario.guest.bonds]
    if expect.of not in devices:
        yield Message((*path, "of"), f"{expect.of!r} is no NIC or bond", suggest(expect.of, devices, "devices"))
    if not any(step.counters for step in scenario.steps):
        yield Message(path, "no step reads the counters", "add a step `- counters: {by: both}` when all has been sent")


_CHECKS: dict[type[Frozen], Callable[[Scenario, Path, Any], Found]] = {
    Delivered: _delivered,
    Parity: _parity,
    SawEvent: _event,
    Counted: _device_counted,
    CarrierFollows: _carrier_follows,
    Dropped: _dropped,
    QueuedDelivered: _queued_delivered,
    LostOnlyWhileDown: _lost_only_while_down,
    Failover: _failover,
    Polled: _polled,
    NotReceived: _not_received,
    ArpAnswered: _arp_answered,
    Echoed: _echoed,
    Pressed: _pressed,
    Flooded: _flooded,
    QueueStopped: _queue_stopped,
    BurstFailover: _burst_failover,
    Latency: _latency,
    HeldBack: _held_back,
    Sequence: _sequence,
    CountersAgree: _counters_agree,
    Uninterrupted: _uninterrupted,
    Dumped: dumped,
    Debugged: debugged,
}
