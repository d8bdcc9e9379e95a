"""One step of a testcase -> one Stage: the QMP commands, guest requests and waits that it becomes.

In: a `Step` with exactly one key, and its scenario. Out: a `Stage` with a title for people. Rule: a table of kinds, each a
function that returns its actions; waits the author asked for are never required, because their time-out is evidence.
"""

from __future__ import annotations

from typing import assert_never

from harness.plan import debugger, dump, injections
from harness.plan.addresses import ip_of, mac_of, nics_behind, nobody, port_of, tap_name
from harness.plan.crashes import CRASH_KEY, trigger
from harness.plan.machine import aftermath, machine_step
from harness.plan.model import Action, Ask, Await, Device, Host, Stage, StreamPlan
from harness.scenario.dumps import WaitDump
from harness.scenario.model import (
    ChannelName,
    Crash,
    Fault,
    FloodStep,
    Frames,
    Keys,
    Run,
    Scenario,
    Send,
    Step,
    Wait,
    WaitCarrier,
    WaitConsole,
    WaitEvent,
    WaitQueue,
    WaitReceived,
    WaitSent,
    WaitStopped,
)

PANIC_END = "end Kernel panic"  # kernel/panic.c, panic(): its last line
LAST_WORDS = 3.0  # seconds from the serial console's last line to the wire's; under emulation it is a millisecond
START = 15.0  # seconds until a sender has begun
ANSWER = 5.0  # seconds beyond the time that a command was given, in which the agent says that it ran out
STRANGE_SIZE, STRANGE_SEED = (64, 512), 1 << 48  # of frames that are not for the client; authors' seeds are small
SLOWEST = 200.0  # messages a second that even a software-emulated guest keeps up with


def step_stage(number: int, step: Step, scenario: Scenario) -> Stage:
    """Stage `number` (1 for the first step)."""
    title, actions = _translate(number, step, scenario)
    return Stage(step=number, title=title, actions=actions)


def _translate(number: int, step: Step, scenario: Scenario) -> tuple[str, tuple[Action, ...]]:
    if step.send is not None:
        return _send(step.send, scenario)
    if (translate := injections.of(step)) is not None:
        return translate(number, scenario)
    if step.fault is not None:
        return _fault(step.fault)
    if step.wait is not None:
        return _wait(step.wait)
    if step.frames is not None:
        return _frames(number, step.frames, scenario)
    if step.flood is not None:
        return _flood(step.flood, scenario)
    if step.reader is not None:
        args = {"nic": step.reader.nic, "state": step.reader.state}
        return f"reader of {step.reader.nic} {step.reader.state}", (Host(op="reader", args=args),)
    if step.keys is not None:
        return _keys(step.keys, scenario)
    if step.crash is not None:
        return _crash(step.crash, scenario)
    if step.dump_server is not None:
        return dump.server_step(scenario, step.dump_server)
    if step.debug is not None:
        return debugger.debug_step(scenario, step.debug)
    if step.machine is not None:
        return machine_step(step.machine)
    if step.context is not None:
        return "our stack crashes: it polls, and nothing interrupts it", (Ask(op="np_crash"),)
    if step.run is not None:
        return _run(step.run, scenario.guest.channel)
    if step.records is not None:
        return "read the kernel's log", (Ask(op="records"),)
    if step.counters is not None:
        return "read the counters", (Ask(op="ifstats"), Host(op="ifstats"))
    raise ValueError("a step has exactly one key; the loader rejects others")


def _send(send: Send, scenario: Scenario) -> tuple[str, tuple[Action, ...]]:
    endpoint = scenario.endpoints[send.from_]
    label = send.label or send.from_
    low, high = send.size
    args = {
        "endpoint": send.from_,
        "label": label,
        "count": send.count,
        "size_low": low,
        "size_high": high,
        "interval": float(send.interval),
        "seed": send.seed,
        "background": send.background,
    }
    within = START if send.background else START + send.count * (send.interval + 1 / SLOWEST)
    op = "kmsg_send" if endpoint.stack == "kernel" else "np_send"
    start: Action = Host(op=op, args=args) if endpoint.at == "host" else Ask(op=op, args=args, within=within)
    finish = () if send.background else (Await(what="sent", of=label, within=within),)
    what = "kernel messages" if endpoint.stack == "kernel" else "datagrams"
    where = " in the background" if send.background else ""
    return f"send {send.count} {what} from {send.from_}{where}", (start, *finish)


def _fault(fault: Fault) -> tuple[str, tuple[Action, ...]]:
    """Two are no state of the model's faults: an interrupt out of nothing, and a cable that comes and goes without a word."""
    name = fault.begin or fault.end or ""
    title = f"{name} {'begins' if fault.begin else 'ends'} on {fault.nic}"
    if name == "spurious-interrupt":
        return title, (Device(nic=fault.nic, op="interrupt"),)
    if name == "silent-link":
        return title, (Device(nic=fault.nic, op="link", args={"up": fault.begin is None, "silent": True}),)
    how = {"chance": fault.chance, "seconds": fault.seconds, "direction": fault.direction} if fault.begin else {}
    return title, (Device(nic=fault.nic, op="fault", args={"name": name, "on": fault.begin is not None, **how}),)


