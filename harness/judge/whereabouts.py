"""Where a silent guest is: the looks at its CPUs in words. A hang is a finding with a place, not a time-out.

Rule: a guest whose agent does not answer hangs if a CPU of it is in the kernel at every look and its console is quiet, too; then
it is the kernel's fault. A CPU that idles or works in user space blames nobody but the agent: the testbed's error.
"""

from __future__ import annotations

from harness.judge.records import Look, Records

DEPTH = 8  # of a stack, in words
QUIET = 2.0  # seconds without a line on the console, before a kernel that computes is one that hangs


def whereabouts(records: Records) -> list[str]:
    """One sentence for each CPU that was looked at: where it was, whether it stayed there, and who called."""
    return [_sentence(cpu, [look for look in records.looks if look.cpu == cpu]) for cpu in _cpus(records)]


def hung(records: Records) -> bool:
    """Does the silence of the guest's agent come from a kernel that hangs?"""
    if not records.silent or not records.looks:
        return False
    spoken = max((line.t for line in records.console), default=0.0)
    quiet = min(look.t for look in records.looks) - spoken >= QUIET
    return quiet and any(_in_kernel([look for look in records.looks if look.cpu == cpu]) for cpu in _cpus(records))


def _in_kernel(looks: list[Look]) -> bool:
    return len(looks) > 1 and all(look.where is not None and not look.halted for look in looks)


def _cpus(records: Records) -> list[int]:
    return sorted({look.cpu for look in records.looks})


def _sentence(cpu: int, looks: list[Look]) -> str:
    places = list(dict.fromkeys(look.where or look.rip for look in looks))
    if len(places) == 1:
        where = f"at {places[0]} each of {len(looks)} times" if len(looks) > 1 else f"at {places[0]}"
    else:
        where = f"moving, in {', '.join(places)}"
    stack = next((look.stack for look in reversed(looks) if look.stack), ())
    called = f"; called from {' <- '.join(stack[:DEPTH])}" if stack else ""
    return f"CPU {cpu} was {where}{called}"
