"""A plan in words: what `netpoll-harness explain CASE` prints.

In: a `Plan` and the argv that its QEMU would be started with. Out: text, one action a line, QMP as the JSON that goes over the
socket. Rule: shows what the plan says and nothing else, so that it can be compared with evidence.jsonl line by line.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any, assert_never

from harness.plan.model import (
    Action,
    AddTap,
    AddWire,
    Arm,
    Ask,
    Await,
    Device,
    EndpointPlan,
    Flapping,
    Gone,
    Host,
    Kill,
    Load,
    NicPlan,
    Plan,
    Qmp,
    Serve,
    TapLink,
    Type,
    Wires,
)


def explain(plan: Plan, argv: Sequence[str] = ()) -> str:
    """The whole plan. Without `argv` the QEMU command is left out."""
    return "\n".join(_lines(plan, argv)) + "\n"


def _lines(plan: Plan, argv: Sequence[str]) -> Iterator[str]:
    machine = plan.machine
    yield f"{plan.case}  ({plan.source})"
    yield f"  {plan.scenario.about}"
    yield from (f"  includes {each}" for each in plan.includes)
    yield ""
    yield f"machine: {machine.machine}, {machine.memory} MiB, {machine.smp} CPU, kernel {machine.kernel}"
    yield f"  cmdline: {machine.cmdline}"
    yield from (f"  {line}" for line in command_lines(argv))
    yield "nics:"
    yield from (f"  {_nic(nic, plan.wires)}" for nic in plan.nics)
    yield "endpoints:" if plan.endpoints else "endpoints: none"
    yield from (f"  {_endpoint(endpoint)}" for endpoint in plan.endpoints)
    for stage in plan.stages:
        yield f"step {stage.step}: {stage.title}"
        yield from (f"  {_action(action)}" for action in stage.actions)
    yield "expect:"
    yield from (f"  {line}" for expect in plan.expect for line in _expect(expect.model_dump(by_alias=True)))
    if plan.known_bug is not None:
        where = f" where the console has `{plan.known_bug.console}`" if plan.known_bug.console else ""
        where += f" where a TX queue stays stopped ({plan.known_bug.queue})" if plan.known_bug.queue else ""
        yield f"known bug: {plan.known_bug.verdict} is expected{where}: {plan.known_bug.reason}"
    yield from (f"known of {bug.driver}: {bug.reason}" for bug in plan.driver_bugs)
    yield f"timeout: {plan.timeout:g} s"


def command_lines(argv: Sequence[str]) -> Iterator[str]:
    """A command that can be pasted into a shell, an option and its value on a line."""
    lines: list[list[str]] = []
    for word in argv:
        if not lines or (word.startswith("-") and len(lines[-1]) > 0):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    for number, line in enumerate(lines):
        yield ("" if number == 0 else "  ") + " ".join(line) + (" \\" if number < len(lines) - 1 else "")


def _nic(nic: NicPlan, wires: Wires) -> str:
    bus = f" on {nic.bus}" if nic.bus else ""
    mtu = f", mtu {nic.mtu}" if nic.mtu else ""
    wire = "tap" if wires == "tap" else "wire"
    return f"{nic.id}: {nic.device}{bus}, {nic.mac}, driver {nic.driver}, {wire} {nic.tap}{mtu}"


def _endpoint(endpoint: EndpointPlan) -> str:
    stack = "kernel netconsole" if endpoint.stack == "kernel" else ", ".join(_ours(endpoint))
    behind = f", behind a bond of mode {endpoint.bond_mode}" if endpoint.bond_mode else ""
    extended = ", extended headers" if endpoint.extended else ""
    options = endpoint.options("+".join(endpoint.devices))
    return f"{endpoint.id} -> {endpoint.peer}: {endpoint.at}, {stack}{behind}{extended}, {options}"


_HOOKS: tuple[tuple[str, Callable[[EndpointPlan], bool]], ...] = (
    ("sends back what it is sent", lambda endpoint: endpoint.echo),
    ("traps", lambda endpoint: endpoint.trap),
    ("presses sysrq keys", lambda endpoint: endpoint.sysrq),
)


def _ours(endpoint: EndpointPlan) -> Iterator[str]:
    yield f"our stack, drop routine: {endpoint.on_drop}"
    if endpoint.stack == "pmd":
        yield "driver: our own"
    if endpoint.driver != "af_packet":
        yield f"driver: {endpoint.driver}"
    if endpoint.sndbuf is not None:
        yield f"socket buffer: {endpoint.sndbuf} bytes"
    yield from (word for word, is_so in _HOOKS if is_so(endpoint))


def _action(action: Action) -> str:
    match action:
        case AddTap():
            return f"tap    {action.tap}"
        case AddWire():
            return f"wire   {action.wire}, datagram sockets"
        case Qmp():
            fd = f"  with the descriptor of {action.fd_of}" if action.fd_of else ""
            fd += f"  with the socket of {action.socket_of}" if action.socket_of else ""
            return f"qmp    {_json(_qmp(action))}{fd}"
        case Type():
            return f"type   {_json(action.text)} on the serial line"
        case Load():
            return "load   npcrash.ko"
        case Kill():
            return "kill   QEMU"
        case Gone():
            return f"await  the end of QEMU  within {action.within:g} s"
        case Serve():
            return f"serve  {action.nic}, {action.mac}, on {action.tap}"
        case Device():
            return f"device {action.nic} {action.op} {_json(action.args)}"
        case Ask():
            return f"{action.via:6} {action.op} {_json(action.args)}  within {action.within:g} s"
        case Host():
            return f"host   {action.op} {_json(action.args)}"
        case Await():
            return f"await  {_await(action)}"
        case TapLink():
            return f"tap    {action.tap}: {action.state}"
        case Flapping():
            beside = ", beside the steps" if action.background else ""
            return f"flap   {action.nic} {action.times} times: {action.up:g} s up, {action.down:g} s down{beside}"
        case Arm():
            where = "the console" if action.seen == "console" else f"the wire of {action.nic}"
            return f"arm    after line {action.line} of the panic on {where}: {_action(action.action)}"
        case _:
            assert_never(action)


def _qmp(action: Qmp) -> dict[str, Any]:
    arguments = {"arguments": action.arguments} if action.arguments else {}
    return {"execute": action.execute, **arguments}


def _await(action: Await) -> str:
    count = f" x{action.count}" if action.count > 1 else ""
    state = f" {action.state}" if action.state else ""
    required = ", or the testbed has failed" if action.required else ""
    text = f" {action.text!r}" if action.text is not None else ""
    return f"{action.what} {action.of}{state}{count}{text}  within {action.within:g} s{required}"


def _expect(expect: dict[str, Any]) -> Iterator[str]:
    for kind, keys in expect.items():
        if keys is not None:
            yield f"{kind}: " + ", ".join(f"{key} {value}" for key, value in keys.items() if value is not None)


def _json(value: Any) -> str:
    return json.dumps(value)
