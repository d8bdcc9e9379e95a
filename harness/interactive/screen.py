"""One terminal for two: what the guest's shell prints, and lines of ours in between.

In: bytes from the guest, lines from us. Out: bytes for the terminal. Rule: a line of ours never breaks the line that is being typed:
it is printed above, and the unfinished line is painted again below it.

While a program in the guest has the whole screen (the alternate one of xterm's control sequences, mode 1049 and its elders), our
lines wait until it gives it back. Too many lines at once are counted instead of shown.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

UNFINISHED = 4096  # bytes of a line that are painted again
WAITING = 200  # lines kept for the end of a full-screen program
BURST, PAUSE = 120, 0.25  # lines shown at once (a whole panic on console and wire), seconds until as many more are
ALTERNATE = re.compile(rb"\x1b\[\?(?:1049|1047|47)([hl])")
CLEAR_LINE = b"\r\x1b[K"


class Screen:
    """`write` puts bytes on the terminal; `now` is a monotonic clock in seconds; `width` tells its columns, now; `dim` makes our
    lines paler."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        now: Callable[[], float],
        width: Callable[[], int] = lambda: 80,
        dim: bool = True,
    ) -> None:
        self._write = write
        self._now = now
        self._width = width
        self._dim = dim
        self._line = b""  # the unfinished one
        self.full = False  # a program has the whole screen
        self._waiting: deque[str] = deque(maxlen=WAITING)
        self._shown, self._since, self._hidden = 0, float("-inf"), 0

    def guest(self, data: bytes) -> None:
        """Output of the guest's shell, or the echo of a command: as it is."""
        self._write(data)
        line = self._line + data
        for switch in ALTERNATE.finditer(line):  # in the whole line: it may have come in two pieces
            self.full = switch[1] == b"h"
        line = ALTERNATE.split(line)[-1]  # painting it again must not switch again
        self._line = line.rpartition(b"\n")[2][-UNFINISHED:]
        if not self.full:
            while self._waiting:
                self._show(self._waiting.popleft())

    def live(self, line: str) -> None:
        """Something seen just now; one of many, so it is cut to the terminal's width, and left out when there are too many."""
        now = self._now()
        if now - self._since >= PAUSE:
            self.catch_up()
            self._since, self._shown = now, 0
        self._shown += 1
        if self._shown > BURST:
            self._hidden += 1
        else:
            self.say(self._cut(line))

    def catch_up(self) -> None:
        """Tell how many lines were left out. To be called now and then, or the last ones would never be told."""
        if self._hidden and self._now() - self._since >= PAUSE:
            hidden, self._hidden = self._hidden, 0
            self.say(f"... and {hidden} lines more; all of them are in evidence.jsonl")

    def say(self, line: str) -> None:
        """A line that is never left out."""
        if self.full:
            self._waiting.append(line)
        else:
            self._show(line)

    def _cut(self, line: str) -> str:
        width = self._width()
        return "\n".join(part if len(part) < width else part[: width - 2] + "…" for part in line.split("\n"))

    def _show(self, line: str) -> None:
        text = line.encode(errors="replace").replace(b"\n", b"\r\n")
        if self._dim:
            text = b"\x1b[2m" + text + b"\x1b[0m"
        self._write(CLEAR_LINE + text + b"\r\n" + self._line)


class PlainScreen(Screen):
    """For what is no terminal: lines, whole, and nothing else."""

    def _cut(self, line: str) -> str:
        return line

    def _show(self, line: str) -> None:
        self._write(line.encode(errors="replace") + b"\n")
