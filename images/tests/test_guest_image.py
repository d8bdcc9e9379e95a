"""The real thing: QEMU, kernel and guest image built (or taken from the cache), booted, and looked at."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import images
from images.guest import source_files
from images.store import manifest_of
from images.tests.test_cpio import read_archive
from images.userland import ensure_userland

pytestmark = pytest.mark.guest
KERNEL = os.environ.get("NETPOLL_HARNESS_TEST_KERNEL", images.DEFAULT_KERNEL)
BOOT_SECONDS = 120.0
DRIVERS = (
    "e1000 e1000e igb virtio_net vmxnet3 8139cp 8139too pcnet32 tulip ne2k-pci e100 tg3 bonding netconsole configfs"
    " uio_pci_generic vfio-pci 8021q pktgen i6300esb virtio_balloon virtio_rng"
)


@pytest.fixture(scope="module")
def builder() -> images.Builder:
    return images.Builder(progress=images.PlainText())


@pytest.fixture(scope="module")
def qemu(builder: images.Builder) -> images.Qemu:
    return images.ensure_qemu(builder)


@pytest.fixture(scope="module")
def kernel(builder: images.Builder) -> images.Kernel:
    return images.ensure_kernel(KERNEL, builder)


AGENT = """
import ctypes, fcntl, json, mmap, select, socket, struct, subprocess, sys
def show(name, *argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    print("shown", json.dumps([name, done.returncode, (done.stdout + done.stderr).strip()]), flush=True)
show("ip", "sh", "-c", "ip -V")
show("lo", "ip", "-br", "link", "show", "lo")
show("bond", "ip", "link", "add", "bond7", "type", "bond", "mode", "active-backup")
show("bonds", "cat", "/sys/class/net/bonding_masters")
show("nic", "sh", "-c", "readlink /sys/class/net/eth0/device/driver")
show("mounts", "cat", "/proc/mounts")
show("hostname", "hostname")
show("kmsg", "cat", "/proc/sys/kernel/printk_devkmsg")
show("pvpanic", "lsmod")
show("all modules", "sh", "-c", "for m in $(find /lib/modules/ -name '*.ko'); do modprobe -n $(basename $m .ko); done")
show("drivers", "modprobe", "-a", *"DRIVERS".split())
show("sshd", "sh", "-c", "/usr/sbin/sshd -t && echo good")
show("qemu-ga", "qemu-ga", "--version")
show("ethtool", "ethtool", "--version")
show("cached", "sh", "-c", "ls /opt/netpoll-harness/guest/__pycache__")
show("python", sys.executable, "-c", "import asyncio, hashlib, ipaddress, secrets, sqlite3" )
print("shown", json.dumps(["end", 0, __file__]), flush=True)
"""


@contextmanager
def booted(
    qemu: images.Qemu, kernel: images.Kernel, initrd: Path, append: str, *more: str
) -> Iterator[subprocess.Popen[str]]:
    argv = [*qemu.argv, "-machine", "pc,accel=tcg", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-serial", "stdio", "-device", "pvpanic-pci", "-device", "virtio-serial-pci"]
    argv += [
        "-kernel",
        str(kernel.vmlinux),
        "-initrd",
        str(initrd),
        "-append",
        f"console=ttyS0 quiet panic=-1 {append}",
    ]
    argv += more
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        killer = threading.Timer(BOOT_SECONDS, process.kill)
        killer.start()
        try:
            yield process
        finally:
            killer.cancel()
            process.kill()


def console_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    """Console lines up to the first that holds `pattern`; fails with all of them if it never comes."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"no {pattern!r} on the console within {BOOT_SECONDS} s:\n" + "\n".join(lines))


def test_the_guest_boots_and_has_what_it_needs(
    qemu: images.Qemu, kernel: images.Kernel, builder: images.Builder, tmp_path: Path
) -> None:
    (tmp_path / "agent.py").write_text(AGENT.replace("DRIVERS", DRIVERS))
    (tmp_path / "__init__.py").write_text("")
    guest = images.ensure_guest(kernel, builder, tmp_path)
    with booted(
        qemu, kernel, guest.initrd, "netpoll.modules=e1000,bonding,netconsole,nosuch", "-device", "e1000"
    ) as process:
        lines = console_until(process, '"end"')
    shown = {
        name: (status, text)
        for name, status, text in (json.loads(line[6:]) for line in lines if line.startswith("shown "))
    }
    assert any(line == "netpoll-init: module nosuch is not there" for line in lines)
    assert any(line.startswith(images.READY_LINE) and kernel.release in line for line in lines)
    assert "iproute2" in shown["ip"][1]
    assert "LOOPBACK,UP" in shown["lo"][1]
    assert shown["bond"] == (0, "")
    assert shown["bonds"][1] == "bond7"  # and no bond0
    assert shown["nic"][1].endswith("/e1000")
    for place in ("/proc", "/sys", "/dev", "/dev/pts", "/run", "/tmp", "/sys/kernel/config", "/sys/kernel/debug"):
        assert f" {place} " in shown["mounts"][1]
    assert shown["hostname"][1] == "guest"
    assert shown["kmsg"][1] == "on"
    assert "pvpanic" in shown["pvpanic"][1]
    assert shown["all modules"] == (0, "")
    assert shown["drivers"] == (0, "")
    assert shown["sshd"] == (0, "good")
    assert shown["qemu-ga"][0] == 0
    assert shown["ethtool"][0] == 0
    assert "agent.cpython-" in shown["cached"][1]
    assert "sqlite3" in shown["python"][1]  # left out on purpose, and the only one that is missing
    assert shown["end"][1] == "/opt/netpoll-harness/guest/agent.py"


SSHD = """
import subprocess
for command in ("ip addr add 10.0.2.15/24 dev eth0", "ip link set eth0 up", "exec /usr/sbin/sshd -D -e"):
    subprocess.run(command, shell=True, check=True)
"""


def test_the_guest_is_reached_by_ssh_with_the_keys_of_its_image(
    qemu: images.Qemu, kernel: images.Kernel, builder: images.Builder, tmp_path: Path
) -> None:
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest/agent.py").write_text(SSHD)
    (tmp_path / "guest/__init__.py").write_text("")
    guest = images.ensure_guest(kernel, builder, tmp_path / "guest")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {' '.join(guest.host_key.read_text().split()[:2])}\n")
    userland = ensure_userland(builder)
    options = f"-F /dev/null -o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes -o BatchMode=yes".split()
    ssh = [*userland.argv("usr/bin/ssh"), *options, "-i", str(guest.client_key), "-p", str(port), "root@127.0.0.1"]
    nic = ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=n"]
    with booted(qemu, kernel, guest.initrd, "netpoll.modules=virtio_net", *nic) as process:
        console_until(process, "Server listening on 0.0.0.0 port 22")
        sent = bytes(range(256)) * 1000
        stored = subprocess.run([*ssh, "cat > /tmp/sent"], input=sent, capture_output=True, timeout=60, check=False)
        assert stored.returncode == 0, stored.stderr
        asked = "hostname; echo $PYTHONPATH; command -v ip; sha256sum < /tmp/sent"
        said = subprocess.run([*ssh, asked], capture_output=True, timeout=60, text=True, check=True).stdout.split()
    assert said[:3] == ["guest", "/opt/netpoll-harness", "/usr/sbin/ip"]
    assert said[3] == hashlib.sha256(sent).hexdigest()


def test_edited_sources_make_another_image_of_the_same_base(
    kernel: images.Kernel, builder: images.Builder, tmp_path: Path
) -> None:
    (tmp_path / "agent.py").write_text("first = 1\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_x.py").write_text("not shipped")
    first = images.ensure_guest(kernel, builder, tmp_path)
    assert images.ensure_guest(kernel, builder, tmp_path) == first
    (tmp_path / "tests/test_x.py").write_text("still not shipped")
    assert images.ensure_guest(kernel, builder, tmp_path) == first
    (tmp_path / "agent.py").write_text("second = 2\n")
    start = time.monotonic()
    second = images.ensure_guest(kernel, builder, tmp_path)
    took = time.monotonic() - start
    assert second.digest != first.digest
    assert second.client_key == first.client_key  # the base is the same
    found = read_archive(second.initrd.read_bytes())
    assert found["opt/netpoll-harness/guest/agent.py"][1] == b"second = 2\n"
    assert not any("/tests/" in path for path in found if path.startswith("opt/"))
    assert took < 5.0, f"an edit took {took:.1f} s"
    assert manifest_of(second.initrd.parent)["sources"].keys() == {"agent.py"}


def test_no_python_file_is_compiled_in_the_guest(kernel: images.Kernel, builder: images.Builder) -> None:
    found = read_archive(images.ensure_guest(kernel, builder).initrd.read_bytes())
    compiled = {path: data for path, (_, data) in found.items() if path.endswith(".pyc")}
    sources = {path for path in found if path.endswith(".py")}
    expected = {re.sub(r"([^/]+)\.py$", r"__pycache__/\1.cpython-311.pyc", path) for path in sources}
    assert expected == set(compiled)
    unchecked = 0b01  # PEP 552: bit 0: by hash, not by time; bit 1: compare it with the source
    assert {path for path, data in compiled.items() if data[4:8] != bytes([unchecked, 0, 0, 0])} == set()


def test_a_source_with_a_syntax_error_is_said(kernel: images.Kernel, builder: images.Builder, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("def (:\n")
    with pytest.raises(images.ImageError, match=r"(?s)guest/agent\.py.*SyntaxError"):
        images.ensure_guest(kernel, builder, tmp_path)


def test_the_shipped_sources_are_those_of_the_package() -> None:
    files = source_files(Path(__file__).parents[2] / "guest")
    assert "agent.py" in files
    assert not any("tests/" in path or path.endswith(".pyc") for path in files)


def test_a_built_image_needs_no_network(qemu: images.Qemu, kernel: images.Kernel, builder: images.Builder) -> None:
    code = (
        "import images; b = images.Builder(mirror='http://127.0.0.1:9/debian'); q = images.ensure_qemu(b);"
        f"k = images.ensure_kernel({KERNEL!r}, b); images.ensure_guest(k, b); print(q.digest, k.digest)"
    )
    argv = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]
    if subprocess.run([*argv, "true"], capture_output=True, check=False).returncode:
        argv = []  # no namespace to be had: the mirror that refuses must do
    images.ensure_guest(kernel, builder)
    done = subprocess.run([*argv, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [qemu.digest, kernel.digest], done.stderr


def test_qemu_is_what_was_asked_for(qemu: images.Qemu) -> None:
    assert qemu.vfio_user
    help_text = subprocess.run([*qemu.argv, "-device", "help"], capture_output=True, text=True, check=True)
    for model in ("e1000", "virtio-net-pci", "igb", "vmxnet3", "rtl8139", "tulip", "ne2k_pci", "i82559er", "pcnet"):
        assert f'name "{model}"' in help_text.stdout
    assert help_text.stderr == ""
    img = subprocess.run([*qemu.img_argv, "--version"], capture_output=True, text=True, check=True)
    assert qemu.version in img.stdout
    assert (qemu.bios_dir / "pvh.bin").exists()


def test_a_kernel_of_ones_own(
    qemu: images.Qemu, kernel: images.Kernel, builder: images.Builder, tmp_path: Path
) -> None:
    assert kernel.modules is not None
    own = images.kernel_at(kernel.bzimage, kernel.modules, builder)
    assert own.release == kernel.release
    assert own.vmlinux.read_bytes() == kernel.vmlinux.read_bytes()
    (tmp_path / "agent.py").write_text("print('shown', 'end', flush=True)\n")
    (tmp_path / "__init__.py").write_text("")
    bare = images.kernel_at(kernel.bzimage, None, builder)
    guest = images.ensure_guest(bare, builder, tmp_path)
    assert guest.modules == ()
    with booted(qemu, bare, guest.initrd, "") as process:
        console_until(process, "shown end")
