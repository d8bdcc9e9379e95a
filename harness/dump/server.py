"""A case's handle on the server of its dump.

In: what the plan says of it, a folder. Out: a process that listens when `start` returns, and its words as events. Rule: it dies with the case; killed means
SIGKILL, so that nothing is put in order before it is started anew on the same folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.testbed.errors import TestbedError
from harness.testbed.process import spawn

Tell = Callable[..., None]
END = 10.0  # seconds that it may take to end in order
_ROOT = Path(__file__).resolve().parents[2]
_BOOT = "import sys, json; sys.path.insert(0, {root!r}); from harness.dump.serve import main, told; main(json.loads(sys.argv[1]), told)"


class DumpServer:
    """Made by `start`; ended by `kill` or `end`."""

    def __init__(self, process: subprocess.Popen[bytes], out: int, log: Any, tell: Tell) -> None:
        self._process, self._out, self._log, self._tell = process, out, log, tell
        self._rest = b""
        self._ready = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        os.set_blocking(out, False)
        asyncio.get_running_loop().add_reader(out, self._readable)

    @classmethod
    async def start(cls, given: Mapping[str, Any], folder: Path, tell: Tell) -> DumpServer:
        """It listens when this returns. Raises TestbedError with its last words when it does not."""
        folder.mkdir(exist_ok=True)
        log = tempfile.TemporaryFile(prefix="dump-server-")  # noqa: SIM115  (as long as the process)
        read, write = os.pipe()
        arguments = json.dumps({**given, "folder": str(folder)})
        try:
            process = spawn(
                [sys.executable, "-I", "-S", "-c", _BOOT.format(root=str(_ROOT)), arguments], stdout=write, stderr=log
            )
        finally:
            os.close(write)
        server = cls(process, read, log, tell)
        done, _ = await asyncio.wait({server._ready}, timeout=given["within"])
        if not done or not server._ready.result():
            server.kill()
            raise TestbedError(f"the dump's server did not get ready: {server._said()}", "the text is its own")
        return server

    def _readable(self) -> None:
        try:
            data = os.read(self._out, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._ended()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["what"] == "ready" and not self._ready.done():
                self._ready.set_result(True)
            self._tell(**event)

    def _ended(self) -> None:
        if self._out >= 0:
            asyncio.get_running_loop().remove_reader(self._out)
            os.close(self._out)
            self._out = -1
        if not self._ready.done():
            self._ready.set_result(False)
        self._over.set()

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()[-2000:] or "(it said nothing)"

    def kill(self) -> None:
        """kill -9. What it had said is taken."""
        self._process.kill()
        self._process.wait()
        while self._out >= 0:
            self._readable()

    async def end(self) -> None:
        """SIGTERM, and its last words; a server that does not end is killed. Tells `failed` for one that ended by itself before."""
        if (status := self._process.poll()) is not None:
            self._tell(what="failed", why=f"it ended with {status}: {self._said()}")
        else:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(END):
                    await self._over.wait()
            except TimeoutError:
                self._tell(what="failed", why=f"it did not end within {END:g} s of SIGTERM")
        self.kill()

    @property
    def running(self) -> bool:
        return self._out >= 0
