"""The slides' extension on a real kernel: letters from the host press the guest's sysrq, netconsole brings what it says.

A Debian guest on QEMU, its e1000 on a tap in a namespace. In the guest: the tool's `sysrq` on eth0, and the kernel's own
netconsole. On the host: the tool's `send --sysrq` and `listen`, on the tap. The last key is 'c'.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import images
from guest.tests.console import Console
from guest.tests.own_namespace import Namespace, own_namespace

pytestmark = [pytest.mark.guest, pytest.mark.netns]

TOOL = [sys.executable, "-m", "guest.netpoll"]
GUEST_MAC = "52:54:00:00:00:02"
HOST = f"6666@10.9.0.1/tap0,6665@10.9.0.2/{GUEST_MAC}"

SETUP = """
export PATH=/usr/sbin:/usr/bin PYTHONPATH=/opt/netpoll-harness PS1=''
busybox stty -echo
busybox mount -t proc proc /proc; busybox mount -t sysfs sysfs /sys; busybox mount -t devtmpfs devtmpfs /dev
modprobe -a e1000 af_packet; ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
until [ "$(busybox cat /sys/class/net/eth0/carrier 2>/dev/null)" = 1 ]; do busybox usleep 20000; done
echo 8 > /proc/sys/kernel/printk
modprobe netconsole netconsole=+6665@10.9.0.2/eth0,6666@10.9.0.1/ff:ff:ff:ff:ff:ff
python3 -S -P -m guest.netpoll sysrq 6665@10.9.0.2/eth0,6666@10.9.0.1/ --allow hmc &
"""


@pytest.fixture
def guest() -> Iterator[tuple[Namespace, Console]]:
    builder = images.Builder(progress=images.PlainText())
    qemu = images.ensure_qemu(builder)
    kernel = images.ensure_kernel("debian-6.1", builder)
    root = images.ensure_guest(kernel, builder)
    argv = [*qemu.argv, "-machine", "pc,accel=tcg", "-m", "384", "-nographic", "-no-reboot", "-nodefaults"]
    argv += ["-serial", "stdio", "-kernel", str(kernel.vmlinux), "-initrd", str(root.initrd)]
    argv += ["-append", "console=ttyS0 panic=0 rdinit=/bin/sh"]
    argv += ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", "-device", f"e1000,netdev=n,mac={GUEST_MAC}"]
    with own_namespace() as ns, ExitStack() as stack:
        process = ns.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        stack.callback(process.communicate)
        stack.callback(process.kill)
        yield ns, Console(process)


def press(ns: Namespace, keys: str, options: str = HOST) -> None:
    done = ns.run([*TOOL, "send", options, "--sysrq", keys])
    assert done.returncode == 0, done.stderr


def test_a_host_presses_a_guests_keys(guest: tuple[Namespace, Console], tmp_path: Path) -> None:
    ns, console = guest
    console.wait_for("# ")
    console.type(SETUP)
    console.wait_for("taking sysrq keys")
    heard = tmp_path / "heard"
    with heard.open("wb") as out, ns.popen([*TOOL, "listen", HOST], stdout=out, stderr=subprocess.PIPE) as listener:
        assert listener.stderr is not None
        assert b"listening" in listener.stderr.readline()
        press(ns, "h", HOST.replace("6666@", "6667@"))  # not the configured port
        press(ns, "t")  # not allowed
        press(ns, "h")
        said = console.wait_for("sysrq: HELP")
        assert "sysrq h" in said
        assert "Show State" not in said, "a key that was not allowed reached the kernel"
        press(ns, "mc")
        said = console.wait_for("end Kernel panic") + console.wait_for("]---")
        assert "Show Memory" in said
        assert "sysrq triggered crash" in said
        wait_for_line(heard, "end Kernel panic")
        listener.terminate()
        summary = listener.stderr.read().decode()
    wire = [line.removeprefix("10.9.0.2 ") for line in heard.read_text().splitlines()]
    serial = [line.rstrip("\r") for line in console.seen.split("\n") if line.startswith("[")]
    start = next(at for at, line in enumerate(serial) if "sysrq: HELP" in line)
    assert wire == serial[start : start + len(wire)]
    assert "end Kernel panic" in wire[-1]
    assert " 0 missing, 0 late, 0 twice, 0 broken" in summary


def wait_for_line(path: Path, what: str, seconds: float = 20) -> None:
    """Until the listener has written it."""
    deadline = time.monotonic() + seconds
    while what not in path.read_text():
        assert time.monotonic() < deadline, f"{what!r} awaited from the wire; it ends with {path.read_text()[-500:]}"
        select.select([], [], [], 0.02)
