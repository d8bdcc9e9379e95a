"""Steps that change links and NICs -> actions: what goes over QMP, to the guest's agent, or to a tap.

In: a step and its scenario. Out: a title and actions. Rule: what takes effect is told as `inject link` with the way in which it was done, so
that the judge knows of one kind of event; what the guest does with it is seen, not planned, but for a NIC that must come back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.plan.burst import arm, place
from harness.plan.device import device_add, device_add_served
from harness.plan.model import Action, Ask, Await, Device, Flapping, Qmp, TapLink
from harness.plan.nics import MODELS
from harness.plan.setup import BIND, CARRIER, device_id
from harness.plan.wiring import nic_plans
from harness.scenario.injections import Filter, Flap, InjectLink, Remove, Restore
from harness.scenario.model import Scenario, Step
from harness.scenario.words import Way

Translated = tuple[str, tuple[Action, ...]]
UNPLUGGED = 20.0  # seconds; under emulation a NIC is gone after 0.2 s, from a root port after 6 s
QUEUES: dict[Way, str] = {
    "tx": "rx",
    "rx": "tx",
    "both": "all",
}  # a filter's queue is named after what the backend does


def of(step: Step) -> Callable[[int, Scenario], Translated] | None:
    """What translates this step, if it is one of these kinds."""
    match step:
        case Step(inject=InjectLink() as inject):
            return partial(_inject, inject)
        case Step(flap=Flap() as flap):
            return partial(_flap, flap)
        case Step(remove=Remove() as remove):
            return partial(_remove, remove)
        case Step(restore=Restore() as restore):
            return partial(_restore, restore)
        case Step(filter=Filter() as rule):
            return partial(_filter, rule)
    return None


def _inject(inject: InjectLink, number: int, scenario: Scenario) -> Translated:
    title = f"link of {inject.link} {inject.state}"
    if inject.by == "guest":
        op = "nic_up" if inject.state == "up" else "nic_down"
        return f"{title} in the guest", (Ask(op=op, args={"id": inject.link}, link=inject.link, state=inject.state),)
    title += " at the host's tap" if inject.by == "tap" else ""
    action = (
        _tap(scenario, inject.link, inject.state)
        if inject.by == "tap"
        else set_link(scenario, inject.link, inject.state)
    )
    if inject.after is None:
        return title, (action,)
    armed = arm(number, action, inject.after, inject.link, scenario)
    return f"{title} after {place(inject.after, inject.link)}", (armed,)


def set_link(scenario: Scenario, nic: str, state: str) -> Qmp | Device:
    """The cable, pulled or put back."""
    if _served(scenario, nic):
        return Device(nic=nic, op="link", args={"up": state == "up"})
    return _qmp_link(nic, state == "up")


def _served(scenario: Scenario, nic: str) -> bool:
    return MODELS[scenario.guest.nics[nic].model].served


def _qmp_link(nic: str, up: bool) -> Qmp:
    return Qmp(execute="set_link", arguments={"name": device_id(nic), "up": up}, link=nic, state="up" if up else "down")


def _tap(scenario: Scenario, nic: str, state: str) -> TapLink:
    tap = next(plan.tap for plan in nic_plans(scenario) if plan.id == nic)
    return TapLink.model_validate({"nic": nic, "tap": tap, "state": state})


def _flap(flap: Flap, _number: int, scenario: Scenario) -> Translated:
    up = flap.period * flap.duty
    action = Flapping(
        nic=flap.link,
        out=set_link(scenario, flap.link, "down"),
        back=set_link(scenario, flap.link, "up"),
        up=round(up, 6),
        down=round(flap.period - up, 6),
        times=flap.times,
        background=flap.background,
    )
    return f"link of {flap.link} flaps {flap.times} times, each {flap.period:g} s", (action,)


def _remove(remove: Remove, number: int, scenario: Scenario) -> Translated:
    nic, device = remove.nic, device_id(remove.nic)
    title = f"{nic} is taken away: {remove.how}"
    if remove.how == "tap":
        return title, (_tap(scenario, nic, "gone"),)
    if remove.how == "release":
        bond = _bond_of(scenario, nic)
        return title, (_slave("bond_release", bond, nic, "down"),)
    if remove.how == "rip":
        path = {"path": f"/machine/peripheral/{device}", "property": "realized", "value": False}
        return title, (Qmp(execute="qom-set", arguments=path, link=nic, state="down", by="rip"),)
    before = sum(s.remove is not None and s.remove.nic == nic for s in scenario.steps[: number - 1])
    backend = () if _served(scenario, nic) else (Qmp(execute="netdev_del", arguments={"id": f"net-{nic}"}),)
    return title, (
        Qmp(execute="device_del", arguments={"id": device}, link=nic, state="down", by="unplug"),
        Await(what="unplugged", of=device, count=before + 1, within=UNPLUGGED, required=True),
        *backend,
    )


def _bond_of(scenario: Scenario, nic: str) -> str:
    """The bond whose slave it is; the loader has seen that there is one."""
    return next(name for name, bond in scenario.guest.bonds.items() if nic in bond.slaves)


def _slave(op: str, bond: str, nic: str, state: str) -> Ask:
    args = {"id": bond, "slave": nic}
    return Ask.model_validate({"op": op, "args": args, "link": nic, "state": state, "by": "release"})


def _restore(restore: Restore, number: int, scenario: Scenario) -> Translated:
    nic = restore.nic
    how = next(s.remove.how for s in reversed(scenario.steps[: number - 1]) if s.remove and s.remove.nic == nic)
    slave = any(nic in bond.slaves for bond in scenario.guest.bonds.values())
    again = (_slave("bond_enslave", _bond_of(scenario, nic), nic, "up"),) if slave else _alone(scenario, nic)
    plugged = _plug_again(scenario, nic) if how == "unplug" else ()
    carrier = Await(what="carrier", of=nic, state="up", within=CARRIER, required=True)
    consoles = () if slave else _consoles(scenario, nic, restore.netconsole)
    return f"{nic} is put back", (*plugged, *again, carrier, *consoles)


def _plug_again(scenario: Scenario, nic: str) -> tuple[Action, ...]:
    plan = next(plan for plan in nic_plans(scenario) if plan.id == nic)
    netdev, fdname, properties = f"net-{nic}", f"fd-{nic}", scenario.guest.nics[nic].properties
    bound = Ask(op="nic_wait", args={"id": nic, "mac": plan.mac, "driver": plan.driver}, within=BIND)
    if _served(scenario, nic):  # by a process that waits for the next client
        return (device_add_served(plan, device_id(nic), properties), bound)
    return (
        Qmp(execute="getfd", arguments={"fdname": fdname}, fd_of=plan.tap),
        Qmp(execute="netdev_add", arguments={"type": "tap", "id": netdev, "fd": fdname}),
        device_add(plan, device_id(nic), netdev, properties)[-1],  # a controller has stayed
        bound,
    )


def _alone(scenario: Scenario, nic: str) -> tuple[Action, ...]:
    mtu = scenario.guest.nics[nic].mtu
    args = {"id": nic, **({} if mtu is None else {"mtu": mtu})}
    return (Ask(op="nic_up", args=args, link=nic, state="up", by="unplug"),)


def _consoles(scenario: Scenario, nic: str, targets: str) -> tuple[Action, ...]:
    """Its netconsoles enabled anew: the kernel disables them when their interface goes (netconsole_netdev_event()), and only the newest take
    them up again by themselves. As in the set-up not before it has a link: a message in the ring of an e1000 that never had one may leave its
    queue stopped (docs/findings.md)."""
    ends = (
        [(name, end) for name, end in scenario.endpoints.items() if (end.stack, end.device) == ("kernel", nic)]
        if targets == "enabled"
        else []
    )
    return tuple(Ask(op="netconsole_again", args={"id": name, "device": nic}) for name, _ in ends)


def _filter(rule: Filter, number: int, scenario: Scenario) -> Translated:
    """In a NIC's backend, or in the model that is one."""
    if _served(scenario, rule.nic):
        return _fault(rule, number, scenario)
    nic, name, hole = rule.nic, f"filter-{rule.nic}", f"hole-{rule.nic}"
    if rule.lose is not None:
        chardev = Qmp(execute="chardev-add", arguments={"id": hole, "backend": {"type": "null", "data": {}}})
        queue = {"queue": QUEUES[rule.lose], "netdev": f"net-{nic}", "outdev": hole}
        put = Qmp(
            execute="object-add",
            arguments={"qom-type": "filter-redirector", "id": name, **queue},
            link=nic, state="down", by="filter", way=rule.lose,
        )  # fmt: skip
        return f"{rule.lose} of {nic} is lost from now on", (chardev, put)
    if rule.hold is not None and rule.seconds is not None:
        queue = {"queue": QUEUES[rule.hold], "netdev": f"net-{nic}"}
        interval = {"interval": round(rule.seconds * 1_000_000)}  # microseconds
        arguments = {"qom-type": "filter-buffer", "id": name, **queue, **interval}
        held = Qmp(execute="object-add", arguments=arguments, link=nic, by="filter", way=rule.hold, hold=rule.seconds)
        return f"{rule.hold} of {nic} is held, {rule.seconds:g} s at most", (held,)
    return _unfilter(nic, name, hole, number, scenario)


