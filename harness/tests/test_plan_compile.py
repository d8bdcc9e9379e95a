"""The compiler: the plan of each shipped testcase as data, and of two cases word for word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.plan.addresses import IFNAMSIZ
from harness.plan.compile import CMDLINE, compile_plan
from harness.plan.explain import command_lines, explain
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
    Plan,
    Qmp,
    Serve,
    TapLink,
    Type,
)
from harness.plan.nics import DRIVERS, MODELS
from harness.scenario.load import Loaded, load, load_tree
from harness.tests.scenario_table import GOOD

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDEN = HERE / "golden"


def shipped() -> list[Loaded]:
    return load_tree([ROOT / "testcases", HERE / "must_fail"])


def case_of(loaded: Loaded) -> str:
    return loaded.scenario.case


def plan_of(tmp_path: Path, *replacements: tuple[str, str], number: int = 0) -> Plan:
    """The plan of GOOD after replacements."""
    text = GOOD
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    file = tmp_path / "case.yaml"
    file.write_text(text)
    return compile_plan(load(file)[number], f"{file.name}:1")


def actions(plan: Plan) -> Iterator[Action]:
    for stage in plan.stages:
        yield from stage.actions


@pytest.mark.parametrize("loaded", shipped(), ids=case_of)
def test_a_plan_is_the_same_each_time_and_survives_json(loaded: Loaded) -> None:
    plan = compile_plan(loaded.scenario, loaded.source)
    saved = plan.model_dump_json(by_alias=True)
    assert compile_plan(loaded.scenario, loaded.source).model_dump_json(by_alias=True) == saved
    assert Plan.model_validate_json(saved) == plan
    assert Plan.model_validate_json(saved).model_dump_json(by_alias=True) == saved


@pytest.mark.parametrize("loaded", shipped(), ids=case_of)
def test_no_two_addresses_of_a_plan_are_equal(loaded: Loaded) -> None:
    plan = compile_plan(loaded.scenario, loaded.source)
    sockets = [(endpoint.local_ip, endpoint.local_port) for endpoint in plan.endpoints]
    host_macs = {endpoint.local_mac for endpoint in plan.endpoints if endpoint.at == "host"}
    macs = [*(nic.mac for nic in plan.nics), *host_macs]
    taps = [nic.tap for nic in plan.nics]
    for values in (sockets, macs, taps):
        assert len(set(values)) == len(values)
    assert all(len(tap) < IFNAMSIZ for tap in taps)


@pytest.mark.parametrize("loaded", shipped(), ids=case_of)
def test_both_ends_of_a_flow_agree(loaded: Loaded) -> None:
    plan = compile_plan(loaded.scenario, loaded.source)
    for mine in plan.endpoints:
        peer = plan.endpoint(mine.peer)
        assert (mine.remote_ip, mine.remote_port, mine.remote_mac) == (peer.local_ip, peer.local_port, peer.local_mac)
        assert mine.extended == peer.extended


@pytest.mark.parametrize("loaded", shipped(), ids=case_of)
def test_nics_are_plugged_and_up_and_the_host_listens_before_the_guest_can_send(loaded: Loaded) -> None:
    plan = compile_plan(loaded.scenario, loaded.source)
    order = [_key(action) for action in plan.stages[0].actions]
    for nic in plan.nics:
        carrier = ("await", "carrier", nic.id)
        plugged = [("tap", nic.tap), ("qmp", "getfd", nic.tap), ("qmp", "netdev_add"), ("qmp", "device_add")]
        if MODELS[nic.model].served:
            plugged = [("tap", nic.tap), ("serve", nic.id), ("qmp", "device_add", nic.id)]
        assert order[order.index(plugged[0]) :][: len(plugged)] == plugged
        assert order.index(("agent", "nic_wait", nic.id)) < order.index(carrier)
    opens = ("np_open", "pmd_open", "netconsole_open")
    opened = [key[1] for key in order if key[1] in opens]
    sides = [key[0] for key in order if key[1] in opens]
    assert len(opened) == len(plan.endpoints)
    assert sides == sorted(sides, key=["host", "agent"].index), "the host's endpoints first"


def _key(action: Action) -> tuple[str, ...]:
    match action:
        case AddTap():
            return ("tap", action.tap)
        case AddWire():
            return ("wire", action.wire)
        case Qmp():
            return ("qmp", action.execute, *(each for each in (action.fd_of, action.socket_of) if each))
        case Serve():
            return ("serve", action.nic)
        case Type():
            return ("type", action.text)
        case Load() | Kill() | Gone():
            return (action.do, "")
        case Device():
            return ("device", action.nic, action.op)
        case Ask():
            return ("agent", action.op, *([action.args["id"]] if action.op == "nic_wait" else []))
        case Host():
            return ("host", action.op)
        case Await():
            return ("await", action.what, action.of)
        case TapLink():
            return ("tap_link", action.nic)
        case Flapping():
            return ("flapping", action.nic)
        case Arm():
            return ("arm", *_key(action.action))


@pytest.mark.parametrize(
    "case", ["bonding/failover-then-panic[active=e1000,backup=virtio-net]", "crash/panic[nic=virtio-net,crash=nmi]"]
)
def test_a_golden_plan(case: str) -> None:
    """Reviewed by eye; what changes here changes what is done to a guest."""
    loaded = next(loaded for loaded in shipped() if loaded.scenario.case == case)
    said = explain(
        compile_plan(loaded.scenario, "testcases/golden.yaml:1"), ["qemu-system-x86_64", "-machine", "pc", "-S"]
    )
    golden = GOLDEN / (case.partition("[")[0].replace("/", "-") + ".txt")
    assert said == golden.read_text(), f"if the change is meant, put this into {golden}:\n{said}"


def test_the_machine_depends_on_its_shape_alone_so_that_templates_are_shared() -> None:
    plans = [compile_plan(loaded.scenario, "") for loaded in shipped()]
    shapes = {
        (guest.kernel, guest.machine, guest.memory, guest.smp) for guest in (plan.scenario.guest for plan in plans)
    }
    assert len({plan.machine for plan in plans}) == len(shapes)


def test_the_template_preloads_the_driver_of_every_model() -> None:
    modules = next(word for word in CMDLINE if word.startswith("netpoll.modules=")).partition("=")[2].split(",")
    assert set(modules) == {*DRIVERS, "bonding", "netconsole"} > {model.driver for model in MODELS.values()}


def test_q35_gives_express_nics_a_root_port_each_and_conventional_ones_the_bridge(tmp_path: Path) -> None:
    q35 = ("guest:\n", "guest:\n  machine: q35\n")
    virtio = ("n2: {model: e1000}", "n2: {model: e1000e}")
    plan = plan_of(tmp_path, q35, virtio, number=1)
    assert [(nic.model, nic.bus) for nic in plan.nics] == [("virtio-net", "rp0"), ("e1000", "pb0"), ("e1000e", "rp1")]
    plugged = [
        action.arguments for action in actions(plan) if isinstance(action, Qmp) and action.execute == "device_add"
    ]
    assert [arguments["bus"] for arguments in plugged] == ["rp0", "pb0", "rp1"]


ALIKE = """\
about: NICs with virtual functions, and others between them
guest:
  machine: MACHINE
  nics: {n0: {model: e1000}, n1: {model: igb}, n2: {model: igb}, n3: {model: virtio-net}, n4: {model: igb}}
