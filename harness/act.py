"""What each action of a plan does to a running case.

In: a `Case` and a stage of its plan. Out: things done, and evidence that they were. Rule: one function for each kind of action, no
decision in any of them; what the testbed could not do raises TestbedError.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from harness.case import Case, Silent
from harness.debugger.attach import attach, give_address, prepare
from harness.debugger.errors import SymbolsError
from harness.dump import findings
from harness.dump.server import DumpServer
from harness.inject import links
from harness.inject.burst import arm
from harness.inject.flood import Flood, Target
from harness.inject.npcrash import load
from harness.inject.pause import resynchronise
from harness.nic.client import ServedNic
from harness.observe.capture import Capture
from harness.observe.relay import Relay
from harness.observe.taps import tap_counters
from harness.plan.model import (
    Action,
    AddTap,
    AddWire,
    Arm,
    Ask,
    Await,
    Device,
    Flapping,
    Gone,
    Host,
    Kill,
    Load,
    Qmp,
    Serve,
    Stage,
    TapLink,
    Type,
)
from harness.testbed import symbols
from harness.testbed.channels.doors import open_channel
from harness.testbed.channels.requests import perform
from harness.testbed.errors import GuestSilent, QmpRefused, Unable
from harness.testbed.qmp import Qmp as QmpSession
from harness.testbed.tap import open_tap
from harness.waits import await_evidence, where_is_it

NO_SUCH_DEVICE = "is not a valid device model name"  # qemu: system/qdev-monitor.c, qdev_get_device_class()


async def run_stage(case: Case, stage: Stage) -> None:
    """Do what one step of the testcase became. Raises TestbedError, and Silent."""
    if not all(isinstance(action, Await) for action in stage.actions):
        case.machine.drain_console()  # what was printed before is older than this step
        case.acted = len(case.evidence.events)
    case.evidence.add("run", "stage", step=stage.step, title=stage.title)
    for action in stage.actions:
        began, used = time.monotonic(), case.machine.used()
        if case.ahead:
            case.ahead.popleft()
        await _act(case, action)
        seconds, machine = round(time.monotonic() - began, 6), round(case.machine.used() - used, 6)
        case.evidence.add("run", "did", step=stage.step, what=word_of(action), seconds=seconds, machine=machine)


def word_of(action: Action) -> str:
    """An action in a word or two, for evidence: a QMP command or a request by its name, others by what they are."""
    match action:
        case Qmp():
            return action.execute
        case Ask() | Host():
            return f"{action.op} at {'host' if isinstance(action, Host) else 'guest'}"
        case Await():
            return f"await {action.what}"
        case _:
            return type(action).__name__


async def _act(case: Case, action: Action) -> None:
    match action:
        case AddTap():
            _add_tap(case, action)
        case AddWire():
            _add_wire(case, action)
        case Serve():
            await _serve(case, action)
        case Device():
            await _device(case, action)
        case Qmp():
            await _qmp(case, action)
        case Type():
            case.machine.type(action.text)
        case Load():
            _more_symbols(case, await load(case.machine, case.crash_module))
        case Kill():
            case.evidence.add("inject", "crash", how="kill")
            case.crashed = True
            case.machine.process.kill()
        case Gone():
            await _gone(case, action)
        case Ask():
            await _ask(case, action)
        case Host():
            await _host(case, action)
        case Await():
            await await_evidence(case, action)
        case Arm():
            arm(action, case.evidence, case.machine.fast, partial(_fired, case), case.fired)
        case TapLink():
            await links.tap_link(action, case.taps[action.tap], case.evidence)
        case Flapping():
            await _flap(case, action)
        case _:
            assert_never(action)


def _add_tap(case: Case, action: AddTap) -> None:
    tap = action.tap
    case.taps[tap] = open_tap(tap, action.mac)
    _watch(case, tap, Capture(tap, _nic_on(case, tap), case.folder / f"{tap}.pcapng", case.evidence))


def _add_wire(case: Case, action: AddWire) -> None:
    wire = action.wire
    relay = Relay(wire, _nic_on(case, wire), case.folder / f"{wire}.pcapng", case.evidence)
    case.taps[wire], case.sockets[wire] = relay.for_qemu, relay.for_stack
    _watch(case, wire, relay)


def _reader(case: Case, nic: str, state: str) -> None:
    wire = case.captures[case.plan.nic(nic).tap]
    if not isinstance(wire, Relay):
        raise Unable(f"the wire of {nic} is a tap, which takes whatever it is given", "use --wires dgram")
    wire.hold(state == "stopped")
    case.evidence.add("inject", "reader", nic=nic, state=state)


def _nic_on(case: Case, tap: str) -> str:
    return next(nic.id for nic in case.plan.nics if nic.tap == tap)


def _watch(case: Case, name: str, capture: Capture | Relay) -> None:
    case.captures[name] = capture
    case.stack.callback(capture.close)
    loop = asyncio.get_running_loop()
    loop.add_reader(capture.fileno(), capture.drain)
    case.stack.callback(loop.remove_reader, capture.fileno())


async def _serve(case: Case, action: Serve) -> None:
    """Start the process of a device model; what it tells becomes evidence."""

    def observe(event: dict[str, Any]) -> None:
        stamps = {key: event.pop(key) - case.evidence.clock.zero for key in ("t", "since") if key in event}
        since = {"since": round(stamps["since"], 6)} if "since" in stamps else {}
        case.evidence.add("device", event.pop("kind"), t=stamps["t"], nic=action.nic, **since, **event)

    tap = case.taps[action.tap]
    case.served[action.nic] = ServedNic.start(tap, action.mac, observe, action.seed, action.model)


async def _device(case: Case, action: Device) -> None:
    command = case.served[action.nic].command(action.op, **action.args)
    await case.machine.alive(command, 10, f"the device's answer to {action.op}")
    if action.op == "link" and not action.args.get("silent"):
        state = "up" if action.args["up"] else "down"
        case.evidence.add("inject", "link", nic=action.nic, state=state)
    elif action.hold is not None:
        case.evidence.add("inject", "hold", seconds=action.hold, nic=action.nic, by="filter", way=action.way)
    elif action.state is not None:
        case.evidence.add("inject", "link", state=action.state, nic=action.nic, by="filter", way=action.way)
    else:
        case.evidence.add("inject", "fault", nic=action.nic, op=action.op, args=action.args)
    for capture in case.captures.values():
        capture.comment(f"{action.op} of {action.nic}: {action.args}")


async def _qmp(case: Case, action: Qmp, answer: Awaitable[Any] | None = None) -> None:
    """`answer`: of the fast lane, on which the command is under way already."""
    session: QmpSession = case.machine.qmp
    began = case.evidence.clock.now()
    if action.crash is not None:
        case.evidence.add("inject", "crash", how=action.crash)
        case.crashed = True
    fd = case.taps[action.fd_of] if action.fd_of is not None else None
    arguments = dict(action.arguments)
    if action.socket_of is not None:
        served = case.served[action.socket_of]
        await case.machine.alive(served.ready(), 40, f"the process that serves {action.socket_of}")
        arguments["socket"] = {"type": "unix", "path": served.path}
    answer = answer or session.execute(action.execute, arguments, fd)
    try:
        await case.machine.alive(answer, 30, f"QEMU's answer to {action.execute}")
    except QmpRefused as error:
        if action.execute == "device_add" and NO_SUCH_DEVICE in error.what:
            lacking = "vfio-user-pci" if action.socket_of is not None else action.arguments["driver"]
            raise Unable(f"this QEMU has no {lacking}", "the image's own has it: leave --qemu out") from error
        raise
    seconds = round(case.evidence.clock.now() - began, 6)
    case.evidence.add("qmp", "reply", execute=action.execute, arguments=action.arguments, seconds=seconds)
    if action.execute == "cont":
        await resynchronise(case.machine, case.offset)
    if action.link is not None:
        _changed(case, action)


def _changed(case: Case, action: Qmp | Ask) -> None:
    """Tell what has happened to a link."""
    keys: dict[str, Any] = {
        "nic": action.link,
        "by": action.by,
        "way": action.way if isinstance(action, Qmp) else "both",
    }
    if isinstance(action, Qmp) and action.hold is not None:
        case.evidence.add("inject", "hold", seconds=action.hold, **keys)
    else:
        case.evidence.add("inject", "link", state=action.state, **keys)
    for capture in case.captures.values():
        capture.comment(f"link of {action.link} {action.state or 'held'} by {action.by}")


async def _gone(case: Case, action: Gone) -> None:
    """Wait for the end of QEMU, and take what it has written until then."""
    case.crashed = True
    try:
        async with asyncio.timeout(action.within):
            await case.machine.died.wait()
    except TimeoutError:
        keys: dict[str, Any] = {"what": "gone", "of": "QEMU", "state": None, "count": 1, "within": action.within}
        case.evidence.add("await", "timeout", **keys, seen="it runs")
        return
    case.gone = True
    case.machine.drain_console()
    case.evidence.add("run", "gone", how=case.machine.ending())


async def _fired(case: Case, action: Qmp | Device | TapLink, answer: Awaitable[Any] | None) -> None:
    """What a fuse has set off."""
    if isinstance(action, Qmp):
        await _qmp(case, action, answer)
    else:
        await _act(case, action)


async def _flap(case: Case, action: Flapping) -> None:
    work = asyncio.ensure_future(links.flap(action, partial(_act, case)))
    if action.background:
        case.beside.append(work)
    else:
        await work


async def _ask(case: Case, action: Ask) -> None:
    if action.via != "agent":
        await _ask_via(case, action)
        return
    agent = case.machine.agent
    if action.op == "crash":
        case.evidence.add("inject", "crash", how=action.args["how"])
        case.crashed = True
        agent.tell(action.op, action.args)
        return
    try:
        await case.machine.alive(
            agent.ask(action.op, action.args, action.within), action.within + 5, f"the agent's answer to {action.op}"
        )
    except GuestSilent as silent:
        case.crashed = True  # or as good as: nothing more is asked of it
        case.evidence.add("run", "silent", what=silent.what)
        await where_is_it(case, silent.what)
        raise Silent from silent
    if action.link is not None:
        _changed(case, action)
    if action.op == "module":
        case.kallsyms = await _fresh_symbols(case)


async def _fresh_symbols(case: Case) -> Path:
    """A module that was loaded anew does not lie where the template's names say."""
    answer = case.machine.agent.ask("kallsyms", within=60)
    packed = await case.machine.alive(answer, 61, "the kernel's symbols")
    path = case.folder / "kallsyms"
    path.write_text(symbols.unpack(str(packed["packed"])))
    return path


