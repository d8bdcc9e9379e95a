"""A guest's serial console as a shell: QEMU's standard input and output.

In: a QEMU process with `-serial stdio`. Out: what the guest says, waited for by its words. The rule it keeps: every wait has
a deadline, and says what was awaited.
"""

from __future__ import annotations

import os
import select
import subprocess
import time


class Console:
    """The guest's serial console: what it said so far, and a shell to type into."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._out, self._in = process, process.stdout.fileno(), process.stdin
        self.text = ""
        self.seen = ""

    def type(self, lines: str) -> None:
        for line in lines.strip().splitlines():
            self._in.write(line.encode() + b"\n")
            self._in.flush()

    def wait_for(self, what: str, seconds: float = 90) -> str:
        """Everything up to and including `what`, which is then behind us."""
        deadline = time.monotonic() + seconds
        while what not in self.text:
            ready, _, _ = select.select([self._out], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._out, 65536) if ready else b""
            assert data, f"{what!r} awaited on the console, which ends with: {self.text[-1500:]}"
            self.text += data.decode("utf-8", "replace")
            self.seen += data.decode("utf-8", "replace")
        before, self.text = self.text.split(what, 1)
        return before + what
