"""What is done to crash a guest: the actions for each way of `harness.scenario.crashes`.

In: a `Crash` and its scenario. Out: actions, the first of which writes down that the crash is asked for. Rule: what comes from outside
of the guest is a row of a table; everything else the agent does itself (guest.crashes).
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.plan.model import Action, Ask, Kill, Load, Qmp, Type
from harness.scenario.crashes import KINDS, needed_sysctl
from harness.scenario.model import Crash, CrashWord, Scenario

CRASH_KEY = "c"  # drivers/tty/sysrq.c: sysrq_crash_op
# An uncorrected error of bank 9 that has damaged the processor's state: MCi_STATUS VAL, UC, EN, PCC; MCG_STATUS RIPV, MCIP (Intel SDM
# volume 3, 17.3.2.2 and 17.3.1.2). arch/x86/kernel/cpu/mce: do_machine_check() -> mce_panic().
MACHINE_CHECK = "mce 0 9 0xb200000000000000 0x5 0 0"
CONSOLE = "console"  # QEMU's name of the serial line's backend: harness.testbed.qemu


def _keys(*names: str) -> dict[str, object]:
    return {"keys": [{"type": "qcode", "data": name} for name in names]}


FROM_OUTSIDE: Mapping[CrashWord, tuple[Action, ...]] = {
    "nmi": (Qmp(execute="inject-nmi", crash="nmi"),),
    "mce": (Qmp(execute="human-monitor-command", arguments={"command-line": MACHINE_CHECK}, crash="mce"),),
    "sysrq-break": (
        Qmp(execute="chardev-send-break", arguments={"id": CONSOLE}, crash="sysrq-break"),
        Type(text=CRASH_KEY),  # within 5 s: include/linux/serial_core.h, SYSRQ_TIMEOUT
    ),
    "kill": (Kill(),),
    "sysrq-keyboard": (Qmp(execute="send-key", arguments=_keys("alt", "sysrq", CRASH_KEY), crash="sysrq-keyboard"),),
}


def trigger(crash: Crash) -> tuple[Action, ...]:
    """What makes the guest crash. The agent of a guest that crashes itself cannot answer: nobody waits for it."""
    return FROM_OUTSIDE.get(crash.how, (Ask(op="crash", args={"how": crash.how}, within=1),))


def crash_module(scenario: Scenario) -> tuple[Action, ...]:
    """The module, where a step needs it, loaded long before: what the kernel says of it is no part of the crash."""
    needed = any(step.crash and KINDS[step.crash.how].module for step in scenario.steps)
    return (Load(),) if needed else ()


def crash_sysctl(scenario: Scenario) -> dict[str, str | int]:
    """What the scenario's crash needs, and the author's own word after it."""
    needed = (needed_sysctl(scenario.guest, step.crash) for step in scenario.steps if step.crash)
    return {name: value for each in needed for name, value in each.items()} | scenario.guest.sysctl
