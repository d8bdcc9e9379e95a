"""A dump: which kernel takes over after a panic, with which words on its command line, and the server that waits for it.

In: a `Scenario` with `dump`. Out: actions of the set-up, of a crash, and of the server. Rule: the crash kernel itself is part of the RAM template; what
depends on the case is only its command line, which `guest.kexec.load.arm` replaces in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.plan.addresses import guest_mac, host_mac, nic_mac, nics_behind, tap_name
from harness.plan.model import Action, Ask, Await, Host
from harness.plan.nics import MODELS
from harness.scenario.dumps import Dump, DumpServer
from harness.scenario.model import Scenario

CRASHKERNEL = "crashkernel=192M"
KERNEL = (
    "console=ttyS0,115200",
    "loglevel=5",
    "panic=0",  # a capture kernel that panics stays, to be looked at
    "net.ifnames=0",
    "nr_cpus=1",
    # What a kernel does at boot that nobody needs who reads memory and sends it; docs/netdump.md says what each costs.
    "cryptomgr.notests=1",
    "ipv6.disable=1",
    "mitigations=off",
    "rodata=off",
    "8250.nr_uarts=1",
    "initcall_blacklist=" + ",".join(
        ["crypto_kdf108_init", "load_system_certificate_list", "init_kprobe_trace", "cubictcp_register", "bpf_rstat_kfunc_init", "i8042_init", "init_ima", "init_encrypted", "pty_init", "init_zswap", "tpm_init", "ksm_init", "init_mmio_trace", "mousedev_init", "agp_amd64_mod_init", "platform_keyring_init"]
    ),
)  # fmt: skip
INIT = "rdinit=/usr/bin/python3 PYTHONPATH=/opt/netpoll-harness -- -S -P -m guest.capture"
CLIENT_IP, SERVER_IP = "198.51.100.90", "198.51.100.190"  # RFC 5737 TEST-NET-2; endpoints begin at .10 and .100
PORTS = {"debugnet": (20024, 20023), "netdump": (6666, 6666)}  # client's, server's
MODULE = {"virtio_net": "virtio_pci"}  # what else a driver stands on, which no module's `depends` says
PANIC_BEGINS = "Kernel panic - not syncing"  # with a crash kernel there is no last line: crash_kexec() comes before it
LEVEL = 31  # makedumpfile -d: zero pages, caches, user's data and free pages are left out
READY = 20.0  # seconds until the server listens


def captures(scenario: Scenario) -> bool:
    return scenario.guest.capture or scenario.dump is not None or scenario.debugger is not None


def set_up(scenario: Scenario) -> Iterator[Action]:
    """The capture kernel's command line, and the server."""
    if (dump := scenario.dump) is None:
        return
    yield server(scenario, "running")
    if dump.driver == "pmd":
        line = " ".join((*KERNEL, INIT, "--module=uio_pci_generic", *_client(scenario, dump)))
        yield Ask(op="capture_arm", args={"cmdline": line, "pci": dump.device})
    else:
        yield Ask(op="capture_arm", args={"cmdline": command_line(scenario, dump.device, _client(scenario, dump))})


def command_line(scenario: Scenario, device: str, client: Iterable[str]) -> str:
    """Everything that the capture kernel, its first process and the client are told."""
    return " ".join((*KERNEL, INIT, *_network(scenario, device), *client))


def _network(scenario: Scenario, device: str) -> Iterator[str]:
    nics = nics_behind(scenario, device)
    drivers = [MODELS[scenario.guest.nics[nic].model].driver for nic in nics]
    for module in dict.fromkeys(name for driver in drivers for name in (MODULE.get(driver), driver) if name):
        yield f"--module={module}"
    yield from (f"--nic={nic_mac(scenario, nic)}" for nic in nics)
    if (bond := scenario.guest.bonds.get(device)) is not None:
        yield "--module=bonding"
        yield f"--bond={bond.mode}"
        for name, value in {"miimon": bond.miimon, **bond.options}.items():
            yield f"--option={name}={nic_mac(scenario, str(value)) if value in nics else value}"


def _client(scenario: Scenario, dump: Dump) -> Iterator[str]:
    ours, theirs = PORTS[dump.protocol]
    if filtered(dump):
        yield f"--filter={LEVEL}"
    if dump.panics is not None:
        yield f"--crash={dump.panics}"
    yield from ("netdump", f"{ours}@{CLIENT_IP}/DEV,{theirs}@{SERVER_IP}/{host_mac(scenario, dump.device)}")
    yield f"--protocol={dump.protocol}"
    if dump.driver == "pmd":
        yield "--pmd=PCI"
    yield f"--vmcore={'-' if filtered(dump) else '/proc/vmcore'}"


def filtered(dump: Dump) -> bool:
    """Through makedumpfile. Red Hat's server asks for each page by its number."""
    return dump.protocol == "debugnet" and dump.pages != "all"


def server(scenario: Scenario, state: str) -> Host:
    """The server is started, or killed."""
    dump = scenario.dump
    assert dump is not None
    if state == "killed":
        return Host(op="dump_server", args={"state": state})
    bond = scenario.guest.bonds.get(dump.device)
    nics = list(scenario.guest.nics)
    args = {
        "state": state,
        "taps": [tap_name(nic, nics.index(nic)) for nic in nics_behind(scenario, dump.device)],
        "bond_mode": bond.mode if bond else None,
        "protocol": dump.protocol,
        "mac": host_mac(scenario, dump.device),
        "client_mac": guest_mac(scenario, dump.device),
        "client_ip": CLIENT_IP,
        "server_ip": SERVER_IP,
        "port": PORTS[dump.protocol][1],
        "faults": {"drop": dump.lose / 100, "reorder": dump.reorder / 100, "duplicate": dump.duplicate / 100},
        "seed": dump.seed,
        "within": READY,
    }
    return Host(op="dump_server", args=args)


def server_step(scenario: Scenario, step: DumpServer) -> tuple[str, tuple[Action, ...]]:
    """Title and actions of a `dump_server` step."""
    title = "kill the dump's server" if step.state == "killed" else "start the dump's server anew"
    return title, (server(scenario, step.state),)


def panic(within: float) -> Await:
    """What is waited for after a crash, where a crash kernel takes over."""
    return Await(what="panic", of=PANIC_BEGINS, within=within)


def tap_mac(scenario: Scenario, nic: str) -> str | None:
    """The MAC that the tap of a NIC has to have, so that the server behind it is spoken to."""
    dump = scenario.dump
    return host_mac(scenario, dump.device) if dump is not None and nic in nics_behind(scenario, dump.device) else None
