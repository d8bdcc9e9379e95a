"""Whether the guest kernel's own TX queues are stopped: looks into its memory from outside, while it lives and while it panics.

In: a way to read guest memory, where the kernel keeps things (BTF and kallsyms), NICs by interface. Out: a `qmp queue` event for each change that a look
finds. Rule: nothing in the guest is asked or changed, so it works where nobody in it can answer; what stops and is woken between two looks is not seen.

netif_tx_stop_queue() and its kin set bits of `struct netdev_queue.state`: the driver's own, and byte queue limits'.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from harness.observe.events import Evidence
from harness.testbed.btf import Layout

PAUSE = 0.02  # seconds between two looks (sampling, not waiting for anything)
STRUCTURES = ("net", "net_device", "netdev_queue")
STATES = {
    0: "driver",
    1: "stack",
    2: "frozen",
}  # enum netdev_queue_state_t: DRV_XOFF, STACK_XOFF (byte queue limits), FROZEN
MOST_DEVICES, MOST_QUEUES = 64, 8
_WORD = re.compile(r"0x([0-9a-f]{16})")

Hmp = Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class Queue:
    """One TX queue: whose it is, and where its state is."""

    nic: str
    number: int
    address: int


async def find(hmp: Hmp, layout: Layout, init_net: int, nics: Mapping[str, str]) -> list[Queue]:
    """The TX queues of these interfaces (name -> NIC): init_net's list of devices, walked once. What cannot be read is left out."""
    at = layout.offsets
    head = init_net + at["net", "dev_base_head"]
    found: list[Queue] = []
    place = await _word(hmp, head)
    for _ in range(MOST_DEVICES):
        if place in (None, 0, head):
            break
        assert place is not None
        device = place - at["net_device", "dev_list"]
        name = await _text(hmp, device + at["net_device", "name"])
        if name in nics:
            found += [queue async for queue in _of_device(hmp, layout, device, nics[name])]
        place = await _word(hmp, place)
    return found


async def _of_device(hmp: Hmp, layout: Layout, device: int, nic: str) -> AsyncIterator[Queue]:
    at = layout.offsets
    queues = await _word(hmp, device + at["net_device", "_tx"])
    count = await _word(hmp, device + at["net_device", "num_tx_queues"])
    for number in range(min((count or 0) & 0xFFFFFFFF, MOST_QUEUES) if queues else 0):
        assert queues is not None
        yield Queue(nic, number, queues + number * layout.sizes["netdev_queue"] + at["netdev_queue", "state"])


async def watch(evidence: Evidence, hmp: Hmp, queues: list[Queue]) -> None:
    """Look until cancelled, and tell what has changed."""
    known = dict.fromkeys(queues, 0)
    before = evidence.clock.now()
    while True:
        for queue in queues:
            state = await _word(hmp, queue.address)
            if state is None:
                continue
            bits = state & ((1 << len(STATES)) - 1)
            if bool(bits) != bool(known[queue]):
                _tell(evidence, queue, bits, before)
            known[queue] = bits
        before = evidence.clock.now()
        await asyncio.sleep(PAUSE)


async def look(evidence: Evidence, hmp: Hmp, queues: list[Queue]) -> None:
    """Look once, and tell which are stopped."""
    for queue in queues:
        bits = (await _word(hmp, queue.address) or 0) & ((1 << len(STATES)) - 1)
        if bits:
            _tell(evidence, queue, bits, 0.0)


def _tell(evidence: Evidence, queue: Queue, bits: int, since: float) -> None:
    state, why = ("stopped" if bits else "woken"), "+".join(_names(bits))
    since = round(since, 6)
    evidence.add("qmp", "queue", nic=queue.nic, state=state, by="kernel", queue=queue.number, why=why, since=since)


def _names(bits: int) -> Iterator[str]:
    return (name for bit, name in STATES.items() if bits >> bit & 1)


async def _word(hmp: Hmp, address: int) -> int | None:
    """Eight bytes; None where the guest has no memory mapped."""
    words = _WORD.findall((await hmp(f"x /1gx {address:#x}")).partition(":")[2])
    return int(words[0], 16) if words else None


async def _text(hmp: Hmp, address: int) -> str:
    """A name of at most 16 bytes (IFNAMSIZ)."""
    words = _WORD.findall(" ".join(line.partition(":")[2] for line in (await hmp(f"x /2gx {address:#x}")).splitlines()))
    return b"".join(int(word, 16).to_bytes(8, "little") for word in words).partition(b"\0")[0].decode(errors="replace")
