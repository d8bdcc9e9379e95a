"""Which accelerator runs guests here: KVM only if it really starts a kernel, under a deadline.

In: a QEMU and a kernel. Out: `kvm` or `tcg` with the reason. Rule: what has not been seen to run counts as not running. /dev/kvm can
open, answer its API version, create a VM and even run all of SeaBIOS's 16- and 32-bit code, and still hang for ever at
the kernel's first 64-bit page table; so the probe starts the very kernel and waits for its first words on the serial line.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.testbed.process import spawn
from harness.testbed.qemu import Accel

DEADLINE = 8.0  # seconds; a KVM that works needs some tenths
MEMORY = "accel.json"  # in the cache: what was found, and for which boot of the host
FIRST_WORDS = b"Linux version"


@dataclass(frozen=True)
class Probe:
    """The accelerator and, in a sentence, why."""

    accel: Accel
    why: str


def probe(qemu: Sequence[str], kernel: Path, cache: Path, deadline: float = DEADLINE) -> Probe:
    """Try KVM, or remember what this boot of the host has shown this user before (in `cache`)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = [boot, os.geteuid(), os.path.exists("/dev/kvm"), *qemu]
    memory = cache / MEMORY
    try:
        known = json.loads(memory.read_text())
        if known["key"] == key:
            return Probe(known["accel"], known["why"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing remembered, or not of this boot
    found = try_kvm(qemu, kernel, deadline)
    cache.mkdir(parents=True, exist_ok=True)
    new = cache / f".{MEMORY}.new"  # one name: whoever is killed here leaves no second one; half of it would not parse
    new.write_text(json.dumps({"key": key, "accel": found.accel, "why": found.why}))
    with contextlib.suppress(FileNotFoundError):  # another one that has just found the same took it along
        os.replace(new, memory)
    return found


def try_kvm(qemu: Sequence[str], kernel: Path, deadline: float = DEADLINE) -> Probe:
    """Start the kernel under KVM; anything but its first words within `deadline` seconds means TCG."""
    if not os.path.exists("/dev/kvm"):
        return Probe("tcg", "no /dev/kvm: software emulation")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Probe("tcg", "/dev/kvm may not be opened by this user: software emulation")
    with tempfile.TemporaryFile() as stderr:
        process = spawn(_argv(qemu, kernel), stdout=subprocess.PIPE, stderr=stderr)
        try:
            said = _read_until(process, FIRST_WORDS, time.monotonic() + deadline)
            ended = process.poll()
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if FIRST_WORDS in said:
            return Probe("kvm", "/dev/kvm starts a kernel")
        if ended is None:
            return Probe("tcg", f"/dev/kvm opens but no kernel spoke within {deadline:g} s: software emulation")
        stderr.seek(0)
        lines = stderr.read(500).decode(errors="replace").strip().splitlines()
        return Probe("tcg", f"/dev/kvm runs no guest ({lines[-1] if lines else f'status {ended}'}): software emulation")


def _read_until(process: subprocess.Popen[bytes], wanted: bytes, end: float) -> bytes:
    """What the process prints until `wanted`, its end or the deadline."""
    assert process.stdout is not None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while wanted not in said and selector.select(max(end - time.monotonic(), 0)):
            data = os.read(process.stdout.fileno(), 4096)
            if not data:
                process.wait(1)
                break
            said += data
    return said


def _argv(qemu: Sequence[str], kernel: Path) -> list[str]:
    return [
        *qemu,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "pc,accel=kvm"),
        *("-cpu", "host"),
        *("-m", "128M"),
        *("-serial", "stdio"),
        *("-kernel", str(kernel)),
        *("-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1"),
    ]
