"""Where a silent guest is: the looks at its CPUs in words. A hang is a finding with a place, not a time-out."""

from __future__ import annotations

from harness.judge.records import Look, Records

DEPTH = 8  # of a stack, in words


def whereabouts(records: Records) -> list[str]:
    """One sentence for each CPU that was looked at: where it was, whether it stayed there, and who called."""
    cpus = sorted({look.cpu for look in records.looks})
    return [_sentence(cpu, [look for look in records.looks if look.cpu == cpu]) for cpu in cpus]


def _sentence(cpu: int, looks: list[Look]) -> str:
    places = list(dict.fromkeys(look.where or look.rip for look in looks))
    if len(places) == 1:
        where = f"at {places[0]} each of {len(looks)} times" if len(looks) > 1 else f"at {places[0]}"
    else:
        where = f"moving, in {', '.join(places)}"
    stack = next((look.stack for look in reversed(looks) if look.stack), ())
    called = f"; called from {' <- '.join(stack[:DEPTH])}" if stack else ""
    return f"CPU {cpu} was {where}{called}"
