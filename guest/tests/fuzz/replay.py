"""One input through a target, without a fuzzer: what pytest does with every seed.

In: a target, octets. Out: nothing, or the exception. The one rule: it comes back; an input that takes longer than
LIMIT raises TookTooLong.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from guest.tests.fuzz.table import Target

LIMIT = 10.0  # seconds; inputs take milliseconds


class TookTooLong(AssertionError):
    """The stack did not come back from this input."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the body, wherever it is, after `seconds`. Main thread only."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def replay(target: Target, data: bytes, limit: float = LIMIT) -> None:
    """Run `data`; raises what the target raises, and TookTooLong."""
    with time_limit(limit):
        target.run(data)
