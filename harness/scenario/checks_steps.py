"""Steps that cannot happen: what they name does not exist, or the steps before them rule it out.

In: one validated `Scenario`. Out: messages. Rule: the steps are read once, in order, and a `Story` remembers what a step may
depend on: labels started, links cut, and whether the guest is still alive.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from harness.frozen import Frozen
from harness.plan.addresses import ip_of
from harness.plan.nics import FAULTS, MODELS
from harness.scenario.checks_debugger import debug
from harness.scenario.checks_dump import dump_server, wait_dump
from harness.scenario.checks_inject import armed, inject
from harness.scenario.checks_links import filtered, flap, remove, restore
from harness.scenario.checks_machine import outlives, processors, starves
from harness.scenario.crashes import needed_sysctl
from harness.scenario.debuggers import Debug
from harness.scenario.document import Path
from harness.scenario.dumps import DumpServer, WaitDump
from harness.scenario.errors import suggest
from harness.scenario.injections import Filter, Flap, InjectLink, Remove, Restore
from harness.scenario.messages import Message
from harness.scenario.model import (
    Crash,
    Fault,
    FloodStep,
    Frames,
    Keys,
    MachineStep,
    Reader,
    Run,
    Scenario,
    Send,
    WaitCarrier,
    WaitConsole,
    WaitEvent,
    WaitQueue,
    WaitReceived,
    WaitSent,
    WaitStopped,
)
from harness.scenario.oracles import ReadCounters, ReadRecords
from harness.scenario.polling import ContextStep
from harness.scenario.story import (
    Found,
    Story,
    alive,
    given,
    is_served,
    served_nic,
    unknown_endpoint,
    unknown_nic,
    unseen_link,
)

DATAGRAM_HEADER = 18  # bytes: guest.netpoll.clients.sequence.HEADER_LENGTH
ETHERNET_MTU, IP_UDP = 1500, 28
IPV6_UDP = 40 + 8
LOWEST_MTU = 68
KMSG_LIMIT = 960  # with its time stamp a line stays inside one netconsole datagram (1000 bytes) and one printk record


def check_steps(scenario: Scenario) -> Found:
    story = Story(scenario)
    for index, step in enumerate(scenario.steps):
        kind, value = given(step)
        path: Path = ("steps", index, kind)
        yield from _within(scenario, path, value)
        yield from _CHECKS[type(value)](story, index, path, value)
    yield from armed(story)
    if story.crashed is None:
        for label, index in story.running.items():
            what = f"nothing waits for the end of the background send {label!r}"
            yield Message(("steps", index, "send"), what, f"add a step `- wait: {{sent: {label}}}` after it")


def _within(scenario: Scenario, path: Path, value: Any) -> Found:
    within = getattr(value, "within", 0)
    if "within" in value.model_fields_set and within > scenario.timeout:
        what = f"within {within:g} s is longer than the case's timeout of {scenario.timeout:g} s"
        yield Message((*path, "within"), what, "raise `timeout`, or shorten it")


def _send(story: Story, index: int, path: Path, send: Send) -> Found:
    scenario, label = story.scenario, send.label or send.from_
    endpoint = scenario.endpoints.get(send.from_)
    yield from unknown_endpoint(scenario, (*path, "from"), send.from_)
    if endpoint is not None:
        yield from _size(scenario, path, send)
        if endpoint.at == "guest":
            yield from alive(story, path, f"{send.from_!r} is to send")
        peer = scenario.endpoints.get(endpoint.peer)
        if peer is not None and peer.stack == "kernel":
            what = f"{send.from_!r} sends to {endpoint.peer!r}, but the kernel's netconsole receives nothing"
            yield Message((*path, "from"), what, "give the guest's endpoint stack: netpoll")
        if endpoint.echo:
            what = f"{send.from_!r} sends back what it is sent, so its own messages cannot be told from those"
            yield Message((*path, "from"), what, "send from another endpoint")
    if label in story.sends or label in story.strange:
        yield Message((*path, "label"), f"a send called {label!r} comes before", "give this one a label of its own")
    yield from _same_stream(story, path, send)
    story.sends.setdefault(label, send)
    if send.background:
        story.running[label] = index


def _size(scenario: Scenario, path: Path, send: Send) -> Found:
    low, high = send.size
    endpoint = scenario.endpoints[send.from_]
    at = (*path, "size")
    if low > high:
        yield Message(at, f"the lowest size {low} is above the highest {high}", "write [lowest, highest]")
    if endpoint.stack == "kernel":
        floor, ceiling, why = 1, KMSG_LIMIT, "a numbered line with its time stamp must fit one netconsole datagram"
    else:
        nic = scenario.guest.nics.get(endpoint.device)
        mtu = max(nic.mtu if nic and nic.mtu else ETHERNET_MTU, LOWEST_MTU)
        floor, ceiling, why = (
            DATAGRAM_HEADER,
            mtu - (IPV6_UDP if ":" in ip_of(scenario, send.from_) else IP_UDP),
            "netpoll does not fragment; a number takes 18 bytes",
        )
    if low < floor or high > ceiling:
        yield Message(at, f"sizes {low} to {high} are not within {floor} to {ceiling}: {why}", "change `size`")


def _same_stream(story: Story, path: Path, send: Send) -> Found:
    """A receiver knows a datagram's stream by seed and size alone (guest.netpoll.clients.sequence)."""
    endpoint = story.scenario.endpoints.get(send.from_)
    if endpoint is None or endpoint.stack == "kernel":  # kernel messages carry their label
        return
    for label, other in story.sends.items():
        if (other.from_, other.seed, other.size) == (send.from_, send.seed, send.size):
            what = f"datagrams of this send cannot be told from those of {label!r}"
            yield Message(path, what, "give it another `seed`")