def _fault(rule: Filter, number: int, scenario: Scenario) -> Translated:
    begins = rule.lose is not None or rule.hold is not None
    what = rule if begins else _begun(rule.nic, number, scenario)
    if what.lose is not None:
        args = {"name": "drop", "on": begins, "direction": what.lose}
        action = Device(nic=rule.nic, op="fault", args=args, state="down" if begins else "up", way=what.lose)
        return f"{what.lose} of {rule.nic} is {'' if begins else 'not '}lost from now on", (action,)
    assert what.hold is not None
    seconds = what.seconds if begins and what.seconds is not None else 0.0
    args = {"name": "delay", "on": begins, "seconds": seconds, "direction": what.hold}
    action = Device(nic=rule.nic, op="fault", args=args, way=what.hold, hold=seconds)
    held = f"{seconds:g} s each" if begins else "no longer"
    return f"{what.hold} of {rule.nic} is held, {held}", (action,)


def _begun(nic: str, number: int, scenario: Scenario) -> Filter:
    """The filter that this step takes away; the loader has seen that there is one."""
    return next(s.filter for s in reversed(scenario.steps[: number - 1]) if s.filter and s.filter.nic == nic)


def _unfilter(nic: str, name: str, hole: str, number: int, scenario: Scenario) -> Translated:
    before = _begun(nic, number, scenario)
    if before.hold is not None:
        taken = Qmp(execute="object-del", arguments={"id": name}, link=nic, by="filter", way=before.hold, hold=0)
        return f"nothing of {nic} is held from now on", (taken,)
    assert before.lose is not None
    gone = Qmp(execute="object-del", arguments={"id": name}, link=nic, state="up", by="filter", way=before.lose)
    return f"nothing of {nic} is lost from now on", (gone, Qmp(execute="chardev-remove", arguments={"id": hole}))
