"""Whether a kernel has what a case needs, by its configuration, before anything is started.

In: a plan, a kernel's configuration (its file, or what CONFIG_IKCONFIG put into the image). Out: the options that are missing, each
with what it is for. Rule: one table says what is needed when; a kernel whose configuration nobody knows is not judged.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.plan.model import Plan
from harness.testbed.errors import TestbedError

Config = Mapping[str, str]  # option without CONFIG_ -> y, m or a value
IKCONFIG = b"IKCFG_ST"  # kernel/configs.c: the gzipped .config follows
_LINE = re.compile(r"CONFIG_(\w+)=(\S+)")


@dataclass(frozen=True)
class Need:
    """One of `options` must be there; `inside`: in the image and not as a module. `when` a plan has this need."""

    options: tuple[str, ...]
    why: str
    when: Callable[[Plan], bool]
    inside: bool = False


@dataclass(frozen=True)
class Lack:
    """What is missing. `module`: the option is `m`, but there are no modules, or it cannot be one here."""

    options: tuple[str, ...]
    why: str
    module: bool = False


class KernelLacks(TestbedError):
    """The kernel cannot run what was asked of it."""


def _always(_plan: Plan) -> bool:
    return True


def _netconsole(plan: Plan) -> bool:
    return any(end.at == "guest" and end.stack == "kernel" for end in plan.endpoints)


def _our_stack(plan: Plan) -> bool:
    return any(end.at == "guest" and end.stack == "netpoll" for end in plan.endpoints)


def _poll_mode(plan: Plan) -> bool:
    return any(end.stack == "pmd" for end in plan.endpoints)


def _sysrq(plan: Plan) -> bool:
    return any(step.crash is not None and step.crash.how.startswith("sysrq") for step in plan.scenario.steps)


def _watchdog(plan: Plan) -> bool:
    return plan.scenario.guest.watchdog is not None


def _panicked(plan: Plan) -> bool:
    waits = [step.wait for step in plan.scenario.steps]
    names = [getattr(wait, "event", None) for wait in waits] + [each.event.name for each in plan.expect if each.event]
    return "GUEST_PANICKED" in names


def _bonds(plan: Plan) -> bool:
    return bool(plan.scenario.guest.bonds)


def _captures(plan: Plan) -> bool:
    return plan.machine.capture


def _drives(driver: str) -> Callable[[Plan], bool]:
    return lambda plan: any(nic.driver == driver for nic in plan.nics)


# Every option of a driver is needed.
DRIVER_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "virtio_net": ("VIRTIO_NET",),
    "e1000": ("E1000",),
    "e1000e": ("E1000E",),
    "igb": ("IGB",),
    "e100": ("E100",),
    "8139cp": ("8139CP",),
    "pcnet32": ("PCNET32",),
    "vmxnet3": ("VMXNET3",),
    "tulip": ("TULIP",),
    "ne2k-pci": ("NE2K_PCI",),
    "cdc_ether": ("USB_NET_CDCETHER", "USB_XHCI_PCI"),
    "tg3": ("TIGON3",),
}

NEEDS: tuple[Need, ...] = (
    Need(("PVH",), "QEMU's -kernel boots the unpacked vmlinux by its PVH entry", _always, inside=True),
    Need(("BLK_DEV_INITRD",), "the guest's root is an initramfs", _always, inside=True),
    Need(("DEVTMPFS",), "the guest has no udev", _always, inside=True),
    Need(("TMPFS",), "the guest's /tmp and /run", _always, inside=True),
    Need(("SERIAL_8250_CONSOLE",), "the serial console is the truth about a crash", _always, inside=True),
    Need(("VIRTIO_PCI",), "the control channel is a virtio device", _always),
    Need(("VIRTIO_CONSOLE",), "the control channel is a virtio-serial port", _always),
    Need(("HOTPLUG_PCI_ACPI",), "NICs are hot-plugged", _always, inside=True),
    Need(("NETCONSOLE",), "an endpoint with stack: kernel", _netconsole),
    Need(("NETCONSOLE_DYNAMIC",), "netconsole's targets are made through configfs", _netconsole, inside=True),
    Need(("PACKET",), "our stack in the guest sends over AF_PACKET", _our_stack),
    Need(("UIO_PCI_GENERIC",), "our own drivers reach their NIC over UIO", _poll_mode),
    Need(("HUGETLBFS",), "our own drivers' rings are in hugepages", _poll_mode, inside=True),
    Need(("BONDING",), "the testcase has a bond", _bonds),
    Need(("MAGIC_SYSRQ",), "the guest is crashed by sysrq", _sysrq, inside=True),
    Need(("KEXEC",), "a capture kernel is loaded", _captures, inside=True),
    Need(
        ("CRASH_DUMP",), "the capture kernel is this kernel, too, and is told where memory is", _captures, inside=True
    ),
    Need(("PROC_VMCORE",), "the capture kernel shows the crashed one's memory", _captures, inside=True),
    Need(("PROC_KCORE",), "the virtual addresses of memory are read from /proc/kcore", _captures, inside=True),
    Need(("PACKET",), "the dump leaves over AF_PACKET", _captures),
    Need(("I6300ESB_WDT",), "the guest has a watchdog", _watchdog),
    Need(("PVPANIC_PCI", "PVPANIC_MMIO", "PVPANIC"), "QEMU is to report GUEST_PANICKED", _panicked),
    *(
        Need((option,), f"the driver {driver}", _drives(driver))
        for driver, options in DRIVER_OPTIONS.items()
        for option in options
    ),
)


def missing(plan: Plan, config: Config, modules: bool) -> tuple[Lack, ...]:
    """What the plan needs and the kernel lacks. `modules`: the kernel's modules are at hand."""
    lacks = (_lack(need, config, modules) for need in NEEDS if need.when(plan))
    return tuple(lack for lack in lacks if lack is not None)