def _more_symbols(case: Case, lines: Sequence[str]) -> None:
    """A module that was loaded besides moves no other."""
    path = case.folder / "kallsyms"
    path.write_text("".join(f"{line}\n" for line in (*case.kallsyms.read_text().splitlines(), *lines)))
    case.kallsyms = path


async def _ask_via(case: Case, action: Ask) -> None:
    """A request over the channel of the testcase's choice, which is opened when it is first needed."""
    if action.via not in case.channels:
        began = time.monotonic()
        channel = await open_channel(action.via, case.machine, case.login)
        case.channels[action.via] = channel
        case.stack.push_async_callback(channel.close)
        case.evidence.add("run", "timing", what=f"channel {action.via}", seconds=round(time.monotonic() - began, 4))
    tell = partial(case.evidence.add, "guest")
    answer = perform(case.channels[action.via], action.op, action.args, action.within, tell)
    await case.machine.alive(answer, 10 * action.within, f"the answer to {action.op} over {action.via}")


async def _host(case: Case, action: Host) -> None:
    if action.op == "ifstats":
        counted = tap_counters()
        for nic in case.plan.nics:
            case.evidence.add("host", "ifstats", nic=nic.id, values=counted.get(nic.tap, {}))
    elif action.op == "np_open":
        await asyncio.to_thread(case.endpoints.open, action.args, list(action.args["taps"]))
    elif action.op == "np_send":
        shape = {key: value for key, value in action.args.items() if key != "background"}
        case.endpoints.start_send(**shape)
    elif action.op == "np_frames":
        await asyncio.to_thread(case.endpoints.frames, **action.args)
    elif action.op == "reader":
        _reader(case, action.args["nic"], action.args["state"])
    elif action.op == "dump_server":
        await _dump_server(case, action.args)
    elif action.op == "debug":
        await _debug(case, action.args)
    elif action.op == "flood":
        flood = Flood(Target.of(action.args["target"]), action.args["kind"], action.args["rate"], action.args["seed"])
        case.stack.callback(flood.stop)
        case.floods.append(flood)
    elif action.op in ("np_keys", "crash"):
        if action.op == "crash":
            case.evidence.add("inject", "crash", how=action.args["how"])
            case.crashed = True
        await asyncio.to_thread(case.endpoints.keys, **{k: v for k, v in action.args.items() if k != "how"})
    else:
        raise ValueError(f"the host has no operation {action.op!r}")


