"""What a run saw of each fault of a tg3 under two drivers, as the table of docs/faults.md: made from evidence, never typed.

In: case folders of a run of testcases/pmd/tg3-faults. Out: Markdown, Linux's driver beside ours. Rule: a cell says how many of the
messages sent while the fault lasted came before its end and after it, and how many of those sent afterwards came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.judge.delivery import delivery
from harness.judge.records import Event
from harness.judge.seen import look
from harness.plan.model import Plan
from harness.report import store

COMMAND = "netpoll-harness faults RESULTS"  # what makes the page
DRIVERS = {"kernel": "Linux", "pmd": "ours"}  # by the sender's stack
DURING, AFTER = "during", "after"  # labels of the two sends
COLUMNS = ("while it lasts", "at its end", "lost", "afterwards", "resets")


@dataclass(frozen=True)
class Fate:
    """What became of the messages of one case. `sent`, `sent_after`: how many there were; `resets`: of the chip, by its driver."""

    fault: str
    stack: str
    kernel: str
    sent: int
    in_time: int
    late: int
    sent_after: int
    came_after: int
    resets: int

    def cells(self) -> tuple[str, ...]:
        lost = self.sent - self.in_time - self.late
        return (
            f"{self.in_time} of {self.sent}",
            str(self.late or "-"),
            str(lost or "-"),
            f"{self.came_after} of {self.sent_after}",
            str(self.resets or "-"),
        )


def page(folders: Sequence[Path]) -> str:
    """The whole page. Raises StoreError, also when no case has a fault under one of the two drivers."""
    fates = [fate for folder in folders if (fate := read(folder)) is not None]
    if not fates:
        raise store.StoreError("no case in there has a fault\n  -> netpoll-harness run testcases/pmd/tg3-faults.yaml")
    versions = store.read_versions(folders[0])
    return "\n".join([*_head(fates, versions["qemu"], versions["accel"]), *_table(fates)]) + "\n"


def read(folder: Path) -> Fate | None:
    """One case; None if it is none of these. Raises StoreError."""
    plan, events = store.read_case(folder)
    return fate(plan, events, store.read_versions(folder)["kernel"])


def fate(plan: Plan, events: Sequence[Event], kernel: str) -> Fate | None:
    """The same from values."""
    begun, ended = (_fault(events, on) for on in (True, False))
    sender = next((end for end in plan.endpoints if end.at == "guest" and end.stack in DRIVERS), None)
    receiver = next((end for end in plan.endpoints if end.at == "host"), None)
    if begun is None or ended is None or sender is None or receiver is None:
        return None
    asked = max(
        e["t"] for e in events if e["kind"] == "stage" and e["t"] <= ended["t"]
    )  # the device acts before it answers
    found = delivery(look(plan, events), sender.id, receiver.id)
    came = {each.key: each.t for each in reversed(found.came)}
    during = [t for (label, _), t in came.items() if label == DURING]
    return Fate(
        fault=str(begun["args"]["name"]),
        stack=sender.stack,
        kernel=kernel,
        sent=_number(found.sent, DURING),
        in_time=sum(t < asked for t in during),
        late=sum(t >= asked for t in during),
        sent_after=_number(found.sent, AFTER),
        came_after=_number(came, AFTER),
        resets=sum(e["kind"] == "reset" and e["src"] == "device" and e["t"] > begun["t"] for e in events),
    )


def _fault(events: Iterable[Event], on: bool) -> Event | None:
    faults = (e for e in events if e["src"] == "inject" and e["kind"] == "fault" and e["op"] == "fault")
    return next((e for e in faults if bool(e["args"]["on"]) is on), None)


def _number(keys: Iterable[tuple[str, int]], label: str) -> int:
    return sum(key[0] == label for key in keys)


def _head(fates: Sequence[Fate], qemu: str, accel: str) -> Iterator[str]:
    kernels = ", ".join(sorted({each.kernel for each in fates}))
    yield "# Faults of a tg3, two drivers"
    yield ""
    yield f"Made by `{COMMAND}` from a run of `testcases/pmd/tg3-faults.yaml`: QEMU {qemu}, accelerator {accel}, Linux {kernels}; not typed, do not edit."
    yield ""
    yield "The same case with Linux's tg3 and netconsole on it, and with our driver and our stack (`stack: pmd`, [pmd.md](pmd.md)): messages sent while the"
    yield "fault lasts, how many of them came before its end and how many once it had ended, how many of those sent afterwards came, and how often the"
    yield "driver reset the chip. What each fault does: [tg3.md](tg3.md)."


def _table(fates: Sequence[Fate]) -> Iterator[str]:
    by_case = {(each.fault, each.stack): each for each in fates}
    yield ""
    empty = ("",) * len(COLUMNS)
    heads = [f"{driver}: {column}" for driver in DRIVERS.values() for column in COLUMNS]
    yield "| fault | " + " | ".join(heads) + " |"
    yield "|---" * (1 + len(heads)) + "|"
    for fault in dict.fromkeys(each.fault for each in fates):
        cells = [
            cell
            for stack in DRIVERS
            for cell in (by_case[fault, stack].cells() if (fault, stack) in by_case else empty)
        ]
        yield f"| `{fault}` | " + " | ".join(cells) + " |"
