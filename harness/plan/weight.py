"""How long a case takes, guessed from its plan: where workers run side by side, the long ones are begun first.

In: a Plan. Out: seconds, roughly those on a busy machine under software emulation. Rule: it follows from the plan alone, so that every
worker comes to the same order without a memory; no verdict depends on it.
"""

from __future__ import annotations

from harness.plan.model import Plan
from harness.scenario.model import Step

BASE = 1.5  # a clone, a NIC, a panic
MESSAGE = 0.003  # each numbered message, besides its interval
MOST = 5.0  # of what its steps ask to last; a message in the background may never be reached
# What a plan has, and how many seconds more each of it takes: medians of a run of the catalogue.
DUMP, DEBUGGER, CAPTURE = 14.0, 14.0, 6.0
POLL_MODE = 2.0  # our own driver, in Python, in a guest
SLOW_NIC, NIC, BOND, LACP = 1.5, 0.4, 0.6, 1.5
SLOW_DRIVERS = frozenset(
    {"e1000", "e1000e", "igb", "e100", "tulip"}
)  # an EEPROM that is read bit by bit, a link that takes seconds
CHANNEL = {"agent": 0.0, "qemu-guest-agent": 1.0, "ssh": 4.0}  # a handshake in software that is emulated


def seconds(plan: Plan) -> float:
    """A guess; only the order matters."""
    guest = plan.scenario.guest
    captured = DUMP if plan.scenario.dump else DEBUGGER if plan.scenario.debugger else CAPTURE * plan.machine.capture
    nics = sum(SLOW_NIC if nic.driver in SLOW_DRIVERS else NIC for nic in plan.nics)
    bonds = sum(LACP if bond.mode == "802.3ad" else BOND for bond in guest.bonds.values())
    drivers = POLL_MODE * sum(end.stack == "pmd" for end in plan.endpoints)
    told = min(MOST, sum(map(_step, plan.scenario.steps)))
    return BASE + captured + nics + bonds + drivers + CHANNEL[guest.channel] + told


def _step(step: Step) -> float:
    """What the testcase itself asks to last."""
    if step.send is not None:
        return step.send.count * (step.send.interval + MESSAGE)
    if step.flap is not None:
        return step.flap.period * step.flap.times
    return 0.0
