"""A running case: a clone that answers, its evidence, and everything that ends with it.

In: a `Job`. Out: a `Case`, from `bring_up`, for as long as its context lasts. Rule: whatever is started here or later on a case's
behalf is ended by the case's own exit stack, in the reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from guest.endpoint import Endpoints
from harness.dump.server import DumpServer
from harness.inject.flood import Flood
from harness.inject.npcrash import CrashFile
from harness.inject.pause import Offset
from harness.nic.client import ServedNic
from harness.observe.capture import Capture
from harness.observe.events import Clock, Evidence
from harness.observe.relay import Relay
from harness.plan.model import Action, Plan
from harness.plan.nics import MODELS
from harness.testbed.channels import Channel, ChannelName, Login
from harness.testbed.machine import Machine, Observers
from harness.testbed.original import Copy
from harness.testbed.process import Sibling
from harness.testbed.qemu import Channels, Memory
from harness.testbed.template import (
    BOOT_DEADLINE,
    INITRD,
    Ingredients,
    Template,
    blank_memory,
    boot_argv,
    clone_argv,
    clone_memory,
    join,
    load_capture,
    restore,
)
from images import DumpTool, Gdb

GARBAGE_LIMIT = 100  # remarks about an ill-behaved guest that are worth keeping


@dataclass(frozen=True)
class Job:
    """All that a case process needs."""

    plan: Plan
    ingredients: Ingredients
    template: Template
    folder: Path
    versions: Mapping[str, str]
    crash_module: CrashFile | None = None  # where the plan loads it
    dump_tool: DumpTool | None = None  # where the plan has a dump
    gdb: Gdb | None = None  # where it has a debugger
    cold: bool = False  # boot instead of restoring: what every peer does; for the bench and for suspicion


@dataclass
class Case:
    """What a running case holds: its machine, its taps and captures, the host's endpoints."""

    plan: Plan
    evidence: Evidence
    machine: Machine
    endpoints: Endpoints
    folder: Path
    stack: contextlib.AsyncExitStack
    taps: dict[str, int] = field(default_factory=dict)
    sockets: dict[str, socket.socket] = field(default_factory=dict)  # our stack's ends of wires that are no taps
    captures: dict[str, Capture | Relay] = field(default_factory=dict)
    served: dict[str, ServedNic] = field(default_factory=dict)
    crashed: bool = False
    hangs: bool = False  # its panic waits for what never comes
    stopped: bool = False  # its panic is over, and so is the machine's time
    gone: bool = False  # QEMU has ended, as the testcase wanted it
    ahead: deque[Action] | None = None  # what is still to be done; None: nobody knows, somebody decides as he goes
    acted: int = 0  # events there were when the last step began that did more than wait
    offset: Offset = field(default_factory=Offset)
    kallsyms: Path = Path()
    vmlinux: Path | None = None  # None: a guest that boots its own kernel
    login: Login | None = None
    crash_module: CrashFile | None = None
    dump_tool: DumpTool | None = None
    gdb: Gdb | None = None
    dump_server: DumpServer | None = None
    ram: int = -1  # the guest's memory, where it is shared with us
    floods: list[Flood] = field(default_factory=list)
    channels: dict[ChannelName, Channel] = field(default_factory=dict)
    fired: list[asyncio.Task[None]] = field(default_factory=list)  # what fuses have set off
    beside: list[asyncio.Future[None]] = field(default_factory=list)  # links that flap beside the steps


class Silent(Exception):
    """The guest fell silent before its time, which evidence says already, with where its CPUs are: no step can follow."""


