"""The ways to crash a guest: one row each, with what it needs and how it ends.

In: the word in a testcase's `crash: {how: ...}`. Out: a `CrashKind`. Rule: whoever wants to know something of a way to crash asks
this table, the linter, the compiler and the judge alike; what is done for it stands in `harness.plan.crashes`, and in
`guest.crashes` for what the guest does itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from harness.scenario.model import Crash, CrashWord, Guest


@dataclass(frozen=True, slots=True)
class CrashKind:
    """`context`: what the kernel is doing when it begins to die. `sysctl`: set before the first step, unless the author does."""

    context: str
    sysctl: Mapping[str, int] = field(default_factory=dict)
    module: bool = False  # done by npcrash.ko (images/npcrash)
    processors: int = 1  # that the guest must have at least


SYSRQ = {
    "kernel.sysrq": 1
}  # Debian's default mask leaves no crash to the keyboard: drivers/tty/sysrq.c, sysrq_on_mask()
NMI_PANICS = {"kernel.unknown_nmi_panic": 1}  # else the kernel only says "Dazed and confused"
OOPS = {"kernel.panic_on_oops": 1}
SOFT = {"kernel.softlockup_panic": 1, "kernel.watchdog_thresh": 1}  # the detector waits twice as long
HUNG = {"kernel.hung_task_panic": 1, "kernel.hung_task_timeout_secs": 1}

KINDS: Mapping[CrashWord, CrashKind] = {
    "sysrq-c": CrashKind("process"),
    "sysrq-wire": CrashKind("process"),
    "sysrq-break": CrashKind("hardirq of the serial line", SYSRQ),
    "sysrq-keyboard": CrashKind("hardirq or softirq of the keyboard", SYSRQ),
    "nmi": CrashKind("NMI", NMI_PANICS),
    "mce": CrashKind("machine check"),
    "oom": CrashKind("process, out of memory", {"vm.panic_on_oom": 1}),
    "hung-task": CrashKind("kthread khungtaskd", HUNG),
    "watchdog": CrashKind("whatever QEMU's action makes of it"),
    "kill": CrashKind("none: the machine is gone"),
    "hardirq": CrashKind("hardirq", module=True),
    "softirq": CrashKind("softirq", module=True),
    "napi": CrashKind("softirq, inside the NIC's NAPI poll", module=True),
    "lock": CrashKind("process, interrupts off, a spin lock held", module=True),
    "tx-lock": CrashKind("process, the TX lock of each NIC held", module=True),
    "tx-lock-elsewhere": CrashKind(
        "process, the TX lock of each NIC held by another processor", module=True, processors=2
    ),
    "console-lock": CrashKind("process, the console lock held", module=True),
    "rtnl": CrashKind("process, the RTNL mutex held", module=True),
    "bug": CrashKind("process, BUG()", OOPS, module=True),
    "null": CrashKind("process, page fault", OOPS, module=True),
    "stack-overflow": CrashKind("double fault", OOPS, module=True),
    "softlockup": CrashKind("the timer's hard interrupt", SOFT, module=True),
    "hardlockup": CrashKind("none, unless a watchdog's NMI comes", module=True),
}
FATAL = ("inject-nmi", "reset", "poweroff")  # actions of the watchdog that the guest does not outlive


def ends(guest: Guest, crash: Crash) -> Literal["panic", "machine"]:
    """Whether the guest panics, or QEMU itself comes to its end: `-action reboot=shutdown` makes a reset the last thing it does."""
    by_watchdog = crash.how == "watchdog" and guest.watchdog in ("reset", "poweroff")
    return "machine" if crash.how == "kill" or by_watchdog else "panic"


def needed_sysctl(guest: Guest, crash: Crash) -> Mapping[str, int]:
    """What must be set for this crash to be one."""
    return {**KINDS[crash.how].sysctl, **(NMI_PANICS if guest.watchdog == "inject-nmi" else {})}


assert set(KINDS) == set(get_args(CrashWord))
