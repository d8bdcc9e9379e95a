"""Scenario -> Plan: every QMP command, guest request and wait of a case, decided before anything is started.

In: one `Scenario` whose references the loader has checked. Out: one frozen `Plan`. Rule: pure; the same scenario gives the
same plan, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from harness.plan.addresses import ip_of, mac_of, nics_behind, port_of
from harness.plan.drivers import driver_bugs
from harness.plan.dump import CRASHKERNEL, captures
from harness.plan.model import DiskPlan, EndpointPlan, MachinePlan, Plan, Stage, StreamPlan
from harness.plan.nics import DRIVERS
from harness.plan.setup import setup_stage
from harness.plan.steps import step_stage, strange_stream
from harness.plan.wiring import nic_plans
from harness.scenario.model import Endpoint, Frames, Guest, GuestSsh, KnownBug, Scenario, Send

# One template serves all cases of a machine shape, so nothing here may depend on the case.
CMDLINE = (
    "console=ttyS0,115200",  # the ground truth at a crash
    "loglevel=8",  # netconsole gets only what the console level lets through: everything
    "printk.devkmsg=on",  # /dev/kmsg is rate-limited otherwise
    "panic=0",  # a panicked guest stays, to be looked at
    "net.ifnames=0",
    "netpoll.modules="
    + ",".join((*DRIVERS, "bonding", "netconsole")),  # read by the guest's init; the kernel ignores it
)


def compile_plan(scenario: Scenario, source: str) -> Plan:
    """The plan of one case; `source` is the testcase's `file:line`."""
    nics = nic_plans(scenario)
    endpoints = tuple(_endpoint(scenario, name) for name in scenario.endpoints)
    steps = (step_stage(number, step, scenario) for number, step in enumerate(scenario.steps, 1))
    stages: tuple[Stage, ...] = (setup_stage(scenario, nics, endpoints), *steps)
    return Plan(
        case=scenario.case,
        source=source,
        scenario=scenario,
        machine=machine_plan(_with_capture(scenario), PurePath(source.rpartition(":")[0]).parent),
        nics=nics,
        endpoints=endpoints,
        stages=stages,
        expect=scenario.expect,
        known_bug=known_bug(scenario),
        driver_bugs=driver_bugs(nic.model for nic in scenario.guest.nics.values()),
        timeout=scenario.timeout,
    )


def _with_capture(scenario: Scenario) -> Guest:
    return scenario.guest.model_copy(update={"capture": captures(scenario)})


def machine_plan(guest: Guest, folder: PurePath | None = None) -> MachinePlan:
    """`folder`: where the testcase is, and what its paths are relative to."""
    if guest.disk is not None and guest.ssh is not None:
        disk = _disk(guest.disk, guest.ssh, folder or PurePath())
        return MachinePlan(
            kernel=guest.disk, machine=guest.machine, memory=guest.memory, smp=guest.smp, cmdline="", disk=disk
        )
    return MachinePlan(
        kernel=guest.kernel,
        machine=guest.machine,
        memory=guest.memory,
        smp=guest.smp,
        cmdline=" ".join((*CMDLINE, CRASHKERNEL) if guest.capture else CMDLINE),
        capture=guest.capture,
    )


def _disk(disk: str, ssh: GuestSsh, folder: PurePath) -> DiskPlan:
    """A public key has two words at least, a path is taken to have one."""
    host_key = ssh.host_key if " " in ssh.host_key.strip() else str(folder / ssh.host_key)
    return DiskPlan(path=str(folder / disk), user=ssh.user, key=str(folder / ssh.key), host_key=host_key)


def known_bug(scenario: Scenario) -> KnownBug | None:
    """The first known bug whose every `when` agrees with this case's parameters and kernel."""
    facts = {"kernel": scenario.guest.kernel, **scenario.params}
    return next((bug for bug in scenario.known_bugs if bug.applies(facts)), None)


def _endpoint(scenario: Scenario, name: str) -> EndpointPlan:
    mine = scenario.endpoints[name]
    peer = scenario.endpoints[mine.peer]
    bond = scenario.guest.bonds.get(mine.device)
    return EndpointPlan(
        id=name,
        at=mine.at,
        stack=mine.stack,
        devices=_devices(scenario, mine),
        peer=mine.peer,
        local_ip=ip_of(scenario, name),
        local_port=port_of(scenario, name),
        local_mac=mac_of(scenario, mine),
        remote_ip=ip_of(scenario, mine.peer),
        remote_port=port_of(scenario, mine.peer),
        remote_mac=mac_of(scenario, peer),
        extended=mine.extended or peer.extended,
        on_drop=mine.on_drop,
        bond_mode=bond.mode if bond and mine.at == "host" else None,
        expects=_expects(scenario, name),
        strange=tuple(strange_stream(*each) for each in _strange(scenario, mine.peer)),
        driver=mine.driver,
        sndbuf=mine.sndbuf,
        echo=mine.echo,
        trap=mine.trap,
        sysrq=mine.sysrq,
    )


def _devices(scenario: Scenario, endpoint: Endpoint) -> tuple[str, ...]:
    return (endpoint.device,) if endpoint.at == "guest" else nics_behind(scenario, endpoint.device)


def _expects(scenario: Scenario, name: str) -> tuple[StreamPlan, ...]:
    """The streams of our stack at the other end; the kernel's messages are text and say their label themselves."""
    peer = scenario.endpoints[name].peer
    if scenario.endpoints[peer].stack == "kernel":
        return ()
    senders = (peer, name) if scenario.endpoints[peer].echo else (peer,)
    return tuple(_stream(step.send) for step in scenario.steps if step.send and step.send.from_ in senders)


def _strange(scenario: Scenario, sender: str) -> Iterator[tuple[int, Frames]]:
    for number, step in enumerate(scenario.steps, 1):
        if step.frames is not None and step.frames.from_ == sender:
            yield number, step.frames


def _stream(send: Send) -> StreamPlan:
    low, high = send.size
    return StreamPlan(label=send.label or send.from_, count=send.count, size_low=low, size_high=high, seed=send.seed)
