"""Waiting for evidence, and where the guest is when it does not come.

In: a `Case` and what its plan awaits. Out: `await` events, and looks at the CPUs and queues of a guest that fell silent. Rule: each wait ends with what
it waits for, at its deadline, or once nothing in the guest can bring it about any more.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any

from harness.case import Case
from harness.lookout import look_at_queues
from harness.observe import stuck
from harness.observe.events import Event
from harness.observe.progress import Progress
from harness.plan.model import Await
from harness.testbed import symbols
from harness.testbed.errors import TestbedError

# Seconds of waiting for a panic's last words between looks at where the CPUs are; the last again and again.
LOOKS = (0.1, 0.1, 0.2, 0.4)
FLUSH = 0.6  # seconds from the moment at which no CPU can send any more: what QEMU, a tap and our endpoint may need to pass a frame on
SILENCE = 1.0  # seconds without a line on the console, before a panic is looked at that has not ended: one that speaks is not disturbed
DIES = re.compile(r"Kernel panic - not syncing|\bBUG: (?!soft lockup|workqueue)|kernel BUG at |Oops: ")
HANGS = 5  # looks in a row, LOOKS apart, that find a panic at what never ends, before it is taken for that
OF_THE_PANIC = ("panic", "text", "event")  # what only a panic that goes on brings about


async def await_evidence(case: Case, action: Await) -> None:
    """Wait for evidence; time-outs are evidence too, unless the case makes no sense without it."""
    began = time.monotonic()
    keys: dict[str, Any] = {"what": action.what, "of": action.of, "state": action.state, "count": action.count}
    deadline = await _deadline(case, action, began)
    progress, seen = await _reached(case, action, deadline)
    if seen and not progress.lost:
        case.evidence.add("await", "reached", **keys, seconds=round(time.monotonic() - began, 4))
        return
    case.evidence.add("await", "timeout", **keys, within=round(deadline - began, 3), seen=progress.seen())
    if action.what == "panic":
        await where_is_it(case, f"no line with {action.of!r} on the console")
        await look_at_queues(case)
    elif action.what == "text" and case.crashed:
        await where_is_it(case, f"no message with {action.text!r} at {action.of}")
        await look_at_queues(case)
    if action.required:
        raise TestbedError(
            f"{action.what} {action.of} {action.state or ''} did not come within {action.within:g} s ({progress.seen()})",
            "the console and evidence.jsonl show how far the guest came",
        )


async def _deadline(case: Case, action: Await, began: float) -> float:
    """When to give up. A panic's last words are not waited for longer than its CPUs can still print and send them, which they do in an
    endless loop for as long as they are let, at the cost of the cases beside this one."""
    deadline = began + action.within
    if case.hangs and action.what in OF_THE_PANIC:
        return min(deadline, began + FLUSH)
    if action.what not in ("panic", "text") or not case.crashed or case.gone:
        return deadline
    last: deque[stuck.Rest] = deque(maxlen=HANGS)
    since = case.evidence.clock.now()
    for pause in chain(LOOKS, repeat(LOOKS[-1])):
        look = time.monotonic() + pause
        if look >= deadline or (await _reached(case, action, look))[1]:
            break
        if action.what == "panic" and not _quiet(case, since):
            continue
        last.append(await stuck.rest_of_panic(partial(_hmp, case), symbols.load(case.kallsyms)))
        if await _is_over(case, action, last):
            case.evidence.add("qmp", "panic_over", seconds=round(time.monotonic() - began, 4))
            return min(deadline, time.monotonic() + FLUSH)
    return deadline


async def _is_over(case: Case, action: Await, last: Sequence[stuck.Rest]) -> bool:
    """By the last looks. A guest in panic()'s loop is stopped where nobody needs it any more."""
    rest = last[-1]
    case.hangs = list(last) == [stuck.Rest.SPINS] * HANGS and any(DIES.search(line["text"]) for line in _said(case))
    if rest is stuck.Rest.LOOPS and _needs_no_guest(case):
        await case.machine.alive(case.machine.qmp.execute("stop"), 30, "QEMU's answer to stop")
        case.stopped = True
    return case.hangs or rest is stuck.Rest.LOOPS or (rest is stuck.Rest.HALTS and action.what == "text")


def _quiet(case: Case, since: float) -> bool:
    """Has the console said nothing for a while? So it is with an NMI's panic before Linux 5.15, one that hangs, and one of a machine whose console is dead."""
    said = _said(case)
    return case.evidence.clock.now() - max(since, said[-1]["t"] if said else 0.0) > SILENCE


def _said(case: Case) -> list[Event]:
    """What the console has said since this step began."""
    return [event for event in case.evidence.events[case.acted :] if event["src"] == "console"]


def _needs_no_guest(case: Case) -> bool:
    """May a guest whose panic is over be stopped, which `settle` would do next? Nothing but waiting follows, and no frame of it is in a
    buffer whose clock stands still with the machine (net/filter-buffer.c: QEMU_CLOCK_VIRTUAL) or in a device that it shares memory with."""
    held = any((event["src"], event["kind"]) == ("inject", "hold") for event in case.evidence.events)
    return (
        case.ahead is not None
        and all(isinstance(action, Await) for action in case.ahead)
        and not held
        and not case.served
    )


async def _reached(case: Case, action: Await, deadline: float) -> tuple[Progress, bool]:
    """Whether it came, by all that is known at `deadline`."""
    progress = Progress(action, case.acted)
    waiting = case.evidence.until(progress.take, deadline)
    if case.gone:
        return progress, await waiting
    within = max(deadline - time.monotonic(), 0) + 5
    return progress, await case.machine.alive(waiting, within, f"{action.what} {action.of}")


async def _hmp(case: Case, command: str) -> str:
    answer = case.machine.qmp.execute("human-monitor-command", {"command-line": command})
    return str(await case.machine.alive(answer, 30, f"QEMU's answer to {command}"))


async def where_is_it(case: Case, why: str) -> None:
    """A guest that panics and never says its last line, or that answers no more, hangs somewhere: find out where."""
    samples = 1 if case.stopped else stuck.SAMPLES
    await stuck.record(case.evidence, partial(_hmp, case), symbols.load(case.kallsyms), why, samples)