def _fault(story: Story, _index: int, path: Path, fault: Fault) -> Found:
    yield from served_nic(story.scenario, (*path, "nic"), fault.nic)
    yield from _known_fault(story, (*path, "begin"), fault)
    if (fault.begin is None) == (fault.end is None):
        yield Message(path, "a fault either begins or ends", "give one of begin, end")
    if fault.begin in ("delay", "slow") and not fault.seconds:
        yield Message((*path, "begin"), f"{fault.begin} by 0 seconds changes nothing", "give `seconds`")
    begun = story.faults.setdefault(fault.nic, [])
    if fault.end is not None and fault.end in begun:
        begun.remove(fault.end)
    elif fault.end is not None:
        yield Message((*path, "end"), f"{fault.end!r} has not begun on {fault.nic!r} here", "begin it before")
    if fault.begin is not None and fault.begin != "spurious-interrupt":
        begun.append(fault.begin)


def _known_fault(story: Story, path: Path, fault: Fault) -> Found:
    """Each model of ours has faults of its own."""
    nic = story.scenario.guest.nics.get(fault.nic)
    model = MODELS.get(nic.model) if nic is not None else None
    has = FAULTS.get(model.ours, ()) if model is not None and model.ours is not None else None
    if has is not None and fault.begin is not None and fault.begin not in has:
        yield Message(path, f"{nic.model if nic else ''} has no fault {fault.begin!r}", f"it has {', '.join(has)}")


def _wait_carrier(story: Story, _index: int, path: Path, wait: WaitCarrier) -> Found:
    guest, at = story.scenario.guest, (*path, "carrier")
    if wait.carrier not in guest.nics and wait.carrier not in guest.bonds:
        what = f"{wait.carrier!r} is no NIC or bond"
        yield Message(at, what, suggest(wait.carrier, [*guest.nics, *guest.bonds], "devices"))
    else:
        yield from _carrier_agrees(story, path, wait)
    yield from alive(story, path, "the guest is to see a carrier")


def _carrier_agrees(story: Story, path: Path, wait: WaitCarrier) -> Found:
    """The carrier follows the link that was injected; a bond has carrier as long as one slave has."""
    bond = story.scenario.guest.bonds.get(wait.carrier)
    links = bond.slaves if bond else (wait.carrier,)
    for nic in links:
        yield from unseen_link(story.scenario, (*path, "carrier"), nic)
    is_down = all(nic in story.down for nic in links)
    if wait.state == "down" and not is_down:
        yield Message((*path, "state"), f"{wait.carrier!r} has its link here", "inject link down before waiting for it")
    if wait.state == "up" and is_down:
        yield Message(
            (*path, "state"), f"the link of {wait.carrier!r} is down here", "inject link up before waiting for it"
        )


