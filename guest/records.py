"""The records of the guest's kernel log as /dev/kmsg gives them: Documentation/ABI/testing/dev-kmsg.

In: /dev/kmsg. Out: [level, number, text] of each record. Rule: reading takes nothing from the log, and ends where it ends now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

LONGEST = 8192  # bytes of a record: PRINTK_MESSAGE_MAX and more, else read() answers EINVAL


def kernel_records() -> Iterator[list[int | str]]:
    """From the oldest that is still there to the newest."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(fd, LONGEST)
            except BlockingIOError:  # the end
                return
            except BrokenPipeError:  # what was to be read next has been overwritten; the next read goes on behind it
                continue
            head, _, text = record.partition(b";")
            level, number = head.split(b",")[:2]
            yield [int(level), int(number), text.partition(b"\n")[0].decode("latin-1")]
    finally:
        os.close(fd)
