"""A case as the checks see it: the plan, the records, and the few facts that several checks share.

In: `Plan` and events. Out: `Seen`. Rule: nothing here decides; a check that wants to know who is behind a device, which flow
an endpoint has, or when the kernel died asks here, so that all checks mean the same by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from harness.judge.lines import KernelLine, kernel_lines
from harness.judge.records import Event, Flow, Frame, Line, Records, parse
from harness.judge.strange import without
from harness.plan.model import EndpointPlan, Plan

PANIC = re.compile(r"Kernel panic - not syncing")
PANIC_END = "end Kernel panic"
CRASH_BEGUN = re.compile(
    r"Kernel panic - not syncing|sysrq: Trigger a crash|\bOops: |\bOops\b.*\[#\d+\]|BUG: kernel NULL pointer|BUG: unable to handle"
)
"""The kernel is on its way down. The sysrq line counts: a kernel that prints it and then hangs in a console never gets to
the word panic, and that is a loss of last words, not a crash that did not happen."""


@dataclass(frozen=True)
class Seen:
    """Plan and evidence of one case."""

    plan: Plan
    records: Records

    @cached_property
    def crash(self) -> float | None:
        """When the crash was asked for."""
        return self.records.crashes[0].t if self.records.crashes else None

    @cached_property
    def panic(self) -> Line | None:
        """The console's first panic line."""
        return next((line for line in self.records.console if PANIC.search(line.text)), None)

    @cached_property
    def panic_over(self) -> Line | None:
        """The console's line that ends the panic: the kernel prints nothing more of its own."""
        return next((line for line in self.records.console if PANIC_END in line.text), None)

    @cached_property
    def kernel(self) -> list[KernelLine]:
        """What the kernel printed on the serial console."""
        return kernel_lines(self.records.console)

    @property
    def stamped(self) -> bool:
        """Does the console show printk times?"""
        return any(line.stamp is not None for line in self.kernel)

    def flow(self, endpoint: str) -> Flow:
        """The UDP flow of what `endpoint` sends."""
        plan = self.plan.endpoint(endpoint)
        return _ip(plan.local_ip), plan.local_port, _ip(plan.remote_ip), plan.remote_port

    def way_from(self, endpoint: str) -> str:
        """Which way a NIC passes on what this endpoint sends, as links are cut: tx out of the guest, rx into it."""
        return "tx" if self.plan.endpoint(endpoint).at == "guest" else "rx"

    def behind(self, device: str) -> frozenset[str]:
        """The NICs behind a NIC or a bond."""
        bond = self.plan.scenario.guest.bonds.get(device)
        return frozenset(bond.slaves if bond else (device,))

    def nics_of(self, endpoint: EndpointPlan) -> frozenset[str]:
        """The NICs whose taps an endpoint's frames may use."""
        return frozenset(nic for device in endpoint.devices for nic in self.behind(device))

    def frames_of(self, endpoint: str) -> list[Frame]:
        """Captured frames that `endpoint` sent for its peer, in order of capture time."""
        flow, out = self.flow(endpoint), self.plan.endpoint(endpoint).at == "guest"
        own = sorted((f for f in self.records.frames if f.flow == flow and f.out == out), key=lambda frame: frame.t)
        return without(own, flow, (each for each in self.records.strange if each.endpoint == endpoint))


def look(plan: Plan, events: Iterable[Event]) -> Seen:
    """Parse the evidence. Raises EvidenceError."""
    return Seen(plan, parse(events))


def _ip(text: str) -> str:
    return str(ip_address(text))