def _wait_received(story: Story, _index: int, path: Path, wait: WaitReceived) -> Found:
    scenario, at = story.scenario, (*path, "received")
    yield from unknown_endpoint(scenario, at, wait.received)
    endpoint = scenario.endpoints.get(wait.received)
    if endpoint is None or endpoint.peer not in scenario.endpoints:
        return
    if endpoint.stack == "kernel":
        yield Message(at, f"{wait.received!r} is the kernel's netconsole, which receives nothing", "wait at its peer")
        return
    if endpoint.at == "guest":
        yield from alive(story, path, f"{wait.received!r} is to receive")
    sent = story.sent_to(wait.received)
    if scenario.endpoints[endpoint.peer].ours and wait.count > sent:
        what = f"{wait.count} can never arrive: {sent} are sent to {wait.received!r} up to here"
        yield Message((*path, "count"), what, f"send more from {endpoint.peer!r} before, or wait for fewer")


def _wait_queue(story: Story, _index: int, path: Path, wait: WaitQueue) -> Found:
    nics = story.scenario.guest.nics
    if wait.queue not in nics:
        yield Message((*path, "queue"), f"{wait.queue!r} is no NIC", suggest(wait.queue, nics, "NICs"))


def _wait_sent(story: Story, _index: int, path: Path, wait: WaitSent) -> Found:
    at = (*path, "sent")
    send = story.sends.get(wait.sent)
    if send is None:
        what = f"no send called {wait.sent!r} comes before"
        yield Message(at, what, suggest(wait.sent, story.sends, "sends before this step"))
        return
    endpoint = story.scenario.endpoints.get(send.from_)
    if endpoint is not None and endpoint.at == "guest":
        yield from alive(story, path, f"{wait.sent!r} is to be finished")
    story.running.pop(wait.sent, None)


def _wait_dropped(story: Story, _index: int, path: Path, wait: WaitStopped) -> Found:
    at = (*path, "dropped")
    yield from unknown_endpoint(story.scenario, at, wait.dropped)
    endpoint = story.scenario.endpoints.get(wait.dropped)
    if endpoint is None:
        return
    yield from has_drop_routine(story.scenario, at, wait.dropped)
    if endpoint.at == "guest":
        yield from alive(story, path, f"{wait.dropped!r} is to drop")


def has_drop_routine(scenario: Scenario, path: Path, name: str) -> Found:
    """Only our stack's has one that tells, and only the guest's sees a link go down."""
    endpoint = scenario.endpoints[name]
    if endpoint.stack == "kernel":
        what = f"{name!r} is the kernel's netconsole, which has no drop routine to report"
        yield Message(path, what, "use stack: netpoll, or lost_only_while_down")
    elif endpoint.at == "host":
        what = f"{name!r} is on a tap of the host, which keeps its carrier whatever is injected"
        yield Message(path, what, "name the guest's endpoint")


def _wait_console(_story: Story, _index: int, path: Path, wait: WaitConsole) -> Found:
    yield from expression((*path, "console"), wait.console)


def expression(path: Path, text: str) -> Found:
    """What is searched in lines of the console has to be a regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        yield Message(path, f"{text!r} is no regular expression: {error}", "escape special characters with \\")


def _wait_event(_story: Story, _index: int, _path: Path, _wait: WaitEvent) -> Found:
    yield from ()


def to_our_guest(scenario: Scenario, path: Path, sender: str, what: str) -> Found:
    """`sender` is a host's endpoint, and its peer is our stack in the guest."""
    yield from unknown_endpoint(scenario, path, sender)
    endpoint = scenario.endpoints.get(sender)
    peer = scenario.endpoints.get(endpoint.peer) if endpoint else None
    if endpoint is not None and endpoint.at == "guest":
        yield Message(path, f"{sender!r} is in the guest; {what} come from the host", "name the host's endpoint")
    elif endpoint is not None and peer is not None and peer.stack == "kernel":
        said = f"the peer of {sender!r} is the kernel's netconsole, which receives nothing"
        yield Message(path, said, f"give {endpoint.peer!r} stack: netpoll")