endpoints:
  netconsole: {at: guest, stack: kernel, device: n1, peer: log}
  log: {at: host, stack: netpoll, device: n1, peer: netconsole}
steps:
  - send: {from: netconsole, count: 1}
expect:
  - delivered: {from: netconsole, to: log}
"""


@pytest.mark.parametrize(("machine", "slots"), [("pc", [None, 4, 6, None, 8]), ("q35", [None] * 5)])
def test_virtual_functions_need_room(machine: str, slots: list[int | None], tmp_path: Path) -> None:
    """Those of an igb lie 16 and 17 slots above it (VF_OFFSET 128, eight of them with VF_STRIDE 2)."""
    file = tmp_path / "alike.yaml"
    file.write_text(ALIKE.replace("MACHINE", machine))
    plan = compile_plan(load(file)[0], "alike.yaml:1")
    assert [int(nic.addr, 16) if nic.addr else None for nic in plan.nics] == slots
    plugged = [each.arguments for each in actions(plan) if isinstance(each, Qmp) and each.execute == "device_add"]
    assert [("addr" in arguments) for arguments in plugged] == [slot is not None for slot in slots]
    taken = [slot + extra for slot in slots if slot is not None for extra in (0, 16, 17)]
    assert len(taken) == len(set(taken))
    assert all("bus" not in a.arguments for a in actions(plan_of(tmp_path)) if isinstance(a, Qmp))


def test_what_the_author_gave_is_kept(tmp_path: Path) -> None:
    given = "n1: {model: e1000, mac: '52:54:00:aa:bb:cc', properties: {autonegotiation: false}}"
    plan = plan_of(
        tmp_path,
        ("n1: {model: e1000}", given),
        ("peer: sink}", "peer: sink, ip: 192.0.2.7, port: 4444}"),
    )
    device_add = [a.arguments for a in actions(plan) if isinstance(a, Qmp) and a.execute == "device_add"][1]
    assert device_add == {
        "driver": "e1000",
        "id": "nic-n1",
        "netdev": "net-n1",
        "mac": "52:54:00:aa:bb:cc",
        "romfile": "",
        "autonegotiation": False,
    }
    assert plan.endpoint("sender").options("eth0") == "4444@192.0.2.7/eth0,6668@198.51.100.101/52:54:00:68:6f:01"
    assert plan.endpoint("sink").options("tap-n0") == "6668@198.51.100.101/tap-n0,4444@192.0.2.7/52:54:00:6e:70:01"
    assert plan.endpoint("kernel").local_mac == "52:54:00:aa:bb:cc", "a bond has its first slave's MAC"


def test_a_host_endpoint_behind_a_bond_knows_mode_and_taps(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    log = plan.endpoint("log")
    assert (log.devices, log.bond_mode) == (("n1", "n2"), "active-backup")
    assert (plan.endpoint("kernel").devices, plan.endpoint("kernel").bond_mode) == (("bond0",), None)
    opened = next(a for a in actions(plan) if isinstance(a, Host) and a.args["id"] == "log")
    assert opened.args["taps"] == ["tap-n1", "tap-n2"]


def test_slaves_are_brought_up_by_their_bond_alone(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert [a.args for a in actions(plan) if isinstance(a, Ask) and a.op == "nic_up"] == [{"id": "n0"}]
    assert [a.args["slaves"] for a in actions(plan) if isinstance(a, Ask) and a.op == "bond_create"] == [["n1", "n2"]]
    carriers = [a.of for a in plan.stages[0].actions if isinstance(a, Await)]
    assert carriers == ["n0", "n1", "n2", "bond0"]


def test_a_receiver_is_told_what_its_peer_will_send(tmp_path: Path) -> None:
    twice = (
        "- send: {from: sender, count: 10}\n  - send: {from: sender, count: 5, seed: 2, size: [20, 30], label: more}"
    )
    plan = plan_of(tmp_path, ("- send: {from: sender, count: 10}", twice))
    told = [(s.label, s.count, s.size_low, s.size_high, s.seed) for s in plan.endpoint("sink").expects]
    assert told == [("sender", 10, 18, 960, 1), ("more", 5, 20, 30, 2)]
    assert plan.endpoint("sender").expects == ()


def test_a_foreground_send_is_awaited_and_a_background_send_is_not(tmp_path: Path) -> None:
    send = "- send: {from: sender, count: 10}"
    behind = "- send: {from: sender, count: 10, interval: 2, background: true, label: bg}"
    (ask, wait) = plan_of(tmp_path).stages[1].actions
    assert isinstance(ask, Ask)
    assert (ask.op, ask.args["label"], ask.args["background"]) == ("np_send", "sender", False)
    assert isinstance(wait, Await)
    assert (wait.what, wait.of, wait.required) == ("sent", "sender", False)
    stage = plan_of(tmp_path, (send, behind)).stages[1]
    assert [action.do for action in stage.actions] == ["agent"]
    assert stage.title == "send 10 datagrams from sender in the background"


def test_a_long_send_is_given_its_time(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ("count: 10}\n  - wait", "count: 10, interval: 5}\n  - wait"))
    assert all(action.within >= 50 for action in plan.stages[1].actions if isinstance(action, Ask | Await))


def test_the_panic_is_awaited_up_to_the_line_that_parity_needs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ("- parity: {to: log}", "- parity: {to: log, until: Rebooting in}"))
    crash, panic, wire = plan.stages[-1].actions
    assert isinstance(crash, Ask)
    assert (crash.op, crash.args) == ("crash", {"how": "sysrq-c"})
    assert isinstance(panic, Await)
    assert (panic.what, panic.of) == ("panic", "Rebooting in")
    assert isinstance(wire, Await)  # the serial console shows a line before the wire does
    assert (wire.what, wire.of, wire.text, wire.required) == ("text", "log", "Rebooting in", False)


def test_a_long_nic_name_still_gets_a_tap_of_its_own(tmp_path: Path) -> None:
    long = [
        (
            "    n1: {model: e1000}",
            f"    {'n' * 14}a: {{model: e1000}}\n    {'n' * 14}b: {{model: e1000}}\n    n1: {{model: e1000}}",
        )
    ]
    taps = [nic.tap for nic in plan_of(tmp_path, *long).nics]
    assert taps[1:3] == ["tap-1-nnnnnnnnn", "tap-2-nnnnnnnnn"]


def test_the_mtu_of_a_nic_is_set_before_it_is_up(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        ('n0: {model: "${nic}"}', 'n0: {model: "${nic}", mtu: 600}'),
        ("count: 10}", "count: 10, size: [18, 572]}"),
    )
    assert next(a.args for a in actions(plan) if isinstance(a, Ask) and a.op == "nic_up") == {"id": "n0", "mtu": 600}


KNOWN = "known_bugs:\n  - {when: {nic: virtio-net, kernel: debian-6.1}, verdict: FAIL, checks: [delivered], reason: seen on this one alone}\nexpect:"


@pytest.mark.parametrize(("number", "applies"), [(0, False), (1, True)], ids=["e1000", "virtio-net"])
def test_a_known_bug_applies_where_every_condition_holds(tmp_path: Path, number: int, applies: bool) -> None:
    plan = plan_of(tmp_path, ("expect:", KNOWN), number=number)
    assert (plan.known_bug is not None) == applies
    assert ("known bug: FAIL is expected: seen on this one alone" in explain(plan)) == applies


def test_sysctls_of_the_author_and_of_the_crash_are_set_together(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ("guest:\n", "guest:\n  sysctl: {kernel.panic_on_oops: 1}\n"), ("sysrq-c", "nmi"))
    asked = next(action.args for action in actions(plan) if isinstance(action, Ask) and action.op == "sysctl")
    assert asked == {"values": {"kernel.unknown_nmi_panic": 1, "kernel.panic_on_oops": 1}}
    assert [a.execute for a in plan.stages[-1].actions if isinstance(a, Qmp)] == ["inject-nmi"]


@pytest.mark.parametrize(
    "loaded", [each for each in shipped() if "netconsole/comes-back[" in case_of(each)], ids=case_of
)
def test_a_netconsole_is_enabled_anew_once_its_nic_has_a_link(loaded: Loaded) -> None:
    plan = compile_plan(loaded.scenario, loaded.source)
    back = next(stage.actions for stage in plan.stages if "put back" in stage.title)
    waits = [isinstance(action, Await) and action.what == "carrier" for action in back]
    asks = [isinstance(action, Ask) and action.op == "netconsole_again" for action in back]
    assert waits.index(True) < asks.index(True)


def test_a_command_can_be_pasted() -> None:
    assert list(command_lines(["qemu", "-machine", "pc", "-append", "a 'b'", "-S"])) == [
        "qemu \\",
        "  -machine pc \\",
        "  -append 'a '\"'\"'b'\"'\"'' \\",
        "  -S",
    ]
    assert list(command_lines([])) == []
