"""The harness's handle on a NIC that a process of its own serves.

In: a tap, a MAC address. Out: `path`, where QEMU finds the device, the process's events as calls of `observe`, and answers to
commands. Rule: the process dies with its parent, and nothing is left on disk: QEMU wants the path of a socket (it passes over
`abstract`), so the socket is bound in a folder that is removed at once, and reached through /proc/PID/fd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from harness.testbed.errors import TestbedError
from harness.testbed.process import spawn

ANSWER = 5.0  # seconds until a command is answered
START = 30.0  # seconds until the process serves; on an idle machine it takes a tenth of one
Observe = Callable[[dict[str, Any]], None]
_ROOT = Path(__file__).resolve().parents[2]


class ServedNic:
    """A device process that runs. Use `start`; `close` ends it."""

    def __init__(
        self, process: subprocess.Popen[bytes], address: int, control: socket.socket, log: IO[bytes], observe: Observe
    ) -> None:
        self._process, self._control, self._log, self._observe = process, control, log, observe
        self._address = address
        self._in = b""
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._next = 0
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control, self._readable)

    @classmethod
    def start(cls, tap: int, mac: str, observe: Observe, seed: int = 0, model: str = "tg3") -> ServedNic:
        """Serve a `model` of harness.nic.models; QEMU can connect to `path` when this returns, but see `ready`."""
        log = tempfile.TemporaryFile(prefix="nic-")  # noqa: SIM115
        ours, theirs = socket.socketpair()
        with socket.socket(socket.AF_UNIX) as listening, theirs:
            address = _bind(listening)
            listening.listen(1)
            fds = {"listen": listening.fileno(), "tap": tap, "control": theirs.fileno()}
            arguments = {**fds, "model": model, "mac": mac, "seed": seed}
            os.set_inheritable(tap, True)
            argv = [sys.executable, "-I", "-S", "-c", _BOOT.format(root=str(_ROOT)), json.dumps(arguments)]
            return cls(spawn(argv, pass_fds=tuple(fds.values()), stderr=log), address, ours, log, observe)

    @property
    def path(self) -> str:
        """What `device_add` needs as socket.path."""
        return f"/proc/{os.getpid()}/fd/{self._address}"

    @property
    def pid(self) -> int:
        """The process that serves it."""
        return self._process.pid

    def _readable(self) -> None:
        try:
            data = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            self._fail()
            return
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        if event["kind"] in ("ok", "refused") and (answer := self._answers.pop(event["id"], None)) is not None:
            if event["kind"] == "ok":
                answer.set_result(None)
            else:
                answer.set_exception(TestbedError(f"the device refused a command: {event['why']}"))
        else:
            self._observe(event)

    def _fail(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._dead())

    def _dead(self) -> TestbedError:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()[-2000:]
        return TestbedError(f"the process that serves the NIC ended: {said or '(it said nothing)'}")

    async def ready(self) -> None:
        """Wait until the process serves: QEMU, once it is told to connect, keeps the whole guest waiting for an answer. Raises as `command`."""
        await self._ask("ready", START, {})

    async def command(self, op: str, **keys: Any) -> None:
        """Have the device do something. Raises TestbedError when it refuses, has ended, or does not answer in 5 s."""
        await self._ask(op, ANSWER, keys)

    async def _ask(self, op: str, within: float, keys: dict[str, Any]) -> None:
        self._next += 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._next] = answer
        try:
            self._control.sendall(json.dumps({"op": op, "id": self._next, **keys}).encode() + b"\n")
            await asyncio.wait_for(answer, within)
        except OSError as error:
            raise self._dead() from error
        except TimeoutError as error:
            raise TestbedError(f"the process that serves the NIC did not answer {op!r} within {within:g} s") from error

    def drain(self) -> None:
        """Take what the device has told so far."""
        with contextlib.suppress(OSError):
            self._readable()

    def close(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        os.close(self._address)
        self._process.kill()
        self._process.wait()
        self._log.close()


def _bind(sock: socket.socket) -> int:
    """Bind to a path that is gone when this returns; the descriptor (O_PATH) still leads to it."""
    with tempfile.TemporaryDirectory(prefix="nic-") as folder:
        path = f"{folder}/s"
        sock.bind(path)
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


# Without `site` and with the package's place given, a server is up in a third of the time.
_BOOT = (
    "import sys, json; sys.path.insert(0, {root!r}); from harness.nic.serve import main; main(json.loads(sys.argv[1]))"
)
