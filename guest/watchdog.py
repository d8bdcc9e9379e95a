"""A hardware watchdog that is fed, until it is not.

In: how many seconds it is to wait. Out: /dev/watchdog0 armed, fed from a thread several times as often. Rule: once started it is never
stopped; whoever starves it leaves the file open, as a program that hangs does, so that its time runs out.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import threading
import time
from pathlib import Path

DEVICE = Path("/dev/watchdog0")
WDIOC_SETTIMEOUT = 0xC0045706  # include/uapi/linux/watchdog.h
FEEDS = 6  # a time-out
APPEARS = 10.0  # seconds until the driver has found the device

_starved = threading.Event()


def start(driver: str, timeout: int) -> dict[str, int]:
    """Load the driver, arm the watchdog, feed it. Returns the time-out that it took; raises RuntimeError, OSError."""
    done = subprocess.run(
        ["modprobe", driver], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=APPEARS
    )
    if done.returncode:
        raise RuntimeError(f"no driver {driver}: {done.stderr.strip()}")
    deadline = time.monotonic() + APPEARS
    while not DEVICE.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{driver} found no watchdog within {APPEARS:g} s")
        time.sleep(0.02)
    fd = os.open(DEVICE, os.O_WRONLY | os.O_CLOEXEC)
    (taken,) = struct.unpack("i", fcntl.ioctl(fd, WDIOC_SETTIMEOUT, struct.pack("i", timeout)))
    threading.Thread(target=_feed, args=(fd, taken / FEEDS), name="watchdog", daemon=True).start()
    return {"timeout": taken}


def _feed(fd: int, interval: float) -> None:
    while not _starved.wait(interval):
        os.write(fd, b"\0")


def starve() -> None:
    """Feed it no more."""
    _starved.set()
