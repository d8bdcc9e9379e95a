"""What a testcase's `dump` becomes: the capture kernel's words, the server's, and what is waited for."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from guest.capture.arguments import parse
from harness.plan.compile import compile_plan
from harness.plan.model import Ask, Await, Host, Plan
from harness.scenario.model import Scenario

INIT_WORDS = 32  # CONFIG_INIT_ENV_ARG_LIMIT: kernel/init/main.c panics with "Too many boot init vars" above


def planned(dump: dict[str, Any], steps: list[dict[str, Any]] | None = None, **guest: Any) -> Plan:
    nics = {"n0": {"model": "virtio-net"}, "n1": {"model": "e1000"}}
    scenario = {
        "name": "netdump/x",
        "about": "a dump in a test of the plan",
        "guest": {"memory": 768, "nics": nics, **guest},
        "dump": dump,
        "steps": steps or [{"crash": {"how": "sysrq-c"}}],
        "expect": [{"dumped": {}}],
    }
    return compile_plan(Scenario.model_validate(scenario), "x.yaml:1")


def command_line(plan: Plan) -> str:
    return next(
        str(each.args["cmdline"])
        for each in plan.stages[0].actions
        if isinstance(each, Ask) and each.op == "capture_arm"
    )


def words(plan: Plan) -> list[str]:
    """Of the first process."""
    return shlex.split(command_line(plan).partition(" -- ")[2])


def test_the_template_has_a_crash_kernel() -> None:
    plan = planned({"device": "n0"})
    assert plan.machine.capture
    assert plan.machine.cmdline.endswith(" crashkernel=192M")


def test_a_guest_without_a_dump_has_none() -> None:
    plan = planned({"device": "n0"})
    bare = plan.scenario.model_copy(update={"dump": None})
    assert not compile_plan(bare, "x.yaml:1").machine.capture


def test_the_first_process_is_told_of_a_nic_and_a_client() -> None:
    given = parse(words(planned({"device": "n0"}))[4:])
    assert given.module == ["virtio_pci", "virtio_net"]
    assert (given.nic, given.bond, given.filter) == (["52:54:00:6e:70:01"], None, 31)
    assert given.client == [
        "netdump",
        "20024@198.51.100.90/DEV,20023@198.51.100.190/52:54:00:68:6f:01",
        "--protocol=debugnet",
        "--vmcore=-",
    ]


def test_a_bond_is_made_anew_with_its_slaves_by_mac() -> None:
    bond = {"mode": "active-backup", "slaves": ["n0", "n1"], "options": {"primary": "n1"}}
    given = parse(words(planned({"device": "bond0"}, bonds={"bond0": bond}))[4:])
    assert given.module == ["virtio_pci", "virtio_net", "e1000", "bonding"]
    assert given.nic == ["52:54:00:6e:70:01", "52:54:00:6e:70:02"]
    assert (given.bond, given.option) == ("active-backup", ["miimon=100", "primary=52:54:00:6e:70:02"])


@pytest.mark.parametrize(
    ("dump", "level", "vmcore"),
    [
        pytest.param({}, 31, "-", id="debugnet"),
        pytest.param({"pages": "all"}, None, "/proc/vmcore", id="debugnet, all pages"),
        pytest.param({"protocol": "netdump"}, None, "/proc/vmcore", id="Red Hat's server asks for pages"),
    ],
)
def test_what_is_sent(dump: dict[str, Any], level: int | None, vmcore: str) -> None:
    given = parse(words(planned({"device": "n0", **dump}))[4:])
    assert given.filter == level
    assert f"--vmcore={vmcore}" in given.client


def test_eight_slaves_are_not_too_many_words_for_a_first_process() -> None:
    nics = {f"n{number}": {"model": "virtio-net"} for number in range(8)}
    bond = {"mode": "802.3ad", "slaves": list(nics), "options": {"lacp_rate": "fast", "primary": "n0"}}
    assert len(words(planned({"device": "b", "panics": 5}, nics=nics, bonds={"b": bond}))) < INIT_WORDS


def test_the_server_listens_before_the_kernel_is_armed_on_a_tap_with_its_mac() -> None:
    plan = planned({"device": "n0", "lose": 10, "reorder": 5})
    actions = plan.stages[0].actions
    server = next(each for each in actions if isinstance(each, Host) and each.op == "dump_server")
    assert server.args["faults"] == {"drop": 0.1, "reorder": 0.05, "duplicate": 0}
    assert actions.index(server) < len(actions) - 1
    taps = {each.tap: each.mac for each in actions if each.do == "tap"}
    assert taps == {"tap-n0": server.args["mac"], "tap-n1": None}


def test_after_the_crash_the_panic_s_first_line_is_waited_for() -> None:
    steps: list[dict[str, Any]] = [
        {"crash": {"how": "sysrq-c"}},
        {"wait": {"dump": "begun", "mib": 2}},
        {"wait": {"dump": "complete"}},
    ]
    plan = planned({"device": "n0"}, steps)
    waits = [each for stage in plan.stages[1:] for each in stage.actions if isinstance(each, Await)]
    assert [(each.what, each.of, each.count) for each in waits] == [
        ("panic", "Kernel panic - not syncing", 1),
        ("dump", "begun", 2 << 20),
        ("dump", "complete", 1),
    ]


def test_with_a_driver_of_ours_the_kernel_s_is_not_loaded() -> None:
    plan = planned({"device": "n0", "driver": "pmd"})
    ask = next(each for each in plan.stages[0].actions if isinstance(each, Ask) and each.op == "capture_arm")
    given = parse(words(plan)[4:])
    assert ask.args["pci"] == "n0"
    assert (given.module, given.nic) == (["uio_pci_generic"], [])
    assert "--pmd=PCI" in given.client
