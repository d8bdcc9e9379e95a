"""Stage 0: what a testcase implies before its first step. Taps, hot-plugged NICs, bonds, carrier, sysctls, endpoints.

In: the scenario and the NICs and endpoints that the compiler gave addresses. Out: one `Stage`. Rule: a NIC that gets no
driver or no carrier is the testbed's failure, so those waits are required; the host listens before the guest can send.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.plan import debugger, dump
from harness.plan.addresses import nic_mac, nics_behind, poll_mode_nics
from harness.plan.crashes import crash_module, crash_sysctl
from harness.plan.device import device_add, device_add_served
from harness.plan.machine import watchdog
from harness.plan.model import Action, AddTap, Ask, Await, EndpointPlan, Host, NicPlan, Qmp, Serve, Stage
from harness.plan.nics import MODELS
from harness.scenario.model import Scenario

TAKE = 30.0  # seconds: a NIC changes its driver, and its link comes
BIND, CARRIER = 30.0, 30.0  # seconds; under emulation a NIC binds in 0.7 s and an e1000 has carrier after 2.3 s

OURS = {
    "strange",
    "driver",
    "sndbuf",
    "echo",
    "trap",
    "sysrq",
}  # of an endpoint's plan: of no use to the kernel's netconsole
DEVICE_PREFIX = "nic-"  # before a NIC's id in QEMU, whose own ids (rp0, pb0...) an author cannot know


def device_id(nic: str) -> str:
    return DEVICE_PREFIX + nic


def setup_stage(scenario: Scenario, nics: Sequence[NicPlan], endpoints: Sequence[EndpointPlan]) -> Stage:
    actions = (
        *(
            Ask(op="module", args={"name": name, "parameters": dict(given)})
            for name, given in scenario.guest.modules.items()
        ),
        *crash_module(scenario),
        *(action for nic in nics for action in _plug(scenario, nic, endpoints)),
        *(Ask(op="nic_wait", args={"id": nic.id, "mac": nic.mac, "driver": nic.driver}, within=BIND) for nic in nics),
        *(ask for name in _devices(scenario.guest.bonds, scenario) for ask in _bond(name, scenario)),
        *_standalone_up(scenario, nics),
        *(_carrier(name) for name in _devices((*scenario.guest.nics, *scenario.guest.bonds), scenario)),
        *_sysctl(scenario),
        *watchdog(scenario.guest),
        *_open(scenario, nics, endpoints),
        *(_carrier(name) for name in (*scenario.guest.nics, *scenario.guest.bonds) if _poll_mode(name, scenario)),
        *dump.set_up(scenario),
        *debugger.set_up(scenario),
    )
    return Stage(step=0, title="set-up", actions=actions)


def _plug(scenario: Scenario, nic: NicPlan, endpoints: Sequence[EndpointPlan]) -> tuple[Action, ...]:
    return plug(nic, scenario.guest.nics[nic.id].properties, endpoints, dump.tap_mac(scenario, nic.id))


def plug(
    nic: NicPlan,
    properties: dict[str, str | int | bool],
    endpoints: Sequence[EndpointPlan],
    tap_mac: str | None = None,
) -> tuple[Action, ...]:
    """Hot-plug onto a tap whose descriptor QEMU is passed. `tap_mac`: where no endpoint of the host gives one."""
    netdev, fdname = f"net-{nic.id}", f"fd-{nic.id}"
    mac = next((end.local_mac for end in endpoints if end.at == "host" and nic.id in end.devices), tap_mac)
    if (ours := MODELS[nic.model].ours) is not None:
        serve = Serve(nic=nic.id, tap=nic.tap, mac=nic.mac, model=ours)
        return (AddTap(tap=nic.tap, mac=mac), serve, device_add_served(nic, device_id(nic.id), properties))
    return (
        AddTap(tap=nic.tap, mac=mac),
        Qmp(execute="getfd", arguments={"fdname": fdname}, fd_of=nic.tap),
        Qmp(execute="netdev_add", arguments={"type": "tap", "id": netdev, "fd": fdname}),
        *device_add(nic, device_id(nic.id), netdev, properties),
    )


def _poll_mode(device: str, scenario: Scenario) -> bool:
    """A NIC that a driver of ours takes, or a bond of such, which is ours, too."""
    return poll_mode_nics(scenario).issuperset(nics_behind(scenario, device))


def _devices(names: Iterable[str], scenario: Scenario) -> list[str]:
    """Those that the kernel drives."""
    return [name for name in names if not _poll_mode(name, scenario)]


def _bond(name: str, scenario: Scenario) -> tuple[Ask, ...]:
    """Our agent knows which interface each NIC became and hears of a bond that it made; others need MACs, and it is told."""
    bond = scenario.guest.bonds[name]
    args = {"id": name, "mode": bond.mode, "slaves": list(bond.slaves), "miimon": bond.miimon}
    args["options"] = dict(bond.options)
    if (via := scenario.guest.channel) == "agent":
        return (Ask(op="bond_create", args=args),)
    args["macs"] = {slave: nic_mac(scenario, slave) for slave in bond.slaves}
    return (Ask(via=via, op="bond_create", args=args), Ask(op="bond_known", args={"id": name}))


def _standalone_up(scenario: Scenario, nics: Sequence[NicPlan]) -> Iterator[Ask]:
    """Slaves are brought up by their bond, and what we drive ourselves by our driver."""
    slaves = {slave for bond in scenario.guest.bonds.values() for slave in bond.slaves} | poll_mode_nics(scenario)
    for nic in nics:
        if nic.id not in slaves:
            mtu = {} if nic.mtu is None else {"mtu": nic.mtu}
            yield Ask(op="nic_up", args={"id": nic.id, **mtu})


def _carrier(device: str) -> Await:
    return Await(what="carrier", of=device, state="up", within=CARRIER, required=True)


def _sysctl(scenario: Scenario) -> Iterator[Ask]:
    """The author's, and what the crash needs."""
    if values := crash_sysctl(scenario):
        yield Ask(op="sysctl", args={"values": values})


def _open(scenario: Scenario, nics: Sequence[NicPlan], endpoints: Sequence[EndpointPlan]) -> Iterator[Action]:
    taps = {nic.id: nic.tap for nic in nics}
    for endpoint in endpoints:
        if endpoint.at == "host":
            listens = [taps[device] for device in endpoint.devices]
            yield Host(op="np_open", args={**endpoint.model_dump(mode="json"), "taps": listens})
    for endpoint in endpoints:
        if endpoint.at == "guest":
            args = endpoint.model_dump(mode="json", exclude=None if endpoint.ours else OURS)
            if endpoint.stack == "pmd":
                yield Ask(op="pmd_open", args={**args, **_below(endpoint.devices[0], scenario)}, within=TAKE)
            else:
                yield Ask(op="np_open" if endpoint.ours else "netconsole_open", args=args)


def _below(device: str, scenario: Scenario) -> dict[str, object]:
    """The NICs that a poll-mode endpoint takes, and how a bond of ours joins them."""
    bond = scenario.guest.bonds.get(device)
    options = {} if bond is None else {"mode": bond.mode, "miimon": bond.miimon, **bond.options}
    return {"nics": list(nics_behind(scenario, device)), "bond": options}
