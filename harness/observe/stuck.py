"""Where a guest is that no longer speaks: program counters and stacks of its CPUs, read over QMP, as function names.

In: a QMP session and the kernel's symbols. Out: one `qmp stuck` event for each sample. Rule: look several times, since one look
cannot tell a CPU that spins from one that works; nothing in the guest is changed.
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import Awaitable, Callable
from typing import Any

from harness.observe.events import Evidence
from harness.testbed.symbols import Symbols

Hmp = Callable[[str], Awaitable[str]]
SAMPLES, PAUSE = 5, 0.1  # looks, seconds between two of them (sampling, not waiting for anything)
DELAYS = frozenset(
    {"delay_tsc", "delay_loop", "delay_halt", "delay_halt_tpause", "__delay", "__udelay", "__const_udelay"}
)
PANIC = frozenset({"panic", "vpanic", "i8042_panic_blink", "no_blink"})  # kernel/panic.c: what ends in an endless loop
# What a panic never comes back from: nobody else runs who would serve the interrupt that disable_irq() waits for (kernel/irq/manage.c), or give a lock back.
ENDLESS = frozenset({"synchronize_irq", "native_queued_spin_lock_slowpath"})
DEPTH = 8  # functions, innermost first, that count as where a CPU is: further up the stack's words may be leftovers
STACK_WORDS = 256  # of 8 bytes, from RSP up
_CPU = re.compile(r"CPU#(\d+)")
_REGISTER = re.compile(r"\b(RIP|RSP)=([0-9a-f]{16})")
_HALTED = re.compile(r"\bHLT=(\d)")
_WORD = re.compile(r"0x([0-9a-f]{16})")


async def record(evidence: Evidence, hmp: Hmp, symbols: Symbols, why: str, samples: int = SAMPLES) -> None:
    """Take the samples and write them down; `why` says what was waited for in vain. `samples`: 1 for a machine that stands still."""
    for sample in range(samples):
        if sample:
            await asyncio.sleep(PAUSE)
        for cpu in parse_registers(await hmp("info registers -a")):
            stack = await _stack(hmp, cpu["cpu"], cpu["rsp"], symbols) if sample == samples - 1 else []
            where = symbols.resolve(cpu["rip"])
            keys = {"cpu": cpu["cpu"], "rip": f"{cpu['rip']:#x}", "where": where, "halted": cpu["halted"]}
            evidence.add("qmp", "stuck", why=why, sample=sample, **keys, stack=stack)


class Rest(enum.Enum):
    """What a panicked guest can still do."""

    SENDS = "some CPU may send"
    HALTS = "each CPU is halted, and an interrupt may wake it"
    LOOPS = "one CPU is in panic()'s endless loop, the others are halted or there, too"
    SPINS = "one CPU is at what a panic never comes back from, if it is still there at the next looks; the others are halted or there, too"


async def rest_of_panic(hmp: Hmp, symbols: Symbols) -> Rest:
    """Is each CPU halted or in a delay that panic() itself waits in? After the panic's last line that is its endless loop: the
    kernel has served its consoles one after the other and will say nothing more (kernel/panic.c, console_unlock())."""
    cpus = parse_registers(await hmp("info registers -a"))
    states = {Rest.HALTS if cpu["halted"] else await _doing(hmp, cpu, symbols) for cpu in cpus} or {Rest.SENDS}
    return next(rest for rest in (Rest.SENDS, Rest.SPINS, Rest.LOOPS, Rest.HALTS) if rest in states)


async def _doing(hmp: Hmp, cpu: dict[str, Any], symbols: Symbols) -> Rest:
    names = [symbols.resolve(cpu["rip"]) or "", *await _stack(hmp, cpu["cpu"], cpu["rsp"], symbols)]
    functions = [re.split(r"[+.]", name)[0] for name in names]
    if next((name for name in functions if name not in DELAYS), "") in PANIC:
        return Rest.LOOPS
    return Rest.SPINS if ENDLESS.intersection(functions[:DEPTH]) else Rest.SENDS


def parse_registers(text: str) -> list[dict[str, Any]]:
    """Number, RIP, RSP and HLT of each CPU in what `info registers -a` prints."""
    found = []
    parts = _CPU.split(text)
    for number, body in zip(parts[1::2], parts[2::2], strict=True):
        registers = dict(_REGISTER.findall(body))
        if {"RIP", "RSP"} <= registers.keys():
            halted = _HALTED.search(body)
            rip, rsp = int(registers["RIP"], 16), int(registers["RSP"], 16)
            found.append(
                {"cpu": int(number), "rip": rip, "rsp": rsp, "halted": bool(halted and halted.group(1) == "1")}
            )
    return found


async def _stack(hmp: Hmp, cpu: int, rsp: int, symbols: Symbols) -> list[str]:
    """Return addresses on the stack as names, innermost first: every word that points behind a call is one, so some are
    leftovers of earlier calls."""
    await hmp(f"cpu {cpu}")
    text = await hmp(f"x /{STACK_WORDS}gx {rsp:#x}")
    return backtrace(text, symbols)


def backtrace(memory: str, symbols: Symbols) -> list[str]:
    """The names that the words of a memory dump resolve to, without runs of the same one."""
    names: list[str] = []
    for line in memory.splitlines():
        for word in _WORD.findall(line.partition(":")[2]):
            name = symbols.resolve(int(word, 16))
            if name is not None and name[-4:] != "+0x0" and (not names or names[-1] != name):
                names.append(name)
    return names[:40]
