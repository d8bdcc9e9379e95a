"""A long time on a tg3: flaps, resets and reloads in a row, TCP byte-exact after each, while its server must not grow.

    python -m harness.tests.tg3_soak [SECONDS [SEED]]          (`tox -e soak`; an hour unless told)

In: how long. Out: figures as lines, and exit status 1 when a stream was not byte-exact, the link or the interrupt was not what it should be, the
server's memory or descriptors grew, or it had a defect. Rule: nothing here waits for time to pass, only for the next event of the guest.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.testbed import namespace
from harness.tests.served_guest import GUEST, HOST, PORT, Guest, complaints, main, stream

WARM = 6  # rounds until the server's buffers and caches are what they will be
GROWTH = 512  # KiB of anonymous memory that the server may have more at the end than then
CARRIER = "cat /sys/class/net/eth0/carrier"


async def flap(guest: Guest) -> None:
    """The cable, out and in."""
    await guest.nic.command("link", up=False)
    await guest.until(CARRIER, "0", 30)
    await guest.nic.command("link", up=True)


async def renegotiate(guest: Guest) -> None:
    await guest.run("ethtool -r eth0")


async def down_up(guest: Guest) -> None:
    await guest.run("ip link set eth0 down; ip link set eth0 up")


async def reload(guest: Guest, msi: bool) -> None:
    """The driver anew, with MSI or with INTx (msi_bus, Documentation/PCI/msi-howto.rst)."""
    device = "d=$(readlink -f /sys/class/net/eth0/device)"
    await guest.run(f"{device}; rmmod tg3; echo {int(msi)} > $d/msi_bus; modprobe tg3; ip link set eth0 up", 60)
    said = await guest.run("grep eth0 /proc/interrupts")
    assert ("MSI" in said) == msi, f"MSI {msi}: {said!r}"


EVENTS: dict[str, Callable[[Guest], Awaitable[None]]] = {
    "flap": flap,
    "ethtool -r": renegotiate,
    "down, up": down_up,
    "reload with MSI": partial(reload, msi=True),
    "reload with INTx": partial(reload, msi=False),
}


def burden(pid: int) -> tuple[int, int]:
    """KiB of anonymous memory, and open descriptors, of the server."""
    status = Path(f"/proc/{pid}/status").read_text()
    (anonymous,) = (line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
    return int(anonymous), len(os.listdir(f"/proc/{pid}/fd"))


async def a_round(guest: Guest, event: str, listening: socket.socket) -> None:
    await EVENTS[event](guest)
    await guest.until(CARRIER, "1", 60)
    await guest.run(f"ip addr replace {GUEST}/24 dev eth0")
    came = await stream(guest, listening)
    assert all(came.values()), f"after {event}: byte-exact {came}"


async def soak(guest: Guest, seconds: float, seed: int) -> dict[str, Any]:
    """Rounds until the time is over; each event comes once before any comes again."""
    rng, until, done = random.Random(seed), time.monotonic() + seconds, Counter[str]()
    burdens: list[tuple[int, int]] = []
    with socket.create_server((HOST, PORT)) as listening:
        listening.settimeout(60)
        while time.monotonic() < until or len(burdens) <= WARM:
            for event in rng.sample(list(EVENTS), len(EVENTS)):
                await a_round(guest, event, listening)
                done[event] += 1
                burdens.append(burden(guest.nic.pid))
                print(f"{event:18} {burdens[-1][0]} KiB, {burdens[-1][1]} descriptors", file=sys.stderr, flush=True)
    return {"events": dict(done), "burdens": burdens, "dmesg": await complaints(guest)}


def wrong(found: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    burdens = found["burdens"]
    warm, last = burdens[WARM], burdens[-1]
    reasons = [f"the kernel complains: {found['dmesg']}"] if found["dmesg"] else []
    reasons += [remark for remark in found["remarks"] if "defect" in remark or "violation" in remark]
    if last[0] > warm[0] + GROWTH:
        reasons.append(f"the server has grown from {warm[0]} to {last[0]} KiB")
    if last[1] > warm[1]:
        reasons.append(f"the server had {warm[1]} descriptors and has {last[1]}")
    return reasons


if __name__ == "__main__":
    namespace.enter()
    seconds, seed = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0, int(sys.argv[2]) if len(sys.argv) > 2 else 1
    result = asyncio.run(main("debian-6.1", partial(soak, seconds=seconds, seed=seed)))
    memory, descriptors = zip(*result["burdens"], strict=True)
    print(json.dumps(result["events"]))
    print(f"server: memory {memory[WARM]} -> {memory[-1]} KiB (most {max(memory)}), descriptors {set(descriptors)}")
    print("\n".join(wrong(result)) or "as it should be")
    sys.exit(bool(wrong(result)))
