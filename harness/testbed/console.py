"""The serial console: ground truth at a crash. Bytes in, timestamped lines out, to a file and to evidence.

Rule: every byte that QEMU wrote is kept; a line's time is the arrival of its first byte; an unfinished last line counts as a line
once the console is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

LINE_LIMIT = 64 << 10  # a guest that never ends a line gets it cut here

OnLine = Callable[[float, str], None]


class Console:
    """Splits a byte stream into lines. `now` is the case's clock; `on_line` gets (time, text without CR LF)."""

    def __init__(self, path: Path, now: Callable[[], float], on_line: OnLine) -> None:
        self._file = path.open("ab", buffering=0)
        self._now = now
        self._on_line = on_line
        self._partial = bytearray()
        self._began = 0.0
        self._tail: deque[str] = deque(maxlen=40)

    def feed(self, data: bytes) -> None:
        """Take what arrived now."""
        now = self._now()
        if not self._partial:
            self._began = now
        self._partial += data
        *lines, rest = self._partial.split(b"\n")
        for line in lines:
            self._emit(bytes(line))
            self._began = now
        self._partial = bytearray(rest)
        if len(self._partial) > LINE_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Emit the unfinished line, if any."""
        if self._partial:
            self._emit(bytes(self._partial))
            self._partial.clear()

    def _emit(self, line: bytes) -> None:
        text = line.replace(b"\r", b"").decode("utf-8", "backslashreplace")
        self._file.write(f"{self._began:12.6f} {text}\n".encode())
        self._tail.append(text)
        self._on_line(self._began, text)

    def tail(self, lines: int = 15) -> str:
        """The last lines, for messages: what the guest said before it fell silent."""
        return "\n".join(list(self._tail)[-lines:] or ["(the console stayed empty)"])

    def close(self) -> None:
        self.flush()
        self._file.close()
