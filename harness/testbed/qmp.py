"""QMP over a socket pair: qemu.qmp's client, with what a testbed adds to it.

In: commands. Out: their replies, and every event to a callback. Rule: a refusal carries QEMU's own words and the command as it
was sent, so that it can be pasted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError

from harness.testbed.errors import QemuDied, QmpRefused

OnEvent = Callable[[str, Mapping[str, Any]], None]


class Qmp:
    """One open QMP session."""

    def __init__(self, on_event: OnEvent) -> None:
        self._client = QMPClient("netpoll-harness")
        self._on_event = on_event
        self._events: asyncio.Task[None] | None = None

    async def open(self, sock: socket.socket) -> None:
        """Greet and negotiate on a connected socket. Raises QemuDied if the other end is not a living QEMU."""
        self._client.register_listener(listener := EventListener())
        self._events = asyncio.create_task(self._pump(listener))
        try:
            await self._client.connect(sock)
        except QMPError as error:
            raise QemuDied(f"QEMU did not greet on QMP: {error}") from error

    async def _pump(self, listener: EventListener) -> None:
        async for message in listener:
            self._on_event(str(message["event"]), _data(message))

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, fd: int | None = None) -> Any:
        """Run one command; `fd` travels along with it (getfd). Raises QmpRefused or QemuDied."""
        try:
            if fd is not None:
                self._client.send_fd_scm(fd)
            return await self._client.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as error:
            sent = json.dumps({"execute": command, "arguments": arguments or {}})
            raise QmpRefused(f"QEMU refused {sent}: {error}") from error
        except (QMPError, OSError) as error:
            raise QemuDied(f"QEMU went away during {command}: {error}") from error

    async def close(self) -> None:
        if self._events is not None:
            self._events.cancel()
        with contextlib.suppress(QMPError, OSError, EOFError):  # it was going away anyway
            await self._client.disconnect()


def _data(message: Message) -> Mapping[str, Any]:
    data = message.get("data")
    return data if isinstance(data, dict) else {}
