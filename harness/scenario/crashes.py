"""The ways to crash a guest: one row each, with what it needs and how it ends.

In: the word in a testcase's `crash: {how: ...}`. Out: a `CrashKind`. Rule: whoever wants to know something of a way to crash asks
this table, the linter, the compiler and the judge alike; what is done for it stands in `harness.plan.crashes`, and in
`guest.crashes` for what the guest does itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from harness.scenario.model import CrashWord


@dataclass(frozen=True, slots=True)
class CrashKind:
    """`context`: what the kernel is doing when it begins to die. `sysctl`: set before the first step, unless the author does."""

    context: str
    sysctl: Mapping[str, int] = field(default_factory=dict)


SYSRQ = {
    "kernel.sysrq": 1
}  # Debian's default mask leaves no crash to the keyboard: drivers/tty/sysrq.c, sysrq_on_mask()
HUNG = {"kernel.hung_task_panic": 1, "kernel.hung_task_timeout_secs": 1}

KINDS: Mapping[CrashWord, CrashKind] = {
    "sysrq-c": CrashKind("process"),
    "sysrq-wire": CrashKind("process"),
    "sysrq-break": CrashKind("hardirq of the serial line", SYSRQ),
    "sysrq-keyboard": CrashKind("hardirq or softirq of the keyboard", SYSRQ),
    "nmi": CrashKind("NMI", {"kernel.unknown_nmi_panic": 1}),  # else the kernel only says "Dazed and confused"
    "mce": CrashKind("machine check"),
    "oom": CrashKind("process, out of memory", {"vm.panic_on_oom": 1}),
    "hung-task": CrashKind("kthread khungtaskd", HUNG),
}
assert set(KINDS) == set(get_args(CrashWord))
