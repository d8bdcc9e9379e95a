"""A descriptor's readiness, which is a kernel interface's way to say that there is room again.

In: a descriptor. Out: whether a write would be taken now. Rule: nothing waits here.
"""

from __future__ import annotations

import select


def writable(fd: int) -> bool:
    """As poll(2) says it; an error alone is no room."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in poller.poll(0))
