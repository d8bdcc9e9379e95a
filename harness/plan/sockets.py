"""A plan for taps -> the same plan for datagram sockets, where no tap can be had.

In: a `Plan`. Out: a `Plan` with `wires` dgram. Rule: only what joins guest and host changes; what cannot be done without a tap stays in
the plan, and `needs_tap` names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from harness.plan.model import Action, AddTap, AddWire, Arm, Host, Plan, Qmp, Serve, Stage, TapLink

TAP, DGRAM = "tap-", "dgram-"
GOES = {"down": "loses its carrier", "up": "gets its carrier back", "gone": "is deleted"}


def over_sockets(plan: Plan) -> Plan:
    """What differs is each NIC's wire, its name, and QEMU's backend for it. A plan for sockets stays as it is."""
    if plan.wires == "dgram":
        return plan
    nics = tuple(nic.model_copy(update={"tap": renamed(nic.tap)}) for nic in plan.nics)
    stages = tuple(_stage(stage) for stage in plan.stages)
    return plan.model_copy(update={"wires": "dgram", "nics": nics, "stages": stages})


def renamed(tap: str) -> str:
    return DGRAM + tap.removeprefix(TAP)


def _stage(stage: Stage) -> Stage:
    return stage.model_copy(update={"actions": tuple(_action(action) for action in stage.actions)})


def _action(action: Action) -> Action:
    match action:
        case AddTap():
            return AddWire(wire=renamed(action.tap))
        case Serve() | TapLink():
            return action.model_copy(update={"tap": renamed(action.tap)})
        case Host(op="debug"):
            return action.model_copy(update={"args": {**action.args, "tap": renamed(action.args["tap"])}})
        case Host(args={"taps": [*taps]}):
            args = {**action.args, "taps": [renamed(tap) for tap in taps]}
            return action.model_copy(update={"args": args})
        case Host(op="flood"):
            target = {**action.args["target"], "tap": renamed(action.args["target"]["tap"])}
            return action.model_copy(update={"args": {**action.args, "target": target}})
        case Qmp(execute="netdev_add"):
            return action.model_copy(update={"arguments": _backend(action)})
        case Qmp(fd_of=str(tap)):
            return action.model_copy(update={"fd_of": renamed(tap)})
    return action


def _backend(action: Qmp) -> dict[str, object]:
    """qemu: qapi/net.json, NetdevTapOptions and NetdevDgramOptions."""
    local = {"type": "fd", "str": action.arguments["fd"]}
    return {"type": "dgram", "id": action.arguments["id"], "local": local}


def needs_sockets(plan: Plan) -> bool:
    """Does the plan stop the reader of a wire? A tap takes whatever it is given."""
    return any(isinstance(action, Host) and action.op == "reader" for stage in plan.stages for action in stage.actions)


def needs_tap(plan: Plan) -> str | None:
    """What of the plan cannot be done without a tap, in words."""
    links = (f"step {step}: the tap of {action.nic} itself {GOES[action.state]}" for step, action in _taps(plan))
    return next(chain(links, _floods(plan), _dumps(plan)), None)


def _dumps(plan: Plan) -> Iterator[str]:
    if plan.scenario.dump is not None:
        yield "the server of a dump is a process of its own, which needs an interface"
    if plan.scenario.debugger is not None:
        yield "gdb speaks through the host's kernel, which needs an interface"


def _floods(plan: Plan) -> Iterator[str]:
    """Raw frames go past the host's endpoints, onto an interface."""
    for stage in plan.stages:
        if any(isinstance(action, Host) and action.op == "flood" for action in stage.actions):
            yield f"step {stage.step}: a flood of frames needs an interface to be sent on"


def _taps(plan: Plan) -> Iterator[tuple[int, TapLink]]:
    for stage in plan.stages:
        for action in stage.actions:
            inner = action.action if isinstance(action, Arm) else action
            if isinstance(inner, TapLink):
                yield stage.step, inner
