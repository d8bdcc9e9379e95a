"""How long steps report themselves: what is done, how many bytes of how many, for how long.

In: calls of `Progress.step`. Out: text for a person (or nothing, or whatever the caller's implementation does).
Rule: a step is over when `done_bytes == total_bytes`; until then it may report as often as it likes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

MB = 1e6
LINE_EVERY = 5.0  # seconds between lines of one step where the output is no terminal


class Progress(Protocol):
    """Receives the steps of a build."""

    def step(self, what: str, done_bytes: int | None, total_bytes: int | None, seconds: float) -> None:
        """`what` has run for `seconds`; byte counts are None while unknown; equal counts mean that it is over."""


class Silent:
    """Reports nothing."""

    def step(self, what: str, done_bytes: int | None, total_bytes: int | None, seconds: float) -> None:
        """Ignores the step."""


class PlainText:
    """One line that is rewritten on a terminal; lines, at most one in five seconds and step, anywhere else."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._tty = self._out.isatty()
        self._last: tuple[str, float] = ("", -LINE_EVERY)

    def step(self, what: str, done_bytes: int | None, total_bytes: int | None, seconds: float) -> None:
        """Shows the step; the line of a step that is over stays."""
        over = done_bytes is not None and done_bytes == total_bytes
        line = describe(what, done_bytes, total_bytes, seconds)
        if self._tty:
            self._out.write(f"\r\x1b[K{line}" + ("\n" if over else ""))
        elif over or self._due(what, seconds):
            self._out.write(line + "\n")
        self._out.flush()

    def _due(self, what: str, seconds: float) -> bool:
        """Is it time for another line of an unfinished step? Not before it has run for a while."""
        last_what, last_seconds = self._last
        since = seconds - (last_seconds if last_what == what else 0.0)
        if since < LINE_EVERY:
            return False
        self._last = (what, seconds)
        return True


def describe(what: str, done: int | None, total: int | None, seconds: float) -> str:
    """`fetch qemu: 12.3 of 38.0 MB, 1.2 s`; leaves out what is not known."""
    if done is None:
        amount = ""
    elif total is None or done == total:
        amount = f" {done / MB:.1f} MB," if done else ""
    else:
        amount = f" {done / MB:.1f} of {total / MB:.1f} MB,"
    return f"{what}:{amount} {seconds:.1f} s"


class Stage:
    """One running step; made by `stage`."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._what = what
        self._start = time.monotonic()
        self._done: int | None = None

    def update(self, done: int | None, total: int | None = None) -> None:
        """Reports `done` of `total` bytes; a total that is reached is held back until the stage really ends."""
        self._done = done
        ended = done is not None and done == total
        self._progress.step(self._what, done, None if ended else total, self._seconds())

    def result(self, done: int) -> None:
        """Sets the bytes that the end of the step will report."""
        self._done = done

    def end(self) -> None:
        """Reports the step as over."""
        self._progress.step(self._what, self._done or 0, self._done or 0, self._seconds())

    def _seconds(self) -> float:
        return time.monotonic() - self._start


@contextmanager
def stage(progress: Progress, what: str) -> Iterator[Stage]:
    """Reports `what` as begun, and as over unless the block raises."""
    running = Stage(progress, what)
    running.update(None)
    yield running
    running.end()
