"""The host's end of the control channel: requests to the guest's agent, and the events it sends, as JSON lines.

In: bytes from a virtio-serial port, from an untrusted guest. Out: replies, and events translated to the case's clock.
Rule: whatever a guest sends, the worst it can do is fail its own case: lines are bounded, kinds are known, clocks are clamped.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from harness.testbed.errors import GuestRefused, GuestSilent

LINE_LIMIT = 4 << 20  # bytes; a batch of events of a long send is some 100 KiB
KINDS = frozenset(
    [
        "carrier",
        "nic",
        "bond",
        "queue",
        "run",
        "kmsg",
        "sent",
        "dropped",
        "queue",
        "queued",
        "late",
        "rx",
        "sending",
        "done",
        "counters",
        "interrupts",
        "passed",
        "echo",
        "key",
        "arp",
        "records",
        "ifstats",
    ]
)  # harness.observe.events
OnEvent = Callable[[str, float, Mapping[str, Any]], None]  # kind, guest's CLOCK_MONOTONIC, further keys


class AgentRefused(GuestRefused):
    """The agent answered that it could not: the guest's own words are in the message."""


class Agent:
    """One open control channel. `offset` added to the guest's CLOCK_MONOTONIC gives the host's, to about `round_trip`/2."""

    def __init__(self, on_event: OnEvent, on_garbage: Callable[[str], None]) -> None:
        self._on_event = on_event
        self._on_garbage = on_garbage
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.offset = 0.0
        self.round_trip = 0.0

    async def open(self, sock: socket.socket) -> None:
        """Start to read and write on a connected socket. Nothing is asked yet."""
        stream, self._writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_LIMIT)
        self._reader = asyncio.create_task(self._read(stream))

    async def ask(self, op: str, args: Mapping[str, Any] | None = None, within: float = 15) -> Any:
        """One request. Raises GuestSilent after `within` seconds and AgentRefused when the guest could not."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        self.tell(op, args, number)
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise GuestSilent(f"the guest's agent did not answer `{op}` within {within:g} s") from None
        finally:
            self._pending.pop(number, None)

    def tell(self, op: str, args: Mapping[str, Any] | None = None, number: int = 0) -> None:
        """Send a request and wait for nothing (a crash has no answer)."""
        line = json.dumps({"id": number, "op": op, "args": args or {}}, separators=(",", ":"))
        self._writer.write(line.encode() + b"\n")

    async def synchronise(self, now: Callable[[], float], within: float = 15, rounds: int = 4) -> None:
        """Measure the offset between the clocks: of several round trips the shortest is the most exact. Raises GuestSilent when
        an answer, such as the first of a guest that boots, takes longer than `within` seconds."""
        best = float("inf")
        for _ in range(rounds):
            before = now()
            guest = float((await self.ask("clock", within=within))["monotonic"])
            after = now()
            if after - before < best:
                best = after - before
                self.offset, self.round_trip = (before + after) / 2 - guest, best

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except (ValueError, OSError) as error:  # ValueError: longer than LINE_LIMIT; the stream goes on behind it
                self._on_garbage(f"unreadable: {error}")
                if isinstance(error, OSError):
                    return
                continue
            if not line:
                return
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            if "events" in message:
                for kind, stamp, keys in message["events"]:
                    self._event(kind, stamp, keys)
            else:
                self._answer(message)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            self._on_garbage(f"{type(error).__name__}: {line[:200]!r}")

    def _event(self, kind: object, stamp: object, keys: object) -> None:
        if kind not in KINDS or not isinstance(stamp, int | float) or not isinstance(keys, dict) or not isfinite(stamp):
            raise ValueError("not an event")
        keys = {str(key): value for key, value in keys.items() if key not in ("t", "src", "kind", "guest_t")}
        self._on_event(str(kind), float(stamp), keys)

    def _answer(self, message: Mapping[str, Any]) -> None:
        future = self._pending.get(int(message["id"]))
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(AgentRefused(f"the guest refused: {str(message['error'])[:2000]}"))
        else:
            future.set_result(message.get("result"))

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._writer.close()
