"""Conduct one plan: restore a guest, interpret the plan's actions one after the other, record what is seen.

In: a `Job` (plan, ingredients, template, folder), in a process of its own that has entered its own network namespace. Out: the
case's folder with evidence.jsonl, console.log and a .pcapng per tap. Rule: nothing is decided and nothing is judged here; what
fails in the testbed becomes a `run error` event, and the events end with `run end` unless the harness itself was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import resource
import traceback
from collections import deque
from collections.abc import Sequence
from functools import partial

from harness.act import run_stage
from harness.case import Case, Job, Silent, bring_up
from harness.dump.findings import FOLDER, tell_dumps
from harness.lookout import look_out
from harness.observe.events import Clock, Evidence
from harness.plan.sockets import needs_tap
from harness.testbed.errors import TestbedError, Unable
from harness.testbed.original import Copy
from harness.testbed.process import processor_time


async def conduct(job: Job, copy: Copy | None = None) -> None:
    """Run the whole case, on a copy of a machine if there is one. Never raises for what the testbed or the guest did: that is
    evidence."""
    evidence = Evidence(job.folder / "evidence.jsonl", Clock.start())
    wall = datetime.datetime.now(datetime.UTC).isoformat()
    evidence.add("run", "start", case=job.plan.case, wall=wall, versions=dict(job.versions), machine=_origin(job, copy))
    where = ["restore"]
    ran: list[Case] = []
    try:
        _require_taps(job)
        async with asyncio.timeout(job.plan.timeout), bring_up(job, evidence, copy) as case:
            ran.append(case)
            case.ahead = deque(action for stage in job.plan.stages for action in stage.actions)
            with contextlib.suppress(Silent):
                for stage in job.plan.stages:
                    where[0] = f"step {stage.step}: {stage.title}"
                    await run_stage(case, stage)
                    if stage.step == 0:
                        await look_out(case)
            where[0] = "settle"
            await settle(case)
            evidence.add("run", "settled")
    except TimeoutError:
        evidence.add(
            "run",
            "error",
            what=f"the case did not end within {job.plan.timeout:g} s; it was at {where[0]}",
            hint="raise `timeout`, or look at what it waited for in evidence.jsonl",
        )
    except Unable as error:
        evidence.add("run", "unable", what=f"{error.what}; {error.hint}")
    except TestbedError as error:
        evidence.add("run", "error", what=f"{where[0]}: {error.what}", hint=error.hint)
    except Exception as error:
        traceback.print_exc()
        evidence.add(
            "run",
            "error",
            what=f"{where[0]}: {type(error).__name__}: {error}",
            hint="a defect of the harness: the traceback is in case.log",
        )
    evidence.add("run", "spent", **_spent(ran))
    evidence.add("run", "end")
    evidence.close()


def _origin(job: Job, copy: Copy | None) -> str:
    return "booted" if job.cold else "restored" if copy is None else "copied"


def _spent(ran: Sequence[Case]) -> dict[str, float]:
    """Seconds of processor time: of QEMU, of this process, of all others that the case has started. Nothing of it runs any more."""
    machine = sum(case.machine.processor for case in ran)
    counted = sum(case.machine.processor for case in ran if case.machine.process.counted)
    below = processor_time(resource.RUSAGE_CHILDREN)
    spent = {"machine": machine, "case": processor_time(), "others": max(0.0, below - counted)}
    return {who: round(seconds, 3) for who, seconds in spent.items()}


def _require_taps(job: Job) -> None:
    """Raises Unable for what no socket can do; nothing has been started yet."""
    if job.plan.wires != "tap" and (needed := needs_tap(job.plan)) is not None:
        raise Unable(
            f"{needed}, and there are no taps here ({job.versions['wires']})", "netpoll-harness doctor says more"
        )


async def settle(case: Case) -> None:
    """Stop the machine, then take everything that is still in a buffer, so that what is missing is really missing."""
    case.evidence.watch_no_more()
    for work in case.beside:
        work.cancel()
    await asyncio.gather(*case.fired)
    if not case.crashed:
        for endpoint in case.plan.endpoints:
            if endpoint.at == "guest" and endpoint.ours:
                await case.machine.alive(case.machine.agent.ask("np_counters"), 20, "the guest's counters")
                break
    if not case.gone:
        await case.machine.qmp.execute("stop")
    for flood in case.floods:
        case.evidence.add("host", "flood", count=await asyncio.to_thread(flood.stop))
    for nic in case.served.values():
        nic.drain()
    for capture in case.captures.values():
        while capture.drain():
            pass
    await asyncio.to_thread(case.endpoints.close)
    case.machine.drain_console()
    await _dumps(case)


async def _dumps(case: Case) -> None:
    """The server ends in order, and what it has written is looked at."""
    if case.dump_server is not None and case.dump_server.running:
        await case.dump_server.end()
    if case.dump_tool is not None:
        tell = partial(case.evidence.add, "host", "vmcore")
        await asyncio.to_thread(tell_dumps, case.folder / FOLDER, case.ram, case.dump_tool, case.vmlinux, tell)
