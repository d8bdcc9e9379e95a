"""The guest kernel's TX queues: looked at beside the steps of a case because one of its expectations needs it, or once, when last words are missing.

In: a case whose NICs are set up. Out: evidence, by a task of the case or at once. Rule: where a kernel does not say where it keeps its queues nothing is
written, and the expectation is not reached.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from harness.case import Case
from harness.observe import queues
from harness.observe.events import Evidence
from harness.plan.model import Await
from harness.testbed import btf, symbols
from harness.testbed.errors import TestbedError

Look = Callable[[Evidence, queues.Hmp, list[queues.Queue]], Awaitable[None]]


async def look_out(case: Case) -> None:
    """Begin to look, if anything is to be seen. Call once the NICs are plugged in; when it returns the first look has begun, or there
    is nothing to be seen."""
    if not (wanted := _watched(case)):
        return
    found = asyncio.Event()

    async def watch(evidence: Evidence, hmp: queues.Hmp, known: list[queues.Queue]) -> None:
        found.set()
        await queues.watch(evidence, hmp, known)

    looking = asyncio.ensure_future(_with_queues(case, wanted, watch))
    looking.add_done_callback(lambda _: found.set())
    case.beside.append(looking)
    await found.wait()  # as long as the case may take


async def look_at_queues(case: Case) -> None:
    """Those that are stopped now, of NICs that nobody watches: what is missing on the wire may wait behind one."""
    nics = frozenset(nic.id for nic in case.plan.nics) - _watched(case)
    if nics:
        await _with_queues(case, nics, queues.look)


def _watched(case: Case) -> frozenset[str]:
    asked = [expect.queue_stopped for expect in case.plan.expect if expect.queue_stopped]
    waits = (action for stage in case.plan.stages for action in stage.actions if isinstance(action, Await))
    awaited = {wait.of for wait in waits if wait.what == "queue"}
    return frozenset(each.nic for each in asked if each.by == "kernel") | awaited


async def _with_queues(case: Case, wanted: frozenset[str], then: Look) -> None:
    """A look, or looks until the case settles. Ends by itself with QEMU."""
    if case.vmlinux is None:
        return
    init_net = symbols.address_of(case.kallsyms, "init_net")
    try:
        layout = await asyncio.to_thread(btf.layout, case.vmlinux, queues.STRUCTURES)
    except btf.BtfError:
        return
    if init_net is None:
        return
    told = [event for event in case.evidence.events if (event["src"], event["kind"]) == ("guest", "nic")]
    nics = {str(event["ifname"]): str(event["nic"]) for event in told if event["nic"] in wanted}

    async def hmp(command: str) -> str:
        return str(await case.machine.fast.send("human-monitor-command", {"command-line": command}))

    with contextlib.suppress(TestbedError):  # QEMU has ended, which the case hears of elsewhere
        await then(case.evidence, hmp, await queues.find(hmp, layout, init_net, nics))