def _of_version_4(scenario: Scenario, path: Path, name: str, what: str) -> Found:
    if name in scenario.endpoints and ":" in ip_of(scenario, name):
        yield Message(path, f"{what} are made over IPv4 alone, and {name!r} speaks IPv6", "use another endpoint")


def _frames(story: Story, _index: int, path: Path, frames: Frames) -> Found:
    yield from to_our_guest(story.scenario, (*path, "from"), frames.from_, "strange frames")
    yield from alive(story, path, "the guest is to be sent frames")
    yield from _of_version_4(story.scenario, (*path, "from"), frames.from_, "strange frames")
    label = frames.label or frames.kind
    if label in story.sends or label in story.strange:
        what = f"frames called {label!r} come before" if label in story.strange else f"a send is called {label!r} too"
        yield Message((*path, "label"), what, "give these a label of their own")
    story.strange.setdefault(label, frames)


def _flood(story: Story, _index: int, path: Path, flood: FloodStep) -> Found:
    yield from unknown_endpoint(story.scenario, (*path, "to"), flood.to)
    yield from _of_version_4(story.scenario, (*path, "to"), flood.to, "floods")
    endpoint = story.scenario.endpoints.get(flood.to)
    if endpoint is not None and endpoint.at == "host":
        yield Message(
            (*path, "to"), f"{flood.to!r} is on the host; a flood goes to the guest", f"write to: {endpoint.peer}"
        )
    yield from alive(story, path, "a flood is to begin")


def _reader(story: Story, _index: int, path: Path, reader: Reader) -> Found:
    """virtio-net alone leaves a frame in its ring that its backend does not take; other models throw it into QEMU's queue."""
    yield from unknown_nic(story.scenario, (*path, "nic"), reader.nic)
    nic = story.scenario.guest.nics.get(reader.nic)
    if nic is not None and not nic.model.startswith("virtio-net"):
        queued = f"QEMU's {nic.model} does not wait for a reader: what it does not take is queued in QEMU"
        lost = f"{nic.model} is a model of ours, which loses what nobody reads"
        what = lost if is_served(story.scenario, reader.nic) else queued
        yield Message((*path, "nic"), what, "use virtio-net")
    stopped = reader.nic in story.stopped
    if stopped == (reader.state == "stopped"):
        what = f"the reader of {reader.nic!r} {'has stopped' if stopped else 'runs'} already"
        yield Message((*path, "state"), what, "remove this step")
    (story.stopped.add if reader.state == "stopped" else story.stopped.discard)(reader.nic)


def takes_keys(scenario: Scenario, path: Path, sender: str) -> Found:
    """The peer of `sender` is a client that presses keys."""
    yield from to_our_guest(scenario, path, sender, "keys")
    endpoint = scenario.endpoints.get(sender)
    peer = scenario.endpoints.get(endpoint.peer) if endpoint else None
    if endpoint is not None and peer is not None and endpoint.at == "host" and peer.ours and not peer.sysrq:
        yield Message(path, f"{endpoint.peer!r} presses no keys", f"write sysrq: true at endpoint {endpoint.peer!r}")


def _keys(story: Story, _index: int, path: Path, keys: Keys) -> Found:
    yield from takes_keys(story.scenario, (*path, "from"), keys.from_)
    yield from alive(story, path, "keys are to be pressed")
    if keys.forge is not None:
        yield from _of_version_4(story.scenario, (*path, "from"), keys.from_, "forged keys")
    if "c" in keys.keys and keys.forge is None:
        remedy = f"write a step `- crash: {{how: sysrq-wire, from: {keys.from_}}}`"
        yield Message((*path, "keys"), "the letter c crashes the guest", remedy)


