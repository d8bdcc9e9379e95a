"""Lines on standard output while a dump is sent, and one when it has ended.

In: a client, the time. Out: lines. The one rule: a line is short, whole and flushed: a console may be all that is left.
"""

from __future__ import annotations

from guest.netpoll.clients.debugnet.client import Client, State

MIB = 1 << 20


class Progress:
    """`every` seconds, 0 for the last line alone."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._began = self._told = 0.0
        self._state: State | None = None

    def begin(self, now: float) -> None:
        """The clock starts."""
        self._began = self._told = now

    def tell(self, client: Client, now: float) -> None:
        """When it is time, or the state has changed."""
        changed = client.state is not self._state and client.state is State.HERALD
        if changed or (self._every and now - self._told >= self._every):
            self._told = now
            print(f"netdump: {client.state.value}, {self._figures(client, now)}", flush=True)
        self._state = client.state

    def end(self, client: Client, now: float) -> None:
        """How it ended."""
        why = f" ({client.why})" if client.why else ""
        print(f"netdump: {client.state.value}{why}, {self._figures(client, now)}, {dict(client.counts)}", flush=True)

    def _figures(self, client: Client, now: float) -> str:
        seconds = max(now - self._began, 1e-9)
        of = f" of {client.source.length / MIB:.1f}" if client.source.repeatable else ""
        resent = client.counts["resent_fast"] + client.counts["resent_late"]
        return f"{client.bytes / MIB:.1f} MiB{of} in {seconds:.1f} s, {client.bytes / MIB / seconds:.2f} MiB/s, {resent} resent"