@contextlib.asynccontextmanager
async def bring_up(job: Job, evidence: Evidence, copy: Copy | None = None) -> AsyncIterator[Case]:
    """A clone that answers: restored from the template, or a copy of one."""
    async with contextlib.AsyncExitStack() as stack:
        offset, within = Offset(), BOOT_DEADLINE[job.ingredients.accel]
        began = time.monotonic()
        served: dict[str, ServedNic] = {}
        stack.callback(_close_all, served)  # after QEMU, which needs them
        if copy is None:
            memory, inherit = stack.enter_context(_memory(job))
            if job.cold:
                stack.callback(_join(job))
            argv = partial(_argv, job, memory)
            running = Machine.start(
                argv, observers_of(evidence, offset), evidence.clock, job.folder / "console.log", inherit
            )
        else:
            inherit = () if copy.memory is None else (copy.memory,)
            running = Machine.on(
                Sibling(copy.pid),
                copy.argv,
                copy.ends,
                observers_of(evidence, offset),
                evidence.clock,
                job.folder / "console.log",
            )
        guest = await stack.enter_async_context(running)
        spawned = guest.spawned - evidence.clock.zero
        evidence.add("run", "timing", t=spawned, what="spawn", seconds=round(guest.spawned - began, 4))
        evidence.add("run", "timing", what="qemu", seconds=round(time.monotonic() - began, 4))
        if copy is not None:
            await guest.qmp.execute("cont")
        elif not job.cold:
            await restore(guest, job.template)
            evidence.add("run", "timing", what="migrated", seconds=round(time.monotonic() - began, 4))
        await guest.alive(
            guest.agent.synchronise(time.monotonic, within), within, "the agent's answer after the restore"
        )
        offset.seconds = guest.agent.offset
        if job.cold and job.plan.machine.capture:
            await load_capture(guest)
        evidence.add("run", "timing", what="restore", seconds=round(time.monotonic() - began, 4))
        sockets: dict[str, socket.socket] = {}
        endpoints = Endpoints(partial(evidence.add, "host"), qdisc_bypass=False, sockets=sockets)
        stack.callback(endpoints.close)
        yield Case(
            job.plan,
            evidence,
            guest,
            endpoints,
            job.folder,
            stack,
            served=served,
            offset=offset,
            sockets=sockets,
            kallsyms=job.template.kallsyms,
            vmlinux=job.ingredients.boot.kernel if job.ingredients.boot else None,
            login=job.ingredients.login,
            crash_module=job.crash_module,
            dump_tool=job.dump_tool,
            gdb=job.gdb,
            ram=inherit[0] if inherit else -1,
        )


def _close_all(served: Mapping[str, ServedNic]) -> None:
    for nic in served.values():
        nic.close()


def shares_memory(job: Job) -> bool:
    """Another process sees the guest's memory: a NIC that we serve, or a dump's comparison with what QEMU wrote to."""
    return job.plan.machine.capture or any(MODELS[nic.model].served for nic in job.plan.nics)


def _memory(job: Job) -> AbstractContextManager[tuple[Memory, Sequence[int]]]:
    return blank_memory(job.plan.machine.memory) if job.cold else clone_memory(job.template, shares_memory(job))


def _join(job: Job) -> Callable[[], None]:
    """What a cold guest with a capture kernel boots; returns what removes it."""
    boot, whole = job.ingredients.boot, job.folder / INITRD
    if boot is not None and boot.more is not None:
        join((boot.initrd, boot.more), whole)
    return lambda: whole.unlink(missing_ok=True)


def _argv(job: Job, memory: Memory, channels: Channels) -> list[str]:
    if job.cold:
        return boot_argv(job.ingredients, memory, channels, None if job.ingredients.own else job.folder)
    return clone_argv(job.ingredients, memory, channels, job.template.folder)


def observers_of(evidence: Evidence, offset: Offset) -> Observers:
    remarks = iter(range(GARBAGE_LIMIT))

    def garbage(text: str) -> None:
        if next(remarks, None) is not None:
            evidence.add("run", "garbage", text=text)

    def guest_event(kind: str, stamp: float, keys: Mapping[str, Any]) -> None:
        host_stamp = stamp + offset.seconds
        evidence.add("guest", kind, t=_clamped(evidence.clock, host_stamp), guest_t=round(stamp, 6), **keys)

    def qmp_event(name: str, data: Mapping[str, Any]) -> None:
        if name == "STOP":
            offset.paused = time.monotonic()
        evidence.add("qmp", "event", name=name, data=dict(data))

    def console_line(t: float, text: str) -> None:
        evidence.add("console", "line", t=t, text=text)

    return Observers(qmp_event, console_line, guest_event, garbage)


def _clamped(clock: Clock, host_stamp: float) -> float:
    """A guest's stamp on the case's clock; it can be neither before the case nor in the future."""
    return min(max(host_stamp - clock.zero, 0.0), clock.now())
