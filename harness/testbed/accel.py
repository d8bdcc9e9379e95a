"""Which accelerator runs guest code here: KVM only if it really executes some, under a deadline.

In: a QEMU. Out: `kvm` or `tcg` with the reason. Rule: /dev/kvm that opens, answers its API version and creates a VM has proven
nothing; the probe is a firmware of our own whose first instructions end QEMU with a known status.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.testbed.process import spawn
from harness.testbed.qemu import Accel

DEADLINE = 5.0  # seconds; a KVM that works needs some hundredths
EXIT_PORT, EXIT_VALUE = 0xF4, 0x2A
EXIT_STATUS = EXIT_VALUE << 1 | 1  # QEMU's isa-debug-exit


@dataclass(frozen=True)
class Probe:
    """The accelerator and, in a sentence, why."""

    accel: Accel
    why: str


def firmware() -> bytes:
    """64 KiB that end QEMU from the reset vector: `mov al, 0x2a; out 0xf4, al; hlt; jmp $-1` at F000:FFF0."""
    code = bytes([0xB0, EXIT_VALUE, 0xE6, EXIT_PORT, 0xF4, 0xEB, 0xFD])
    return (b"\xf4" * 0xFFF0 + code).ljust(0x10000, b"\xf4")


def probe(qemu: Sequence[str], cache: Path, deadline: float = DEADLINE) -> Probe:
    """Try KVM, or remember what this boot of the host has shown before (in `cache`)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    memory = cache / "accel.json"
    try:
        known = json.loads(memory.read_text())
        if known["boot"] == boot and known["uid"] == os.geteuid():
            return Probe(known["accel"], known["why"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing remembered, or not of this boot
    found = try_kvm(qemu, deadline)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=cache, delete=False) as new:
        json.dump({"boot": boot, "uid": os.geteuid(), "accel": found.accel, "why": found.why}, new)
    os.replace(new.name, memory)
    return found


def try_kvm(qemu: Sequence[str], deadline: float = DEADLINE) -> Probe:
    """Run the firmware under KVM; anything but its own exit status within `deadline` seconds means TCG."""
    if not os.path.exists("/dev/kvm"):
        return Probe("tcg", "no /dev/kvm: software emulation")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Probe("tcg", "/dev/kvm may not be opened by this user: software emulation")
    with tempfile.NamedTemporaryFile(suffix=".bin") as rom, tempfile.TemporaryFile() as stderr:
        rom.write(firmware())
        rom.flush()
        process = spawn(_argv(qemu, rom.name), stderr=stderr)
        try:
            status = process.wait(deadline)
        except subprocess.TimeoutExpired:
            return Probe("tcg", f"/dev/kvm opens but ran no guest code in {deadline:g} s: software emulation")
        finally:
            process.kill()
            process.wait()
        if status == EXIT_STATUS:
            return Probe("kvm", "/dev/kvm executes guest code")
        stderr.seek(0)
        said = stderr.read(500).decode(errors="replace").strip().splitlines()
        return Probe(
            "tcg", f"/dev/kvm does not run guests ({said[-1] if said else f'status {status}'}): software emulation"
        )


def _argv(qemu: Sequence[str], rom: str) -> list[str]:
    return [
        *qemu,
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "pc,accel=kvm"),
        *("-cpu", "host"),
        *("-m", "16M"),
        *("-bios", rom),
        *("-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"),
    ]
