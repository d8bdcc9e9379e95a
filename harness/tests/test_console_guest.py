"""The serial console is the truth even when its reader is late: nothing that the guest printed is lost, nothing is damaged."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from harness.observe.events import Clock
from harness.run import Bench, load
from harness.testbed import template
from harness.testbed.ends import CONSOLE
from harness.testbed.machine import Machine, Observers
from harness.testbed.template import Ingredients, clone_argv, clone_memory, restore

pytestmark = pytest.mark.guest
LINES, WIDTH = 300, 100
TALK = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); printf '<6>late %d %0{WIDTH}d\\n' $i 0 > /dev/kmsg; done"


async def listen(ingredients: Ingredients, made: template.Template, folder: Path, deaf: float) -> list[str]:
    """What a guest prints while its reader hears nothing for `deaf` seconds."""
    lines: list[str] = []
    last = asyncio.Event()

    def line(_t: float, text: str) -> None:
        lines.append(text)
        if f"late {LINES} " in text:
            last.set()

    observers = Observers(lambda *_: None, line, lambda *_: None)
    with clone_memory(made, False) as (memory, inherit):
        started = Machine.start(
            lambda channels: clone_argv(ingredients, memory, channels),
            observers,
            Clock.start(),
            folder / "console",
            inherit,
        )
        async with started as guest:
            await restore(guest, made)
            await guest.alive(
                guest.agent.ask("run", {"argv": ["sh", "-c", f"({TALK}) > /dev/null 2>&1 &"]}), 30, "the answer to run"
            )
            time.sleep(deaf)  # the whole harness is kept from running, as a busy host may do
            await guest.alive(last.wait(), 60, "the guest's last line")
    return [text.split("] ", 1)[1] for text in lines if "] late " in text]


def test_a_late_reader_loses_nothing(bench: Bench, testcases: Path, tmp_path: Path) -> None:
    plan = load([testcases / "crash" / "panic.yaml"], bench.options)[0]
    bench.prepare(plan)
    ingredients = bench.ingredients(plan.machine)
    made = template.find(bench.options.cache, ingredients)
    assert made is not None
    heard = asyncio.run(listen(ingredients, made, tmp_path, deaf=3))
    assert heard == [f"late {number} {'0' * WIDTH}" for number in range(1, LINES + 1)]


def test_the_console_takes_input_too(bench: Bench, testcases: Path, tmp_path: Path) -> None:
    """For whoever types on it, such as a sysrq after a BREAK."""
    plan = load([testcases / "crash" / "panic.yaml"], bench.options)[0]
    bench.prepare(plan)
    ingredients = bench.ingredients(plan.machine)
    made = template.find(bench.options.cache, ingredients)
    assert made is not None

    async def type_on_it() -> str:
        quiet = Observers(lambda *_: None, lambda *_: None, lambda *_: None)
        with clone_memory(made, False) as (memory, inherit):
            started = Machine.start(
                lambda channels: clone_argv(ingredients, memory, channels),
                quiet,
                Clock.start(),
                tmp_path / "typed",
                inherit,
            )
            async with started as guest:
                await restore(guest, made)
                reading = guest.agent.ask("run", {"argv": ["sh", "-c", "head -n 1 /dev/ttyS0"]}, 30)
                task = asyncio.ensure_future(guest.alive(reading, 31, "the line that was typed"))
                guest.ports[CONSOLE].send(b"typed\n")
                return str((await task)["out"])

    assert asyncio.run(type_on_it()).strip() == "typed"