def _wait(wait: Wait) -> tuple[str, tuple[Action, ...]]:
    match wait:
        case WaitCarrier():
            action = Await(what="carrier", of=wait.carrier, state=wait.state, within=wait.within)
            title = f"carrier of {wait.carrier} {wait.state}"
        case WaitEvent():
            action = Await(what="event", of=wait.event, within=wait.within)
            title = f"QMP event {wait.event}"
        case WaitConsole():
            action = Await(what="console", of=wait.console, within=wait.within)
            title = f"console line like /{wait.console}/"
        case WaitReceived():
            action = Await(what="received", of=wait.received, count=wait.count, within=wait.within)
            title = f"{wait.count} received at {wait.received}"
        case WaitSent():
            action = Await(what="sent", of=wait.sent, within=wait.within)
            title = f"all of {wait.sent} sent"
        case WaitStopped():
            action = Await(what="dropped", of=wait.dropped, count=wait.count, within=wait.within)
            title = f"{wait.count} handed to the drop routine of {wait.dropped}"
        case WaitQueue():
            action = Await(what="queue", of=wait.queue, state=wait.state, within=wait.within)
            title = f"the TX queue of {wait.queue} {wait.state}"
        case WaitDump():
            size = round(wait.mib * (1 << 20)) or 1
            action = Await(what="dump", of=wait.dump, count=size if wait.dump == "begun" else 1, within=wait.within)
            title = "the whole dump" if wait.dump == "complete" else f"{wait.mib:g} MiB of a dump"
        case _:
            assert_never(wait)
    return f"wait for {title}", (action,)


def _frames(number: int, frames: Frames, scenario: Scenario) -> tuple[str, tuple[Action, ...]]:
    stream = strange_stream(number, frames).model_dump(mode="json")
    args = {"endpoint": frames.from_, "what": frames.kind, "stream": stream, "other": nobody(scenario)}
    return f"{frames.count} frames {frames.kind} from {frames.from_}", (Host(op="np_frames", args=args),)


def strange_stream(number: int, frames: Frames) -> StreamPlan:
    """The payloads of step `number`: the seed of each step is its own, so that each frame can be told from every other."""
    low, high = STRANGE_SIZE
    return StreamPlan(
        label=frames.label or frames.kind, count=frames.count, size_low=low, size_high=high, seed=STRANGE_SEED + number
    )


def _flood(flood: FloodStep, scenario: Scenario) -> tuple[str, tuple[Action, ...]]:
    """From the peer's addresses to the endpoint's, over each tap behind its device."""
    mine = scenario.endpoints[flood.to]
    peer = scenario.endpoints[mine.peer]
    flow = {
        "local_mac": mac_of(scenario, peer),
        "local_ip": ip_of(scenario, mine.peer),
        "local_port": port_of(scenario, mine.peer),
        "remote_mac": mac_of(scenario, mine),
        "remote_ip": ip_of(scenario, flood.to),
        "remote_port": port_of(scenario, flood.to),
    }
    nics = list(scenario.guest.nics)
    taps = (tap_name(nic, nics.index(nic)) for nic in nics_behind(scenario, mine.device))
    how = {"kind": flood.kind, "rate": flood.rate, "seed": flood.seed}
    actions = tuple(Host(op="flood", args={"target": {"tap": tap, **flow}, **how}) for tap in taps)
    return f"flood {flood.to} with {flood.kind}, {flood.rate} frames a second", actions


def _keys(keys: Keys, scenario: Scenario) -> tuple[str, tuple[Action, ...]]:
    whose = f", as if from another {keys.forge}" if keys.forge else ""
    return f"keys {keys.keys} from {keys.from_}{whose}", (Host(op="np_keys", args=_key_args(keys, scenario)),)


def _key_args(keys: Keys, scenario: Scenario) -> dict[str, object]:
    return {"endpoint": keys.from_, "keys": keys.keys, "part": keys.forge, "other": nobody(scenario)}


def _crash(crash: Crash, scenario: Scenario) -> tuple[str, tuple[Action, ...]]:
    """The crash, then the panic's last line."""
    until = next((expect.parity.until for expect in scenario.expect if expect.parity), PANIC_END)
    begin = trigger(crash)
    if crash.from_ is not None:
        keys = Keys.model_validate({"from": crash.from_, "keys": CRASH_KEY})
        begin = (Host(op="crash", args={"how": crash.how, **_key_args(keys, scenario)}),)
    title = f"crash by {crash.how}"
    if after := aftermath(scenario, crash):
        return title, (*begin, *after)
    if dump.captures(scenario):
        return title, (*begin, dump.panic(crash.within))
    panic = Await(what="panic", of=until, within=crash.within)
    return title, (*begin, panic, *_last_words(scenario, until))


def _last_words(scenario: Scenario, until: str) -> tuple[Await, ...]:
    """The kernel serves its consoles one after the other, the serial line before netconsole: when the last line is on the
    serial console it is still on its way to the wire."""
    logs = [end.peer for end in scenario.endpoints.values() if end.stack == "kernel"]
    return tuple(Await(what="text", of=log, text=until, within=LAST_WORDS) for log in logs)


def _run(run: Run, via: ChannelName) -> tuple[str, tuple[Action, ...]]:
    args = {"argv": list(run.argv), "within": run.within, "may_fail": run.may_fail}
    return f"run {' '.join(run.argv)}", (Ask(via=via, op="run", args=args, within=run.within + ANSWER),)
