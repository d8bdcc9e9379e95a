"""An injection whose time is a place in a panic's burst: done once the N-th line has been seen.

In: every event of the evidence as it is written, in the event loop's thread. Out: one call of `fire` with the event that was the
N-th line. Rule: counting starts when the crash is asked for; what was on its way before that is no line of the panic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from harness.plan.model import Arm

STAMP = re.compile(r"\[ *\d+\.\d{6}\]")  # printk time: the line is the kernel's, not user space's

Event = Mapping[str, Any]


class Fuse:
    """One armed action. `fire` is called at most once."""

    def __init__(self, arm: Arm, fire: Callable[[Event], None]) -> None:
        self._arm, self._fire = arm, fire
        self._since: float | None = None  # when the crash was asked for
        self._left = arm.line
        self._flows = {tuple(flow) for flow in arm.flows}

    def take(self, event: Event) -> None:
        """Count this event if it is a line; the last one fires."""
        if self._since is None:
            if (event["src"], event["kind"]) == ("inject", "crash"):
                self._since = event["t"]
        elif self._left and event["t"] >= self._since and self._is_line(event):
            self._left -= 1
            if not self._left:
                self._fire(event)

    def _is_line(self, event: Event) -> bool:
        if self._arm.seen == "console":
            return event["src"] == "console" and STAMP.search(event["text"]) is not None
        flow = tuple(event.get(key) for key in ("sip", "sport", "dip", "dport"))
        of_nic = (event["src"], event.get("nic"), event.get("dir")) == ("wire", self._arm.nic, "out")
        return of_nic and flow in self._flows
