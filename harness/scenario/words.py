"""Words that all of a testcase's models share: what a name looks like, how long something may take.

Rule: one pattern each, so that an author meets one rule and one sentence about it (harness.scenario.messages.PATTERNS).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,14}$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Way = Literal["tx", "rx", "both"]  # seen from the guest
FaultName = Literal[  # of a device model: `fault:`, and what `counted` counts
    "no-interrupts", "no-completions", "no-dma", "stale-status", "gone", "no-reset", "slow",
    "drop", "corrupt", "delay", "reorder", "duplicate", "silent-link", "spurious-interrupt",
]  # fmt: skip
