"""A dump of the crashed kernel's memory: the shape of `dump`, of the steps and waits about its server, and of what is expected of it.

Rule: who sends what to whom is said once, in `dump`; addresses and the capture kernel's command line are decided by `harness.plan.dump`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.frozen import Frozen
from harness.scenario.words import Id, Seconds

Percent = Annotated[float, Field(ge=0, le=100)]


class Dump(Frozen):
    """After a panic the capture kernel sends the crashed kernel's memory over `device` to a server behind it. `pages`: those that tell of a
    crash, through makedumpfile, or all, as /proc/vmcore has them. `lose`, `reorder`, `duplicate`: what the wire does to each frame, either way.
    `panics`: the capture kernel itself dies after so many KiB."""

    device: Id
    driver: Literal["kernel", "pmd"] = "kernel"  # pmd: one of ours, and no driver of the kernel's is loaded
    protocol: Literal["debugnet", "netdump"] = "debugnet"
    pages: Literal["kernel", "all"] | None = None  # None: what the protocol can do
    lose: Percent = 0
    reorder: Percent = 0
    duplicate: Percent = 0
    seed: int = 1
    panics: Annotated[int, Field(ge=1, le=1 << 20)] | None = None


class DumpServer(Frozen):
    """The server on the host is killed, as by kill -9, or started on the same folder."""

    state: Literal["killed", "running"]


class WaitDump(Frozen):
    """The server has so many MiB of a dump, or all of it."""

    dump: Literal["begun", "complete"]
    mib: Annotated[float, Field(ge=0, le=1 << 20)] = 0
    within: Seconds = 60


class Dumped(Frozen):
    """The dump is on the host, opens, shows the panic, and each page that is in it is the page that the guest's RAM holds; of what it leaves
    out nothing is checked. Not reached unless the console shows a panic, and with `complete: false` the capture kernel's own. `resent`, `struck`: so many at least, else not reached."""

    complete: bool = True
    within: Seconds | None = None
    first_packet: Seconds | None = None
    at_least: Annotated[int, Field(ge=1)] = 256
    resent: Annotated[int, Field(ge=0)] = 0
    struck: Annotated[int, Field(ge=0)] = 0