def _lack(need: Need, config: Config, modules: bool) -> Lack | None:
    states = {config.get(option) for option in need.options}
    if "y" in states or ("m" in states and modules and not need.inside):
        return None
    return Lack(need.options, need.why, module="m" in states)


def require(plans: Iterable[Plan], name: str, config: Config | None, modules: bool) -> None:
    """Raises KernelLacks with everything that the kernel called `name` lacks for any of the plans."""
    if config is None:
        return
    found: dict[Lack, list[str]] = {}
    for plan in plans:
        for lack in missing(plan, config, modules):
            found.setdefault(lack, []).append(plan.case)
    if found:
        lines = [_line(lack, cases) for lack, cases in found.items()]
        raise KernelLacks(f"kernel {name} lacks what these cases need:\n" + "\n".join(lines), _remedy(list(found)))


def _line(lack: Lack, cases: Sequence[str]) -> str:
    options = " or ".join(f"CONFIG_{option}" for option in lack.options)
    state = " (a module here)" if lack.module else ""
    more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
    return f"  {options}{state}: {lack.why}; needed by {cases[0]}{more}"


def _remedy(lacks: Sequence[Lack]) -> str:
    words = " ".join(f"-e {lack.options[0]}" for lack in lacks if not lack.module)
    switch = f"scripts/config {words} && make olddefconfig, and build again" if words else ""
    modules = (
        "give the kernel's modules: --modules DIR, or build these in" if any(lack.module for lack in lacks) else ""
    )
    return "; ".join(filter(None, (switch, modules, "or leave these cases out: -k")))


def read_config(config: Path | None, vmlinux: Path) -> Config | None:
    """A kernel's configuration: from its file, else out of the image. None if it is nowhere."""
    if config is not None and config.is_file():
        return parse(config.read_text(errors="replace"))
    return embedded(vmlinux.read_bytes())


def parse(text: str) -> Config:
    """The options that are set."""
    found = (_LINE.match(line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}


def embedded(image: bytes) -> Config | None:
    """What CONFIG_IKCONFIG put into a vmlinux (kernel/configs.c); None without it, or when it is damaged."""
    start = image.find(IKCONFIG)
    if start < 0:
        return None
    try:
        text = zlib.decompressobj(wbits=31).decompress(image[start + len(IKCONFIG) :])
    except zlib.error:
        return None
    return parse(text.decode(errors="replace"))