def _wire(story: Story, path: Path, crash: Crash) -> Found:
    if crash.how == "sysrq-wire" and crash.from_ is None:
        yield Message(path, "nobody is named who sends the letter c", "add from: and a host's endpoint")
    elif crash.how == "sysrq-wire" and crash.from_ is not None:
        yield from takes_keys(story.scenario, (*path, "from"), crash.from_)
    elif crash.from_ is not None:
        yield Message((*path, "from"), f"a crash by {crash.how} comes from no endpoint", "remove it")


def _crash(story: Story, index: int, path: Path, crash: Crash) -> Found:
    yield from alive(story, path, "a second crash")
    yield from _wire(story, path, crash)
    yield from starves(story.scenario, path, crash)
    yield from processors(story.scenario, path, crash)
    for name, value in needed_sysctl(story.scenario.guest, crash).items():
        if str(story.scenario.guest.sysctl.get(name, value)) == "0":
            what = f"{name} is 0, so {crash.how} crashes nothing"
            yield Message(("guest", "sysctl", name), what, f"remove it: the plan sets it to {value}")
    if story.crashed is None:
        story.crashed = index


def _machine(story: Story, index: int, path: Path, step: MachineStep) -> Found:
    if step.do == "resume":
        stops = story.paused is not None
        if story.crashed is not None or not stops:
            what = "the guest has crashed" if story.crashed is not None else "the machine runs"
            yield Message((*path, "do"), f"{what} here, so there is nothing to resume", "remove this step")
        story.paused = None
        return
    yield from alive(story, path, "the machine is to be paused" if step.do == "pause" else "the watchdog is to starve")
    if step.do == "starve":
        yield from outlives(story.scenario, path)
    if step.do == "pause" or story.scenario.guest.watchdog == "pause":
        story.paused = index


def _run(story: Story, _index: int, path: Path, _run: Run) -> Found:
    yield from alive(story, path, "the guest is to run a command")


def _records(story: Story, _index: int, path: Path, _records: ReadRecords) -> Found:
    yield from alive(story, path, "the guest is to read its log")


def _counters(story: Story, _index: int, path: Path, _counters: ReadCounters) -> Found:
    yield from alive(story, path, "the guest is to read its counters")


def _context(story: Story, index: int, path: Path, step: ContextStep) -> Found:
    yield from unknown_endpoint(story.scenario, (*path, "of"), step.of)
    yield from alive(story, path, "our stack is to crash")
    endpoint = story.scenario.endpoints.get(step.of)
    if endpoint is not None and endpoint.stack != "pmd":
        what = f"{step.of!r} is on {endpoint.stack}; a NIC is polled in a crashed context by a driver of ours only"
        yield Message((*path, "of"), what, "name an endpoint of the guest with stack: pmd")
    if story.polling is not None:
        yield Message(path, f"step {story.polling + 1} has crashed our stack already", "remove one of them")
    own = {label for label in story.running if story.scenario.endpoints[story.sends[label].from_].at == "guest"}
    for label in sorted(own):
        what = f"the background send {label!r} runs while our stack is to crash"
        yield Message(path, what, f"wait for it before: `- wait: {{sent: {label}}}`")
    story.polling = index


_CHECKS: dict[type[Frozen], Callable[[Story, int, Path, Any], Found]] = {
    Send: _send,
    InjectLink: inject,
    Flap: flap,
    Remove: remove,
    Restore: restore,
    Filter: filtered,
    Fault: _fault,
    WaitCarrier: _wait_carrier,
    WaitEvent: _wait_event,
    WaitConsole: _wait_console,
    WaitQueue: _wait_queue,
    WaitReceived: _wait_received,
    WaitSent: _wait_sent,
    WaitStopped: _wait_dropped,
    WaitDump: wait_dump,
    DumpServer: dump_server,
    Debug: debug,
    Frames: _frames,
    Reader: _reader,
    FloodStep: _flood,
    Keys: _keys,
    Crash: _crash,
    MachineStep: _machine,
    Run: _run,
    ReadRecords: _records,
    ReadCounters: _counters,
    ContextStep: _context,
}
