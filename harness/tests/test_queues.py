"""Where a kernel keeps its TX queues, and looks at them: on the type information of real kernels, and in a made-up memory."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

import images
from harness.observe import queues
from harness.observe.events import Clock, Evidence
from harness.testbed import symbols
from harness.testbed.btf import BtfError, Layout, layout

INIT_NET, DEVICE, TX, SIZE = 0x1000, 0x2000, 0x3000, 320
LAYOUT = Layout(
    {
        ("net", "dev_base_head"): 0x90,
        ("net_device", "dev_list"): 0x40,
        ("net_device", "name"): 0,
        ("net_device", "_tx"): 0x3C0,
        ("net_device", "num_tx_queues"): 0x3C8,
        ("netdev_queue", "state"): 0x90,
    },
    {"netdev_queue": SIZE},
)


class Memory:
    """Words by address, as the human monitor shows them."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        head = INIT_NET + 0x90
        for number, name in enumerate(("lo", "eth0", "eth1")):
            device = DEVICE + number * 0x1000
            after = DEVICE + (number + 1) * 0x1000 + 0x40 if number < 2 else head
            self.words[head if number == 0 else device - 0x1000 + 0x40] = device + 0x40
            self.words[device + 0x40] = after
            low, high = struct.unpack("<QQ", name.encode().ljust(16, b"\0"))
            self.words |= {device: low, device + 8: high, device + 0x3C0: TX + number * 0x1000}
            self.words[device + 0x3C8] = 2 | 7 << 32  # num_tx_queues, and the field behind it
            for queue in range(2):
                self.words[TX + number * 0x1000 + queue * SIZE + 0x90] = 0

    async def hmp(self, command: str) -> str:
        _, form, place = command.split()
        address, count = int(place, 16), int(form[1])
        words = [self.words.get(address + 8 * number) for number in range(count)]
        if None in words:
            return f"Cannot access memory at address {place}\r\n"
        return f"{address:016x}: " + " ".join(f"0x{word:016x}" for word in words) + "\r\n"


def test_each_queue_of_the_named_interfaces_is_found() -> None:
    found = asyncio.run(queues.find(Memory().hmp, LAYOUT, INIT_NET, {"eth1": "n0"}))
    assert found == [queues.Queue("n0", number, TX + 0x2000 + number * SIZE + 0x90) for number in range(2)]


def test_memory_that_is_not_there_has_no_queues() -> None:
    assert asyncio.run(queues.find(Memory().hmp, LAYOUT, 0x9999000, {"eth0": "n0"})) == []


def test_a_ring_of_devices_without_end_is_left() -> None:
    memory = Memory()
    memory.words[DEVICE + 0x2000 + 0x40] = DEVICE + 0x40  # never back to the head
    assert len(asyncio.run(queues.find(memory.hmp, LAYOUT, INIT_NET, {"eth0": "n0"}))) >= 2


def test_changes_are_told_with_what_stopped_it(tmp_path: Path) -> None:
    memory, evidence = Memory(), Evidence(tmp_path / "evidence.jsonl", Clock.start())
    place = TX + 0x1000 + 0x90

    async def look() -> None:
        watching = asyncio.ensure_future(queues.watch(evidence, memory.hmp, [queues.Queue("n0", 0, place)]))
        for bits in (0, 1, 3, 0, 2):
            memory.words[place] = bits
            await asyncio.sleep(3 * queues.PAUSE)
        del memory.words[place]
        await asyncio.sleep(2 * queues.PAUSE)
        watching.cancel()

    asyncio.run(look())
    evidence.close()
    assert [(event["state"], event["why"]) for event in evidence.events] == [
        ("stopped", "driver"), ("woken", ""), ("stopped", "stack"),
    ]  # fmt: skip
    assert all(
        event["nic"] == "n0" and event["by"] == "kernel" and event["since"] <= event["t"] for event in evidence.events
    )


def test_one_look_tells_which_are_stopped(tmp_path: Path) -> None:
    memory, evidence = Memory(), Evidence(tmp_path / "evidence.jsonl", Clock.start())
    found = asyncio.run(queues.find(memory.hmp, LAYOUT, INIT_NET, {"eth0": "n0", "eth1": "n1"}))
    memory.words |= {found[0].address: 0, found[1].address: 2, found[2].address: 1}
    del memory.words[found[3].address]
    asyncio.run(queues.look(evidence, memory.hmp, found))
    evidence.close()
    told = [(event["nic"], event["queue"], event["state"], event["why"]) for event in evidence.events]
    assert told == [("n0", 1, "stopped", "stack"), ("n1", 0, "stopped", "driver")]


@pytest.mark.guest
@pytest.mark.parametrize("name", sorted(images.kernel_names()))
def test_every_kernel_says_where_it_keeps_its_queues(name: str) -> None:
    builder = images.Builder(store=images.Store(images.cache_root()), progress=images.PlainText())
    made = layout(images.ensure_kernel(name, builder).vmlinux, queues.STRUCTURES)
    assert LAYOUT.offsets.keys() <= made.offsets.keys()
    assert made.sizes["netdev_queue"] >= made.offsets["netdev_queue", "state"] + 8


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF\x01" + bytes(64), b"no ELF at all" * 9], ids=["empty", "32 bits", "text"]
)
def test_what_is_no_kernel_says_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "vmlinux").write_bytes(data)
    with pytest.raises(BtfError):
        layout(tmp_path / "vmlinux", ("net",))


def test_the_address_of_a_symbol_that_is_no_function(tmp_path: Path) -> None:
    table = tmp_path / "kallsyms"
    table.write_text("ffffffff81000000 T _stext\nffffffff82a00000 B init_net\nffffffffc0000000 t x\t[mod]\n")
    assert symbols.address_of(table, "init_net") == 0xFFFFFFFF82A00000
    assert symbols.address_of(table, "init") is None
    assert symbols.address_of(tmp_path / "none", "init_net") is None
    assert symbols.load(table).resolve(0xFFFFFFFF82A00000) is None, "data is no place where a CPU could be"
