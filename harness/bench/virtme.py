"""The peer: virtme-ng runs the check of `harness.bench.check` on the same kernel, with the same QEMU, under the same accelerator.

In: a kernel, a QEMU, an accelerator. Out: seconds from asking for the case to its last words at the receiver. Rule: whatever keeps
virtme-ng from running here is said in words and ends nothing.

The guest's netconsole sends through QEMU's user network to a UDP socket on loopback. What is left out in virtme-ng's favour: it is not
judged, no console is compared, and taking its guest down is not counted.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import images
from harness.bench.check import LAST_WORDS, MESSAGES
from harness.testbed.qemu import Accel
from images.process import guarded
from images.virtme import ensure_virtme_root, write_initramfs

WITHIN = {"kvm": 60.0, "tcg": 240.0}  # seconds until the last words must have come
NUMBERED = re.compile(rb"npt check (\d+)\b")
IN_GUEST = """
mount -t configfs none /sys/kernel/config 2>/dev/null; t=/sys/kernel/config/netconsole/t; mkdir $t &&
echo eth0 > $t/dev_name && echo 10.0.2.15 > $t/local_ip && echo 10.0.2.2 > $t/remote_ip &&
echo {port} > $t/remote_port && echo 1 > $t/enabled && echo 8 > /proc/sys/kernel/printk &&
for n in $(seq 0 {last}); do echo "npt check $n" > /dev/kmsg; done; echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger
"""


class CannotRun(Exception):
    """virtme-ng does not run here, and why."""


@dataclass(frozen=True)
class Setup:
    """What every round uses, in a folder that ends with the bench."""

    argv: tuple[str, ...]  # vng without what it is to execute
    folder: Path
    within: float


@contextmanager
def ready(kernel: images.Kernel, qemu: images.Qemu, accel: Accel, builder: images.Builder) -> Iterator[Setup]:
    """Root, initramfs and a QEMU by one name. Raises CannotRun."""
    with builder.store.scratch() as folder:
        try:
            yield Setup(_argv(folder, kernel, qemu, accel, builder), folder, WITHIN[accel])
        except (images.ImageError, OSError) as error:
            raise CannotRun(str(error)) from error


def _argv(
    folder: Path, kernel: images.Kernel, qemu: images.Qemu, accel: Accel, builder: images.Builder
) -> tuple[str, ...]:
    vng = _program()
    _require_user_network(qemu)
    root = ensure_virtme_root(builder)
    write_initramfs(folder / "initrd", kernel, builder)
    wrapper = folder / "qemu-system-x86_64"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(guarded(qemu.argv))} "$@"\n')
    wrapper.chmod(0o755)
    pairs = {
        "--run": kernel.bzimage,
        "--root": root.tree,
        "--qemu": wrapper,
        "--user": "root",
        "--network": "user",
        "--memory": "512M",
        "--cpus": "1",
        "--append": "net.ifnames=0 printk.devkmsg=on panic=0",
        "--qemu-opts": f"-initrd {folder / 'initrd'}",
    }
    flags = [
        "--verbose",
        "--no-dhcp",
        "--force-9p",
        "--disable-microvm",
        *(["--disable-kvm"] if accel == "tcg" else []),
    ]
    return (*vng, *flags, *(f"{option}={value}" for option, value in pairs.items()))


def _program() -> tuple[str, ...]:
    """vng of this very environment comes first."""
    found = shutil.which("vng", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise CannotRun("there is no vng: pip install 'netpoll-harness[bench]'")
    return (found,)


def _require_user_network(qemu: images.Qemu) -> None:
    said = subprocess.run([*qemu.argv, "-machine", "none", "-netdev", "help"], capture_output=True, check=False).stdout
    if b"user" not in said.split():
        raise CannotRun("this QEMU has no user network (slirp), through which the guest reaches a receiver")


def run(setup: Setup) -> float:
    """One case; seconds. Raises CannotRun with the end of the guest's console when the last words or a message do not come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        script = IN_GUEST.format(port=receiver.getsockname()[1], last=MESSAGES - 1)
        log = setup.folder / "console.log"
        began = time.monotonic()
        with (
            log.open("wb") as out,
            _started([*setup.argv, "--exec", script.replace("\n", " ")], setup, out.fileno()) as vng,
        ):
            heard, whole = _listen(receiver, vng, began + setup.within)
            seconds = time.monotonic() - began
    if not whole or len(heard) != MESSAGES:
        said = log.read_text(errors="replace").strip()[-1500:]
        came = f"{len(heard)} of {MESSAGES} messages" + ("" if whole else ", and no last words")
        raise CannotRun(f"after {seconds:.0f} s: {came}; its console ends with:\n{said}")
    return seconds


@contextmanager
def _started(argv: list[str], setup: Setup, out: int) -> Iterator[subprocess.Popen[bytes]]:
    """vng and its QEMU, which end with the context."""
    path = f"{Path(argv[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # vng calls virtme-run by name
    env = {**os.environ, "HOME": str(setup.folder), "PATH": path}
    process = subprocess.Popen(
        guarded(argv),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        env=env,
        cwd=setup.folder,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # all of them have ended already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listen(receiver: socket.socket, vng: subprocess.Popen[bytes], until: float) -> tuple[set[int], bool]:
    """The numbers that came, and whether the last words did; until they do, or vng ends, or time is over."""
    heard: set[int] = set()
    receiver.settimeout(0.5)
    while time.monotonic() < until:
        try:
            said = receiver.recv(1 << 16)
        except TimeoutError:
            if vng.poll() is not None:
                break
            continue
        heard |= {int(number) for number in NUMBERED.findall(said)}
        if LAST_WORDS.encode() in said:
            return heard, True
    return heard, False
