"""Who is called what in a run: MACs, IPs, ports and tap names, given out by position in the testcase.

In: a `Scenario`. Out: plain strings. Rule: the same testcase always gets the same addresses, and no two of them are equal;
what the author gave is kept as it is.
"""

from __future__ import annotations

from harness.scenario.model import Bond, Endpoint, Scenario

IFNAMSIZ = 16  # linux/if.h, with the terminating NUL
STRANGER_MAC = "52:54:00:73:74:01"  # ("st"), for senders that are nobody
GUEST_PORT, HOST_PORT = 6665, 6666  # netconsole's defaults: drivers/net/netconsole.c, alloc_param_target()


def tap_name(nic: str, index: int) -> str:
    """`tap-NIC`, or with the number in front where the id is too long to be told apart after cutting."""
    name = f"tap-{nic}"
    return name if len(name) < IFNAMSIZ else f"tap-{index}-{nic}"[: IFNAMSIZ - 1]


def nic_mac(scenario: Scenario, nic: str) -> str:
    """The author's, or 52:54:00:6e:70:NN (QEMU's locally administered prefix, then "np") by position from 1."""
    index = list(scenario.guest.nics).index(nic)
    return scenario.guest.nics[nic].mac or f"52:54:00:6e:70:{index + 1:02x}"


def guest_mac(scenario: Scenario, device: str) -> str:
    """MAC of a NIC, or of a bond: it takes its first slave's (bond_enslave(), fail_over_mac=none)."""
    bond = scenario.guest.bonds.get(device)
    return nic_mac(scenario, bond.slaves[0] if bond else device)


def host_mac(scenario: Scenario, device: str) -> str:
    """52:54:00:68:6f:NN ("ho"): one for each NIC or bond, so that a host's bonding device has one address."""
    devices = [*scenario.guest.nics, *scenario.guest.bonds]
    return f"52:54:00:68:6f:{devices.index(device) + 1:02x}"


def mac_of(scenario: Scenario, endpoint: Endpoint) -> str:
    return (guest_mac if endpoint.at == "guest" else host_mac)(scenario, endpoint.device)


def ip_of(scenario: Scenario, name: str) -> str:
    """The author's, or 198.51.100.10+ in the guest and .100+ on the host (RFC 5737 TEST-NET-2), by position."""
    endpoint = scenario.endpoints[name]
    same_side = [other for other, value in scenario.endpoints.items() if value.at == endpoint.at]
    base = 10 if endpoint.at == "guest" else 100
    return endpoint.ip or f"198.51.100.{base + same_side.index(name)}"


def port_of(scenario: Scenario, name: str) -> int:
    """The author's, or netconsole's default plus twice the number of the flow."""
    endpoint = scenario.endpoints[name]
    same_side = [other for other, value in scenario.endpoints.items() if value.at == endpoint.at]
    base = GUEST_PORT if endpoint.at == "guest" else HOST_PORT
    return endpoint.port or base + 2 * same_side.index(name)


def nics_behind(scenario: Scenario, device: str) -> tuple[str, ...]:
    """The NIC itself, or all slaves of the bond."""
    bond: Bond | None = scenario.guest.bonds.get(device)
    return bond.slaves if bond else (device,)


def poll_mode_nics(scenario: Scenario) -> frozenset[str]:
    """The NICs that a driver of ours takes from the kernel."""
    devices = {end.device for end in scenario.endpoints.values() if end.stack == "pmd"}
    return frozenset(nic for device in devices for nic in nics_behind(scenario, device))


def nobody(scenario: Scenario) -> dict[str, str | int]:
    """IP address, port and MAC that no endpoint of the testcase has (RFC 5737 TEST-NET-3)."""
    ips, ports = ({of(scenario, name) for name in scenario.endpoints} for of in (ip_of, port_of))
    ip = next(ip for ip in (f"203.0.113.{number}" for number in range(254, 0, -1)) if ip not in ips)
    return {"ip": ip, "port": next(port for port in range(40000, 65536) if port not in ports), "mac": STRANGER_MAC}
