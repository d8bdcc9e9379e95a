"""Our agent as a `Channel`: the programs and files of the guest over the port that brings its events.

In: the `Agent` of a machine. Out: the same answers as the other channels'. Rule: opens and closes nothing, since the machine
does.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from harness.testbed.agent import Agent, AgentRefused
from harness.testbed.channels import ChannelName, Ran, bounded, entry, unpacked
from harness.testbed.errors import GuestSilent

OUR = "our agent in the guest"
CHUNK = 256 << 10  # bytes of a file in one request; the agent's and our limit for a line are far above


class AgentChannel:
    """See `harness.testbed.channels.Channel`."""

    name: ChannelName = "agent"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def open(self, within: float = 15) -> None:
        await self._agent.ask("hello", within=within)

    async def run(self, argv: Sequence[str], within: float = 15) -> Ran:
        args = {"argv": list(argv), "within": within, "may_fail": True}
        try:
            done = await self._agent.ask("run", args, within + 5)  # the agent ends it in time by itself
        except AgentRefused as refused:
            if "TimeoutExpired" in refused.what:
                raise GuestSilent(f"{list(argv)} did not end within {within:g} s; it was killed") from None
            raise
        rc, (out, err) = entry(done, "rc", int, OUR), (entry(done, key, str, OUR) for key in ("out", "err"))
        return Ran(tuple(argv), rc, out, err)

    async def put(self, path: str, data: bytes, mode: int | None = None, within: float = 15) -> None:
        for start in range(0, max(len(data), 1), CHUNK):
            packed = base64.b64encode(data[start : start + CHUNK]).decode()
            args = {"path": path, "data": packed, "append": start > 0, "mode": mode}
            await self._agent.ask("file_write", args, within)

    async def get(self, path: str, within: float = 15) -> bytes:
        data = b""
        while True:
            answer = await self._agent.ask("file_read", {"path": path, "offset": len(data), "size": CHUNK}, within)
            if not (part := unpacked(answer, "data", OUR)):
                return data
            data = bounded(data + part, path)

    async def close(self) -> None:
        pass
