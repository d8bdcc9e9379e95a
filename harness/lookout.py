"""What is looked at beside the steps of a case because one of its expectations needs it: the guest kernel's TX queues.

In: a case whose NICs are set up. Out: a task of the case that writes evidence. Rule: where a kernel does not say where it keeps its queues nothing is
written, and the expectation is not reached.
"""

from __future__ import annotations

import asyncio
import contextlib

from harness.case import Case
from harness.observe import queues
from harness.testbed import btf, symbols
from harness.testbed.errors import TestbedError


def look_out(case: Case) -> None:
    """Begin to look, if anything is to be seen. Call once the NICs are plugged in."""
    wanted = {
        expect.queue_stopped.nic
        for expect in case.plan.expect
        if expect.queue_stopped and expect.queue_stopped.by == "kernel"
    }
    if wanted and case.vmlinux is not None:
        case.beside.append(asyncio.ensure_future(_queues(case, frozenset(wanted))))


async def _queues(case: Case, wanted: frozenset[str]) -> None:
    """Until the case settles. Ends by itself with QEMU."""
    assert case.vmlinux is not None
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
        await queues.watch(case.evidence, hmp, await queues.find(hmp, layout, init_net, nics))
