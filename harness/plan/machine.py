"""What is done to the machine as a whole: paused, resumed, killed, its watchdog set up.

In: a `MachineStep`, or the guest. Out: actions. Rule: a machine that is to end by itself is waited for, since nobody can be asked about it
afterwards.
"""

from __future__ import annotations

from harness.plan.model import Action, Ask, Gone, Qmp
from harness.plan.nics import BRIDGE
from harness.scenario.crashes import ends
from harness.scenario.model import Crash, Guest, MachineStep, Scenario

WATCHDOG, DRIVER = "i6300esb", "i6300esb"  # QEMU's device, which can be hot-plugged as ib700 cannot; Linux's driver
TIMEOUT = 2  # seconds without food


def machine_step(step: MachineStep) -> tuple[str, tuple[Action, ...]]:
    """Title and actions of a `machine` step. The STOP event comes before QEMU's answer."""
    match step.do:
        case "pause":
            return "pause the machine", (Qmp(execute="stop"),)
        case "resume":
            return "resume the machine", (Qmp(execute="cont"),)
        case "starve":
            return "nobody feeds the watchdog", (Ask(op="watchdog_starve"),)


def watchdog(guest: Guest) -> tuple[Action, ...]:
    """Plug the guest's watchdog in and have the agent feed it."""
    if guest.watchdog is None:
        return ()
    bus = {"bus": BRIDGE} if guest.machine == "q35" else {}
    return (
        Qmp(execute="watchdog-set-action", arguments={"action": guest.watchdog}),
        Qmp(execute="device_add", arguments={"driver": WATCHDOG, "id": "watchdog", **bus}),
        Ask(op="watchdog_start", args={"driver": DRIVER, "timeout": TIMEOUT}, within=30),
    )


def aftermath(scenario: Scenario, crash: Crash) -> tuple[Action, ...]:
    """What is waited for after a crash that leaves no panic to read: the end of QEMU."""
    return (Gone(within=crash.within),) if ends(scenario.guest, crash) == "machine" else ()
