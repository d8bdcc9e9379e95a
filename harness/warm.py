"""Warm a machine up that is to be copied: what nearly all cases do is done once, and undone.

In: an `Original` whose QEMU waits, and the job of a case on the same template. Out: the same QEMU, restored, warm, stopped. Rule: what
the guest has afterwards is what it had before, as far as a case can see: no NIC, no target, no endpoint, nothing learned.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import time
from functools import partial
from pathlib import Path

from guest.endpoint import Endpoints
from harness.act import run_stage
from harness.case import Case, Job, observers_of
from harness.inject.pause import Offset
from harness.observe.events import Clock, Evidence
from harness.plan.compile import compile_plan
from harness.plan.model import NicPlan, Plan
from harness.plan.setup import device_id
from harness.plan.sockets import over_sockets
from harness.scenario.load import load
from harness.testbed.ends import Ends
from harness.testbed.machine import Machine
from harness.testbed.original import HELM, Original
from harness.testbed.process import Sibling
from harness.testbed.template import restore

SCENARIO = Path(__file__).with_name("warm-up.yaml")
WITHIN = 20.0  # seconds for each thing asked


class Lent(Sibling):
    """The original, which is not this process's to end."""

    def kill(self) -> None:
        pass

    def wait(self) -> int:
        return 0


def warm_up(original: Original, job: Job) -> None:
    """In a process of its own. Raises TestbedError, and TimeoutError."""
    asyncio.run(_warm_up(original, job))


async def _warm_up(original: Original, job: Job) -> None:
    ends = Ends(
        {**original.ends.near, "qmp": original.ends.near[HELM]},
        {},
        original.ends.printed,
        -1,
        original.ends.stderr,
    )
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        offset = Offset()
        evidence = Evidence(folder / "evidence.jsonl", Clock.start())
        console = folder / "console.log"
        observers = observers_of(evidence, offset)
        on = Machine.on(Lent(original.process.pid), original.argv, ends, observers, evidence.clock, console, fast=False)
        machine = await stack.enter_async_context(on)
        await restore(machine, job.template)
        await machine.agent.synchronise(time.monotonic, WITHIN)
        offset.seconds = machine.agent.offset
        plan = _plan(job.plan)
        sockets: dict[str, socket.socket] = {}
        endpoints = Endpoints(partial(evidence.add, "host"), qdisc_bypass=False, sockets=sockets)
        stack.callback(endpoints.close)
        case = Case(plan, evidence, machine, endpoints, folder, stack, sockets=sockets)
        for stage in plan.stages:
            await run_stage(case, stage)
        await machine.agent.ask("forget", within=WITHIN)
        for nic in plan.nics:
            await _take(machine, nic)
        await machine.agent.ask("forget", within=WITHIN)
        await machine.qmp.execute("stop")


def _plan(like: Plan) -> Plan:
    """On a machine of the same kind. Over sockets: a guest does not see what its NICs are joined to, and there may be no taps."""
    (scenario,) = load(SCENARIO)
    guest = scenario.guest.model_copy(update={"machine": like.scenario.guest.machine})
    return over_sockets(compile_plan(scenario.model_copy(update={"guest": guest}), f"{SCENARIO}:1"))


async def _take(machine: Machine, nic: NicPlan) -> None:
    """Unplug a NIC and wait until the guest has let it go."""
    await machine.qmp.execute("device_del", {"id": device_id(nic.id)})
    gone = machine.qmp_event(
        "DEVICE_DELETED", WITHIN, f"the end of {nic.id}", lambda data: data.get("device") == device_id(nic.id)
    )
    await gone
    await machine.qmp.execute("netdev_del", {"id": f"net-{nic.id}"})
