"""A QMP monitor of its own for commands that cannot wait: written to QEMU in the call that decides on them.

In: commands. Out: a future for each answer. Rule: `send` hands the bytes to the kernel before it returns; the other monitor's client is
thorough, but a command passes through tasks and queues there, between which a panic prints ten lines.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Mapping
from typing import Any

from harness.testbed.errors import QemuDied, QmpRefused


class FastLane:
    """One open monitor. Made with a connected socket, whose owner closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._rest = b""

    async def open(self) -> None:
        """Read the greeting, leave negotiation mode. Raises QemuDied."""
        self._socket.setblocking(False)
        greeting = asyncio.get_running_loop().create_future()
        self._pending[0] = ("the greeting", greeting)
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        await greeting
        await self.send("qmp_capabilities")

    def send(self, command: str, arguments: Mapping[str, Any] | None = None) -> asyncio.Future[Any]:
        """The answer is to be awaited: it raises QmpRefused, or QemuDied."""
        number = next(self._numbers)
        sent = {"execute": command, "id": number, **({"arguments": dict(arguments)} if arguments else {})}
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = (json.dumps(sent), answer)
        try:
            self._socket.sendall(json.dumps(sent).encode() + b"\n")
        except OSError as error:
            answer.set_exception(QemuDied(f"QEMU went away during {command}: {error}"))
        return answer

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: Mapping[str, Any]) -> None:
        """An answer, or the greeting; events are told on the other monitor."""
        number = 0 if "QMP" in message else message.get("id")
        if number is None or "event" in message:
            return
        sent, answer = self._pending.pop(int(number), ("", None))
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(QmpRefused(f"QEMU refused {sent}: {message['error'].get('desc')}"))
        else:
            answer.set_result(message.get("return"))

    def close(self) -> None:
        """Whoever still waits is told. A second call does nothing."""
        asyncio.get_running_loop().remove_reader(self._socket)
        for sent, answer in self._pending.values():
            if not answer.done():
                answer.set_exception(QemuDied(f"QEMU went away during {sent}"))
                answer.exception()  # seen, if nobody waits for it any more
        self._pending.clear()