async def _dump_server(case: Case, args: Mapping[str, Any]) -> None:
    if args["state"] == "killed":
        if case.dump_server is not None:
            case.dump_server.kill()
            case.evidence.add("host", "dump", what="killed")
        return

    def tell(what: str, **keys: Any) -> None:
        case.evidence.add("host", "dump", what=what, **keys)

    case.dump_server = await DumpServer.start(args, case.folder / findings.FOLDER, tell)
    case.stack.callback(case.dump_server.kill)


async def _debug(case: Case, args: Mapping[str, Any]) -> None:
    """One session of gdb's; its symbols, some 75 MB that the kernel image has itself, do not stay."""
    assert case.gdb is not None  # Bench.prepare(), and the checks of the scenario: no disk with a debugger
    assert case.vmlinux is not None
    await asyncio.to_thread(give_address, args["tap"], args["address"])
    with tempfile.NamedTemporaryFile(prefix="vmlinux-") as symbols:
        try:
            compared = await asyncio.to_thread(prepare, case.vmlinux, case.kallsyms, Path(symbols.name))
        except SymbolsError as error:
            raise Unable(f"no symbols for gdb: {error}", "use a kernel that the harness fetches") from error
        within = float(args["within"])
        work = asyncio.to_thread(attach, case.gdb.argv(), Path(symbols.name), args["target"], compared, within)
        session = await case.machine.alive(work, within + 30, "gdb's end")
    threads = [asdict(thread) for thread in session.threads]
    keys = {"rc": session.rc, "seconds": session.seconds, "memory": session.memory, "said": session.said}
    case.evidence.add("host", "debugger", threads=threads, **keys)
