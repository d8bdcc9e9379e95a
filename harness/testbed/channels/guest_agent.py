"""qemu-guest-agent as a `Channel`: QMP's protocol, spoken by a program inside the guest (QEMU's docs/interop/qemu-ga.rst).

In: the socket of the port `org.qemu.guest_agent.0`. Out: `Channel`, and `execute` for every other command of the agent.
Rule: nothing is believed before `guest-sync-delimited` came back with our own number: what stands in the port from an
earlier life of either end is thrown away.

The agent sends no greeting, negotiates nothing and tells no events. So the end of a program has to be asked for again and
again (`guest-exec-status`); every other wait is for an answer.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from harness.testbed.channels import ChannelName, Ran, bounded, entry, unpacked
from harness.testbed.errors import GuestRefused, GuestSilent

ITS = "qemu-guest-agent"
DELIMITER = b"\xff"  # never part of valid JSON; flushes the parsers of both ends
CHUNK = 256 << 10  # bytes of a file in one request
ASK_AGAIN = (0.005, 0.1)  # seconds between two questions whether a program has ended: at first, at most
OUTPUT_LIMIT = 64 << 10  # bytes kept of a program's output, as our own agent does


class GuestAgent:
    """See `harness.testbed.channels.Channel`."""

    name: ChannelName = "qemu-guest-agent"

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._client = QMPClient("qemu-guest-agent")
        self._client.await_greeting = False
        self._client.negotiate = False

    async def open(self, within: float = 15) -> None:
        try:
            async with asyncio.timeout(within):
                await synchronise(self._sock)
                await self._client.connect(self._sock)
        except TimeoutError:
            raise GuestSilent(
                f"qemu-guest-agent did not synchronise within {within:g} s", "is qemu-ga running in the guest?"
            ) from None
        except (QMPError, OSError, EOFError) as error:
            raise GuestSilent(f"no connection to qemu-guest-agent: {error}") from error
        await self.execute("guest-ping", within=within)

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, within: float = 15) -> Any:
        """One command of the agent, e.g. `guest-info`. Raises GuestRefused with the agent's words, and GuestSilent."""
        try:
            async with asyncio.timeout(within):
                return await self._client.execute(command, dict(arguments) if arguments else None)
        except TimeoutError:
            raise GuestSilent(f"qemu-guest-agent did not answer `{command}` within {within:g} s") from None
        except ExecuteError as error:
            sent = json.dumps({"execute": command, "arguments": _short(arguments or {})})
            raise GuestRefused(f"qemu-guest-agent refused {sent}: {error}") from error
        except (QMPError, OSError) as error:
            raise GuestSilent(f"qemu-guest-agent went away during `{command}`: {error}") from error

    async def run(self, argv: Sequence[str], within: float = 15) -> Ran:
        program, *arguments = argv
        request = {"path": program, "arg": arguments, "capture-output": True}
        pid = entry(await self.execute("guest-exec", request, within), "pid", int, ITS)
        try:
            async with asyncio.timeout(within):
                status = await self._ended(pid)
        except TimeoutError:
            await self.execute("guest-exec", {"path": "kill", "arg": ["-KILL", str(pid)]})
            raise GuestSilent(f"{list(argv)} did not end within {within:g} s; it was killed") from None
        rc = -entry(status, "signal", int, ITS) if "signal" in status else entry(status, "exitcode", int, ITS)
        return Ran(tuple(argv), rc, _text(status, "out-data"), _text(status, "err-data"))

    async def _ended(self, pid: int) -> Mapping[str, Any]:
        pause, longest = ASK_AGAIN
        while True:
            status: Mapping[str, Any] = await self.execute("guest-exec-status", {"pid": pid})
            if entry(status, "exited", bool, ITS):
                return status
            await asyncio.sleep(pause)  # the protocol has no event for it
            pause = min(pause * 2, longest)

    async def put(self, path: str, data: bytes, mode: int | None = None, within: float = 15) -> None:
        async with _opened(self, path, "w", within) as handle:
            for start in range(0, max(len(data), 1), CHUNK):
                part = data[start : start + CHUNK]
                arguments = {"handle": handle, "buf-b64": base64.b64encode(part).decode()}
                answer = await self.execute("guest-file-write", arguments, within)
                if (count := entry(answer, "count", int, ITS)) != len(part):
                    raise GuestRefused(f"qemu-guest-agent wrote {count} of {len(part)} bytes to {path}")
            # The agent's file is buffered: what a file of /sys thinks of the data is heard only here.
            await self.execute("guest-file-flush", {"handle": handle}, within)
        if mode is not None:
            (await self.run(["chmod", f"{mode:o}", path], within)).checked()

    async def get(self, path: str, within: float = 15) -> bytes:
        data = b""
        async with _opened(self, path, "r", within) as handle:
            while True:
                part = await self.execute("guest-file-read", {"handle": handle, "count": CHUNK}, within)
                data = bounded(data + unpacked(part, "buf-b64", ITS), path)
                if entry(part, "eof", bool, ITS) or not entry(part, "count", int, ITS):
                    return data

    async def close(self) -> None:
        with contextlib.suppress(QMPError, OSError, EOFError):  # it was going away anyway
            await self._client.disconnect()


@contextlib.asynccontextmanager
async def _opened(agent: GuestAgent, path: str, mode: str, within: float) -> Any:
    handle = await agent.execute("guest-file-open", {"path": path, "mode": mode}, within)
    try:
        yield handle
    finally:
        with contextlib.suppress(GuestRefused):  # it repeats what a failed flush has said
            await agent.execute("guest-file-close", {"handle": handle}, within)


async def synchronise(sock: socket.socket) -> None:
    """Exchange `guest-sync-delimited` on a fresh socket and leave it empty. Never ends if the guest never answers.

    The agent answers our 0xff with a complaint, or with nothing, then sends 0xff of its own and the reply; an answer
    with another number is an earlier client's (QEMU's qga/qapi-schema.json).
    """
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    number = int.from_bytes(os.urandom(4), "big")
    request = json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": number}}).encode()
    await loop.sock_sendall(sock, DELIMITER + request + b"\n")
    said = b""
    while True:
        data = await loop.sock_recv(sock, 1 << 16)
        if not data:
            raise EOFError("the port was closed")
        said += data
        *_, last = said.split(DELIMITER)
        if DELIMITER in said and last.endswith(b"\n") and _is_reply(last, number):
            return


def _is_reply(line: bytes, number: int) -> bool:
    try:
        return bool(json.loads(line)["return"] == number)
    except (ValueError, KeyError, TypeError):
        return False


def _text(status: Mapping[str, Any], key: str) -> str:
    """A program without output has none in its status."""
    return unpacked(status, key, ITS)[:OUTPUT_LIMIT].decode(errors="replace") if key in status else ""


def _short(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a message: a file's content would fill the screen."""
    return {key: value if len(str(value)) < 200 else "..." for key, value in arguments.items()}
