"""Which QEMU device, on which bus and on which tap each NIC of a testcase is.

In: a `Scenario`. Out: `NicPlan`s. Rule: a NIC that is plugged in again comes back to the same bus, tap and MAC.
"""

from __future__ import annotations

from harness.plan.addresses import nic_mac, tap_name
from harness.plan.model import NicPlan
from harness.plan.nics import BRIDGE, MODELS
from harness.scenario.model import Guest, Scenario

ROOT_PORT = "rp{}"  # a bus of the q35 base machine
# Slots of pc's root bus for NICs with virtual functions: none lies where another's are, or a device of the base machine.
APART = (0x04, 0x06, 0x08, 0x0A, 0x02)


def nic_plans(scenario: Scenario) -> tuple[NicPlan, ...]:
    """Every NIC of the guest, in the order of the testcase."""
    buses, slots = _buses(scenario.guest), _slots(scenario.guest)
    return tuple(
        NicPlan(
            id=name,
            model=nic.model,
            device=MODELS[nic.model].device,
            driver=MODELS[nic.model].driver,
            mac=nic_mac(scenario, name),
            tap=tap_name(name, index),
            bus=buses.get(name),
            addr=slots.get(name),
            mtu=nic.mtu,
        )
        for index, (name, nic) in enumerate(scenario.guest.nics.items())
    )


def _buses(guest: Guest) -> dict[str, str]:
    """pc's root bus takes every NIC hot; q35's takes none: a root port each, or the bridge for conventional PCI."""
    if guest.machine == "pc":
        return {}
    ports = (ROOT_PORT.format(number) for number in range(len(guest.nics)))
    return {name: next(ports) if MODELS[nic.model].express else BRIDGE for name, nic in guest.nics.items()}


def _slots(guest: Guest) -> dict[str, str]:
    """On pc's root bus the first free slot does for all but NICs with virtual functions: two side by side get in each other's way."""
    if guest.machine != "pc":
        return {}
    wide = [name for name, nic in guest.nics.items() if MODELS[nic.model].functions]
    return {name: f"0x{slot:02x}" for name, slot in zip(wide, APART, strict=False)}
