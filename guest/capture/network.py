"""The interface that the dump leaves by: brought up through the kernel's own driver.

In: MACs, and a bond's mode. Out: an interface's name. Rule: a link that is dead does not stop the others, and no carrier is waited for longer
than asked: a client that resends gets through when the cable is back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from guest.bond_steps import steps
from guest.links import Link, LinkMonitor, set_up

APPEAR = 10.0  # seconds; a driver's probe is over when its module is loaded, but for USB
MIIMON = 100
MASTERS = Path("/sys/class/net/bonding_masters")
DRIVER = "/sys/class/net/{}/device/driver"  # a link to it
LEFT_ACTIVE = ("vmxnet3",)
"""Drivers whose device the crashed kernel has left running in its own rings, and which start it without a reset: QEMU's vmxnet3_activate_device() answers
that it is active and does nothing, so not a frame comes or goes. Taking the interface down ends that (VMXNET3_CMD_QUIESCE_DEV in vmxnet3_quiesce_dev())."""


def bring_up(macs: Sequence[str], mode: str | None, options: Mapping[str, str], carrier: float) -> tuple[str, bool]:
    """The device's name, and whether it has carrier. Raises TimeoutError when a NIC does not appear, OSError."""
    monitor = LinkMonitor(lambda _before, _after: None)
    names = {mac: monitor.wait(_has(mac), APPEAR, f"a NIC with MAC {mac}").name for mac in macs}
    for name in names.values():
        _stop_what_runs(name)
    if mode is None:
        device = names[macs[0]]
        set_up(device)
    else:
        device = _bond(mode, list(names.values()), {key: names.get(value, value) for key, value in options.items()})
    try:
        monitor.wait(lambda link: link.name == device and link.carrier, carrier, f"carrier of {device}")
    except TimeoutError:
        return device, False
    return device, True


def _stop_what_runs(name: str) -> None:
    """End what the device does for the kernel before."""
    if Path(DRIVER.format(name)).resolve().name in LEFT_ACTIVE:
        set_up(name)
        set_up(name, False)


def _has(mac: str) -> Callable[[Link], bool]:
    return lambda link: link.mac == mac


def _bond(mode: str, slaves: Sequence[str], options: Mapping[str, str]) -> str:
    """A bond through the bonding driver's sysfs; its first slave's MAC becomes its own, as it was."""
    name = "bond0"
    if name not in MASTERS.read_text().split():
        MASTERS.write_text(f"+{name}")
    for step in steps(name, mode, slaves, MIIMON, options):
        if step.knob:
            Path(f"/sys/class/net/{name}/bonding/{step.knob}").write_text(step.value)
        else:
            set_up(step.value, step.up)
    return name
