"""Contradictions that no single key shows: references that lead nowhere, addresses twice, links that cannot be.

In: one validated `Scenario` and the kernels that exist. Out: messages with paths into the testcase. Rule: each function holds
one subject and assumes nothing of the others, so that every error is found in one go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

from harness.plan.addresses import ip_of, nic_mac, port_of
from harness.plan.nics import MODELS, NO_BOND
from harness.scenario.checks_debugger import check_debugger
from harness.scenario.checks_dump import check_capture
from harness.scenario.checks_expect import check_expect
from harness.scenario.checks_pmd import check_poll_mode
from harness.scenario.checks_steps import check_steps, expression
from harness.scenario.document import Path
from harness.scenario.errors import suggest
from harness.scenario.messages import Message
from harness.scenario.model import Bond, Endpoint, KnownBug, Scenario, agrees
from harness.scenario.shape import unknown_model

PLANNED = ("driver", "id", "netdev", "mac", "bus", "romfile")  # device_add arguments that the plan decides
BOND_KEYS = ("mode", "slaves", "miimon")
INVARIANTS = ("kernel", "checksums", "sources", "macs", "silence", "gone", "alive")  # harness.judge.invariants


def check(scenario: Scenario, known_kernels: Collection[str] | None = None) -> Iterator[Message]:
    """Every contradiction in the scenario."""
    yield from _kernel(scenario, known_kernels)
    yield from _disk(scenario)
    yield from _nics(scenario)
    yield from _macs(scenario)
    yield from _bonds(scenario)
    for name, endpoint in scenario.endpoints.items():
        yield from _device(scenario, name, endpoint)
        yield from _peer(scenario, name, endpoint)
        yield from _stack(name, endpoint)
        yield from _ours(name, endpoint)
        yield from _hooks(scenario, name, endpoint)
    yield from check_capture(scenario)
    yield from check_debugger(scenario)
    yield from _drivers(scenario)
    yield from check_poll_mode(scenario)
    yield from _addresses(scenario)
    yield from _families(scenario)
    yield from _allow(scenario)
    yield from check_steps(scenario)
    yield from check_expect(scenario)


def _allow(scenario: Scenario) -> Iterator[Message]:
    first: dict[str, int] = {}
    for index, allowed in enumerate(scenario.allow):
        if first.setdefault(allowed.invariant, index) != index:
            what = f"{allowed.invariant!r} is let off already, by number {first[allowed.invariant] + 1}"
            yield Message(("allow", index, "invariant"), what, "give one reason, or two in one")


def check_known_bugs(scenarios: Sequence[Scenario], known_kernels: Collection[str] | None = None) -> Iterator[Message]:
    """`known_bugs` of one file, against all its combinations. A kernel need not be among them: --kernel may name it."""
    facts = [{"kernel": scenario.guest.kernel, **scenario.params} for scenario in scenarios]
    bugs = scenarios[0].known_bugs if scenarios else ()
    for index, bug in enumerate(bugs):
        if bug.verdict == "PASS":
            yield Message(("known_bugs", index, "verdict"), "PASS is no bug", "give the verdict that comes out for now")
        yield from _bug_checks(index, bug, scenarios[0])
        unknown = [key for key in bug.when if key not in facts[0]]
        for key in unknown:
            path: Path = ("known_bugs", index, "when", key)
            yield Message(path, f"{key!r} is no axis of the matrix", suggest(key, facts[0], "there are"), on_key=True)
        yield from _bug_kernel(index, bug, facts, known_kernels)
        if not unknown and not any(bug.applies(case, but="kernel") for case in facts):
            yield Message(
                ("known_bugs", index, "when"), "no combination of the matrix is like this", "correct the values"
            )
    for case in facts:
        applying = [index for index, bug in enumerate(bugs) if bug.applies(case, but="kernel")]
        both = next((pair for pair in combinations(applying, 2) if _same_kernel(bugs[pair[0]], bugs[pair[1]])), None)
        if both:
            what = f"two known bugs apply to one combination, this one and number {both[0] + 1}"
            yield Message(("known_bugs", both[1], "when"), what, "narrow one of them")


def _bug_checks(index: int, bug: KnownBug, scenario: Scenario) -> Iterator[Message]:
    """Which checks fail must be said, and be checks of this testcase."""
    path: Path = ("known_bugs", index)
    wanted = [
        key for expect in scenario.expect for key in type(expect).model_fields if getattr(expect, key) is not None
    ]
    known = list(dict.fromkeys([*wanted, "timed", *INVARIANTS]))
    if bug.verdict in ("FAIL", "INCONCLUSIVE") and not bug.checks:
        what = "which checks fail is not said" if bug.verdict == "FAIL" else "which checks are not reached is not said"
        yield Message((*path, "verdict"), what, f"add e.g. `checks: [{wanted[0] if wanted else 'kernel'}]`")
    if bug.console is not None:
        yield from expression((*path, "console"), bug.console)
    if bug.by_chance and bug.verdict != "INCONCLUSIVE":
        what = f"chance decides whether something is reached, and {bug.verdict} is not about that"
        yield Message((*path, "by_chance"), what, "remove it, or say what tells with `console` or `queue`", on_key=True)
    if bug.verdict == "ERROR" and bug.checks:
        yield Message((*path, "checks"), "an ERROR comes from the testbed, not from a check", "remove it", on_key=True)
    for number, name in enumerate(bug.checks):
        if name not in known:
            what = f"{name!r} is no check of this testcase"
            yield Message((*path, "checks", number), what, suggest(name, known, "checks"))


def _same_kernel(one: KnownBug, other: KnownBug) -> bool:
    """May one kernel be meant by both? The command line can choose another than the testcase does. Two patterns are taken for overlapping."""
    first, second = one.when.get("kernel", "*"), other.when.get("kernel", "*")
    return agrees(first, second) or agrees(second, first)


def _bug_kernel(
    index: int, bug: KnownBug, facts: Sequence[Mapping[str, str]], known: Collection[str] | None
) -> Iterator[Message]:
    kernel = bug.when.get("kernel")
    if kernel is None or known is None:
        return
    word = kernel.removeprefix("not ")
    if any(agrees(word, each) for each in (*known, *(case["kernel"] for case in facts))):
        return
    path: Path = ("known_bugs", index, "when", "kernel")
    yield Message(path, f"unknown kernel {word!r}", suggest(word, sorted(known), "kernels"))


def _kernel(scenario: Scenario, known: Collection[str] | None) -> Iterator[Message]:
    kernel = scenario.guest.kernel
    if known is not None and kernel not in known:
        yield Message(("guest", "kernel"), f"unknown kernel {kernel!r}", suggest(kernel, sorted(known), "kernels"))


def _disk(scenario: Scenario) -> Iterator[Message]:
    guest = scenario.guest
    if guest.disk is not None and "kernel" in guest.model_fields_set:
        yield Message(("guest", "kernel"), "a disk boots its own kernel", "leave out `kernel`, or `disk`", on_key=True)
    if guest.disk is not None and guest.ssh is None:
        yield Message(
            ("guest", "disk"), "nobody knows how to log in", "add `ssh: {key: ..., host_key: ...}`", on_key=True
        )
    if guest.disk is None and guest.ssh is not None:
        yield Message(
            ("guest", "ssh"), "the guest that we build has keys of its own", "add `disk`, or remove it", on_key=True
        )


def _nics(scenario: Scenario) -> Iterator[Message]:
    for name, nic in scenario.guest.nics.items():
        path: Path = ("guest", "nics", name)
        if nic.model not in MODELS:
            yield unknown_model(name, nic.model)
        elif nic.mtu is not None and (most := MODELS[nic.model].mtu) is not None and nic.mtu > most:
            yield Message((*path, "mtu"), f"{nic.model} has no MTU of {nic.mtu}", f"{most} at most, or another model")
        for key in nic.properties:
            if key in PLANNED:
                remedy = "use the NIC's own key `mac`" if key == "mac" else "remove it"
                yield Message(
                    (*path, "properties", key), f"property {key!r} is decided by the plan", remedy, on_key=True
                )


def _macs(scenario: Scenario) -> Iterator[Message]:
    nics = scenario.guest.nics
    owner: dict[str, str] = {}
    for name in sorted(nics, key=lambda nic: nics[nic].mac is not None):  # given ones last: theirs is the error
        mac, path = nic_mac(scenario, name), ("guest", "nics", name, "mac")
        if int(mac[:2], 16) & 1:
            remedy = "make its first byte even; 52 is QEMU's"
            yield Message(path, f"{mac} is a multicast address, no NIC can own it", remedy)
        if mac == "00:00:00:00:00:00":
            yield Message(path, "a NIC cannot have the all-zero MAC", "leave the key out to be given one")
        if mac in owner:
            yield Message(path, f"{mac} is the MAC of {owner[mac]!r} too", "give each NIC its own")
        owner.setdefault(mac, name)


def _bonds(scenario: Scenario) -> Iterator[Message]:
    master: dict[str, str] = {}
    for name, bond in scenario.guest.bonds.items():
        if name in scenario.guest.nics:
            yield Message(
                ("guest", "bonds", name), f"{name!r} is a NIC already", "give the bond another name", on_key=True
            )
        yield from _slaves(scenario, name, bond, master)
        yield from _bond_options(name, bond)


def _slaves(scenario: Scenario, name: str, bond: Bond, master: dict[str, str]) -> Iterator[Message]:
    nics = scenario.guest.nics
    for index, slave in enumerate(bond.slaves):
        path: Path = ("guest", "bonds", name, "slaves", index)
        if slave in scenario.guest.bonds:
            yield Message(path, f"{slave!r} is a bond", "the bonding driver takes no bond as a slave: name NICs")
        elif slave not in nics:
            yield Message(path, f"slave {slave!r} is no NIC of this guest", suggest(slave, nics, "NICs"))
        elif slave in master:
            where = "twice in this bond" if master[slave] == name else f"a slave of {master[slave]!r} already"
            yield Message(path, f"{slave!r} is {where}", "a NIC has one master")
        elif (model := MODELS.get(nics[slave].model)) is not None and bond.mode in model.no_bond:
            yield Message(path, f"{model.word} {NO_BOND[bond.mode]}", "use another model, or another mode")
        elif nics[slave].mtu is not None:
            mtu = ("guest", "nics", slave, "mtu")
            yield Message(mtu, f"{slave!r} takes its MTU from {name!r}, whose slave it is", "remove `mtu`")
        master.setdefault(slave, name)


def _bond_options(name: str, bond: Bond) -> Iterator[Message]:
    path: Path = ("guest", "bonds", name, "options")
    for key in BOND_KEYS:
        if key in bond.options:
            yield Message((*path, key), f"{key!r} is a key of the bond itself", "move it out of options", on_key=True)
    primary = bond.options.get("primary")
    if primary is not None and primary not in bond.slaves:
        yield Message(
            (*path, "primary"),
            f"primary {primary!r} is no slave of {name!r}",
            suggest(str(primary), bond.slaves, "slaves"),
        )


def _device(scenario: Scenario, name: str, endpoint: Endpoint) -> Iterator[Message]:
    guest, path = scenario.guest, ("endpoints", name, "device")
    if endpoint.device not in guest.nics and endpoint.device not in guest.bonds:
        what = f"device {endpoint.device!r} is no NIC or bond of the guest"
        yield Message(path, what, suggest(endpoint.device, [*guest.nics, *guest.bonds], "devices"))
    for bond_name, bond in guest.bonds.items():
        if endpoint.device in bond.slaves:
            what = f"{endpoint.device!r} is a slave of {bond_name!r}, netpoll_setup() refuses slaves"
            yield Message(path, what, f"write device: {bond_name}")


def _peer(scenario: Scenario, name: str, endpoint: Endpoint) -> Iterator[Message]:
    path: Path = ("endpoints", name, "peer")
    others = [other for other in scenario.endpoints if other != name]
    peer = scenario.endpoints.get(endpoint.peer)
    if peer is None:
        yield Message(path, f"peer {endpoint.peer!r} is no endpoint", suggest(endpoint.peer, others, "endpoints"))
    elif endpoint.peer == name:
        yield Message(path, f"{name!r} is its own peer", "name the endpoint on the other side")
    elif peer.peer != name and peer.peer in scenario.endpoints:
        yield Message(path, f"{endpoint.peer!r} has another peer, {peer.peer!r}", "two endpoints name each other")
    elif peer.at == endpoint.at and others.index(endpoint.peer) >= list(scenario.endpoints).index(name):
        remedy = "one of the two is at: guest, the other at: host"
        yield Message(path, f"{name!r} and its peer {endpoint.peer!r} are both at {endpoint.at}", remedy)
    elif peer.device != endpoint.device and endpoint.at == "host":
        what = f"{name!r} is on {endpoint.device!r}, its peer {endpoint.peer!r} on {peer.device!r}"
        yield Message(("endpoints", name, "device"), what, "a host endpoint listens on its peer's device")


def _stack(name: str, endpoint: Endpoint) -> Iterator[Message]:
    path: Path = ("endpoints", name)
    if endpoint.stack == "kernel" and endpoint.at == "host":
        what = "the kernel under test is the guest's, not the host's"
        yield Message((*path, "stack"), what, "write stack: netpoll on the host")
    if endpoint.stack == "kernel" and endpoint.on_drop == "queue":
        what = "the kernel's netconsole has no drop routine to choose"
        yield Message((*path, "on_drop"), what, "remove on_drop, or use stack: netpoll")
    if endpoint.ours and endpoint.extended:
        what = "extended headers are the kernel netconsole's"
        yield Message((*path, "extended"), what, "set it on the endpoint with stack: kernel")


OURS = ("driver", "sndbuf", "echo", "trap", "sysrq")  # keys of an endpoint on our stack
GUESTS = {
    "sndbuf": "whose queue never stops",
    "trap": "where nobody is to be trapped",
    "sysrq": "whose keys nobody is to press",
}


def _ours(name: str, endpoint: Endpoint) -> Iterator[Message]:
    """Keys that only our stack has, some of them only in the guest."""
    for key in OURS:
        if key not in endpoint.model_fields_set:
            continue
        path: Path = ("endpoints", name, key)
        if endpoint.stack == "kernel":
            yield Message(
                path, f"{key!r} is a key of our stack, not of the kernel's netconsole", "remove it", on_key=True
            )
        elif endpoint.at == "host" and key in GUESTS:
            what = f"{name!r} is on a tap of the host, {GUESTS[key]}"
            yield Message(path, what, "set it at the guest's endpoint", on_key=True)
    if endpoint.driver == "ring" and endpoint.sndbuf is not None:
        what = "a ring holds what its descriptors hold, whatever the socket's buffer"
        yield Message(("endpoints", name, "sndbuf"), what, "remove it, or the driver", on_key=True)


def _hooks(scenario: Scenario, name: str, endpoint: Endpoint) -> Iterator[Message]:
    peer = scenario.endpoints.get(endpoint.peer)
    if endpoint.echo and peer is not None and peer.echo and endpoint.at == "host":
        what = f"{name!r} and its peer {endpoint.peer!r} would send each datagram back for ever"
        yield Message(("endpoints", name, "echo"), what, "let one of them echo")
    if endpoint.echo and endpoint.sysrq:
        yield Message(
            ("endpoints", name, "echo"), "keys are pressed, not sent back", "give each an endpoint of its own"
        )


def _drivers(scenario: Scenario) -> Iterator[Message]:
    """Endpoints of one side on one device share its driver."""
    first: dict[tuple[str, str], str] = {}
    for name, endpoint in scenario.endpoints.items():
        if endpoint.stack == "kernel":
            continue
        other = first.setdefault((endpoint.at, endpoint.device), name)
        for key in ("driver", "sndbuf"):
            if getattr(endpoint, key) != getattr(scenario.endpoints[other], key):
                what = f"{name!r} shares {endpoint.device!r} with {other!r}, which has another {key}"
                yield Message(("endpoints", name, key), what, "give both the same")


def _addresses(scenario: Scenario) -> Iterator[Message]:
    owner: dict[tuple[str, int], str] = {}
    sides: dict[str, str] = {}
    for name, endpoint in scenario.endpoints.items():
        path: Path = ("endpoints", name, "ip" if endpoint.ip else "port")
        if endpoint.ip is not None and (trouble := _ip_trouble(endpoint.ip)):
            yield Message(path, *trouble)
        ip, port = ip_of(scenario, name), port_of(scenario, name)
        if (ip, port) in owner:
            what = f"{ip}:{port} is the address of {owner[ip, port]!r} too"
            yield Message(path, what, "give each endpoint its own ip or port")
        elif sides.setdefault(ip, endpoint.at) != endpoint.at:
            yield Message(path, f"{ip} is an address at {sides[ip]} already", "guest and host need different ones")
        owner.setdefault((ip, port), name)


def _families(scenario: Scenario) -> Iterator[Message]:
    """Both ends of a flow speak one version of IP; who gives no address is given one of version 4."""
    for name, endpoint in scenario.endpoints.items():
        if endpoint.peer not in scenario.endpoints or endpoint.ip is None:
            continue
        six, other = ":" in endpoint.ip, ":" in ip_of(scenario, endpoint.peer)
        if six != other and six:
            what = (
                f"{endpoint.ip} is an IPv6 address, and its peer {endpoint.peer!r} has {ip_of(scenario, endpoint.peer)}"
            )
            yield Message(("endpoints", name, "ip"), what, f"give {endpoint.peer!r} one, too, like 2001:db8::100")


def _ip_trouble(text: str) -> tuple[str, str] | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is no IP address", "write one like 198.51.100.10 or 2001:db8::10"
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        return f"{text} cannot be one machine's address on a wire", "use one of 198.51.100.0/24 or 2001:db8::/32"
    return None
