"""What joins guest and host on this machine: taps, or datagram sockets where no tap can be had.

In: nothing but the machine. Out: `Choice`, with the reason why it is no tap. Rule: taps where they can be had, since there the kernel
captures; what is tried here is tried once in a process.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from dataclasses import dataclass
from functools import cache

from harness.plan.model import Wires
from harness.testbed.host import try_network
from harness.testbed.process import CLONE_NEWNET, unshare

TUN = "/dev/net/tun"
TUNGETFEATURES = 0x800454CF  # linux/if_tun.h


@dataclass(frozen=True)
class Choice:
    """`why`: what is missing, or that it was asked for."""

    wires: Wires
    why: str


@cache
def available() -> Choice:
    """Tries what is cheap to try; asks a process of its own only where that did not do, for its words or for a user namespace."""
    if (refused_by_device := _look_at_tun()) is not None:
        return Choice("dgram", refused_by_device)
    if os.geteuid() == 0 and _namespace_granted():
        return Choice("tap", "")
    tried = try_network()
    refused = next((each for each in (tried.namespace, tried.tap, tried.capture) if each is not None), None)
    return Choice("tap", "") if refused is None else Choice("dgram", refused.what)


def _look_at_tun() -> str | None:
    """Words for a device that is not there, not ours to open, or no tun at all."""
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{TUN} cannot be opened: {error.strerror}"
    try:
        fcntl.ioctl(fd, TUNGETFEATURES, bytes(4))
    except OSError as error:
        return f"{TUN} makes no tap: {error.strerror}"
    finally:
        os.close(fd)
    return None


def _namespace_granted() -> bool:
    """As root a case needs no user namespace; whether the other one is granted, a child finds out."""
    try:
        return subprocess.run(["/bin/true"], preexec_fn=lambda: unshare(CLONE_NEWNET), check=False).returncode == 0
    except subprocess.SubprocessError:
        return False
