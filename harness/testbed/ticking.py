"""A line for what takes a while: rewritten on a terminal until it is over, nothing anywhere else.

In: a function that says how far it is. Out: characters on standard error. Rule: the line is gone when the block ends, so what stays on the
screen is what somebody said on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import TextIO

EVERY = 0.25  # seconds
GONE = "\r\x1b[K"


@contextlib.asynccontextmanager
async def ticking(word: Callable[[], str], out: TextIO | None = None) -> AsyncIterator[None]:
    """`word` is asked again and again while the block runs; control characters have no place in it."""
    out = out or sys.stderr
    if not out.isatty():
        yield
        return
    task = asyncio.create_task(_tick(word, out))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        out.write(GONE)
        out.flush()


async def _tick(word: Callable[[], str], out: TextIO) -> None:
    began = time.monotonic()
    while True:
        room = shutil.get_terminal_size().columns - 1
        out.write(f"{GONE}{f'  {time.monotonic() - began:4.1f} s  {word()}'[:room]}")
        out.flush()
        await asyncio.sleep(EVERY)
