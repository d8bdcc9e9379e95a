"""What became of a client's frames, in numbers. Plain data, written by the send, queue and receive paths.

The one rule: sent + dropped = sends, and queued = late + still queued + those of `lost` that were queued.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class NetpollStats:
    """Counters of one client; all start at 0 and only grow."""

    sent: int = 0  # the driver took it, at once or within the retries
    retried: int = 0  # sends that needed more than one attempt
    polled: int = 0  # polls for them
    dropped: int = 0  # given to the drop routine, or freed for want of one
    queued: int = 0  # taken by netpoll_queue()
    late: int = 0  # queued, and taken by the driver afterwards
    lost: int = 0  # freed undelivered: no drop routine, queue full, queued at cleanup
    received: int = 0  # calls of rx_hook
    hook_errors: int = 0  # of these, how many raised
