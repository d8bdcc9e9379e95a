"""Lines on standard output while a dump is sent, and one when it has ended.

In: a client, the time. Out: lines. The one rule: a line is short, whole and flushed: a console may be all that is left.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from typing import Protocol

MIB = 1 << 20


class Dumping(Protocol):
    """What both protocols' clients are."""

    counts: Counter[str]
    sent: int
    why: str
    port: int | None

    @property
    def state(self) -> enum.Enum: ...

    @property
    def ended(self) -> bool: ...

    @property
    def done(self) -> bool: ...

    @property
    def total(self) -> int: ...

    @property
    def resent(self) -> int: ...

    @property
    def starved(self) -> bool: ...

    def receive(self, data: bytes, port: int, now: float, /) -> None: ...

    def poll(self, now: float) -> list[bytes]: ...

    def wait(self, now: float) -> float: ...


class Progress:
    """`every` seconds, and when the state changes; 0 for the last line alone."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._began = self._told = 0.0
        self._state: enum.Enum | None = None

    def begin(self, now: float) -> None:
        """The clock starts."""
        self._began = self._told = now

    def tell(self, client: Dumping, now: float) -> None:
        """When it is time."""
        if self._every and (now - self._told >= self._every or client.state is not self._state):
            self._told, self._state = now, client.state
            print(f"netdump: {client.state.value}, {_figures(client, now - self._began)}", flush=True)

    def end(self, client: Dumping, now: float) -> None:
        """How it ended."""
        why = f" ({client.why})" if client.why else ""
        counts = {what: count for what, count in client.counts.items() if count}
        print(f"netdump: {client.state.value}{why}, {_figures(client, now - self._began)}, {counts}", flush=True)


def _figures(client: Dumping, seconds: float) -> str:
    done = client.sent / MIB
    of = f" of {client.total / MIB:.1f}" if client.total else ""
    speed, cpu = done / max(seconds, 1e-9), time.process_time()
    return f"{done:.1f} MiB{of} in {seconds:.1f} s ({cpu:.1f} s of CPU), {speed:.2f} MiB/s, {client.resent} resent"
