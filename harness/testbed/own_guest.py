"""Guests that we did not build: a disk image with an ssh server, which boots by itself and into which our stack moves.

In: a disk image, a login, a machine that boots from a throw-away overlay of that image. Out: the same machine with our agent
answering, and nothing of ours left in it but files and that process. Rule: the image itself is never written.

It happens once, for the template; every case is a clone, as of any other guest:

    qemu-img create -b DISK overlay     what the guest writes from here on
    boot                                with a NIC of QEMU's user network for management, behind a UNIX socket: no
                                        network of the host is involved, and the guest reaches none
    ssh, SFTP                           look whether it has what a case needs, bring the stack, start the agent
    device_del, netdev_del              the management NIC goes before the template is saved: no case sees it
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.plan.nics import DRIVERS
from harness.testbed.channels import Login
from harness.testbed.errors import GuestRefused, GuestSilent, TestbedError
from harness.testbed.machine import Machine
from images.guest import guest_sources, source_files

if TYPE_CHECKING:
    from harness.testbed.channels.ssh import Ssh

HOME = "/opt/netpoll-harness"
LOG = "/run/netpoll-agent.log"
PATIENCE = {"kvm": 180.0, "tcg": 900.0}  # seconds until its ssh server answers: whole distributions boot slowly
ATTEMPT, PAUSE = 60.0, 0.5  # seconds for one connection, between two: nothing tells from outside that sshd has started
OVERLAY = "disk.qcow2"
QCOW2 = b"QFI\xfb"  # QEMU's docs/interop/qcow2.rst: the first four bytes
NIC, NETDEV = "management-nic", "management"

# sh, what it means when it fails, what to do about it. In this order.
NEEDS = (
    ('[ "$(id -u)" = 0 ]', "this user is not root in the guest", "log in as root: ssh.user"),
    (
        "python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'",
        "the guest has no Python 3.11 or newer",
        "our stack in the guest is Python: install it in the image",
    ),
    (
        "grep -q '^ttyS0 ' /proc/consoles",
        "the guest's kernel does not speak on the serial console",
        "what it says at a crash is compared with the wire: boot it with console=ttyS0,115200",
    ),
    (
        # the host tells the ports' names after the driver is there, some time later
        "modprobe -q virtio_console; for i in $(seq 100); do"
        " grep -qsx org.netpoll.agent /sys/class/virtio-ports/*/name && exit 0; sleep 0.1; done; exit 1",
        "the guest's kernel has no driver for virtio-serial ports",
        "build it with CONFIG_VIRTIO_CONSOLE",
    ),
)
# As the init of our own guest does; what a kernel lacks is missed by the case that needs it.
PREPARE = f"""
modprobe -q bonding max_bonds=0
for module in configfs netconsole pvpanic-pci {" ".join(DRIVERS)}; do modprobe -q "$module"; done
[ -d /sys/kernel/config/netconsole ] || mount -t configfs none /sys/kernel/config
echo on > /proc/sys/kernel/printk_devkmsg
echo 8 > /proc/sys/kernel/printk
echo 0 > /proc/sys/kernel/panic
rm -rf {HOME}
mkdir -p {HOME}
"""
START = f"""
cd / && python3 -m tarfile -e {HOME}/guest.tar {HOME} && rm {HOME}/guest.tar || exit 1
PYTHONPATH={HOME} setsid python3 -S -P -m guest.agent < /dev/null > {LOG} 2>&1 &
"""


@dataclass(frozen=True)
class OwnGuest:
    """A disk image and what it takes to use it."""

    disk: Path
    qemu_img: tuple[str, ...]  # the words that run it

    def identity(self) -> str:
        """Changes with the image, and with the stack that moves in. Raises TestbedError for an image that is not there."""
        stat = _stat(self.disk)
        seen = f"{self.disk.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()
        return f"{self.disk.name}-{hashlib.sha256(seen + _archive()).hexdigest()[:32]}"

    def overlay(self, folder: Path) -> None:
        """Make the file that takes the guest's writes. Raises TestbedError."""
        with self.disk.open("rb") as file:
            form = "qcow2" if file.read(len(QCOW2)) == QCOW2 else "raw"
        if not self.qemu_img:
            raise TestbedError("there is no qemu-img beside this QEMU", "leave --qemu out, or install qemu-utils")
        backing = ["-b", str(self.disk.resolve()), "-F", form]
        command = [*self.qemu_img, "create", "-q", "-f", "qcow2", *backing, str(folder / OVERLAY)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TestbedError(
                f"{self.disk} cannot be used as a disk: {done.stderr.strip()}", "give a qcow2 or raw image"
            )


def _stat(disk: Path) -> os.stat_result:
    try:
        return disk.stat()
    except OSError as error:
        raise TestbedError(
            f"{disk}: {error.strerror}", "guest.disk is a path, relative to the testcase's folder"
        ) from error


@contextlib.contextmanager
def door(folder: Path) -> Iterator[int]:
    """A descriptor of the folder in which QEMU makes the socket; it is to be inherited. By descriptor, since the path of a
    UNIX socket is at most 107 bytes long."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink("ssh", dir_fd=fd)
        os.close(fd)


def management_argv(machine: Literal["pc", "q35"], folder_fd: int) -> list[str]:
    """QEMU's options for the management NIC. `restrict`: the guest reaches nothing through it."""
    bus = ",bus=rp7" if machine == "q35" else ""
    return [
        *("-netdev", f"user,id={NETDEV},restrict=on,hostfwd=unix:/proc/self/fd/{folder_fd}/ssh-:22"),
        *("-device", f"virtio-net-pci,id={NIC},netdev={NETDEV},romfile={bus}"),
    ]


async def move_in(guest: Machine, login: Login, folder_fd: int, patience: float) -> None:
    """From a machine that was just started to one whose agent answers. Raises GuestSilent with the console's tail,
    GuestRefused with what the guest lacks."""
    ssh = await _connected(guest, login, folder_fd, patience)
    for script, what, remedy in NEEDS:
        if (await guest.alive(ssh.run(["sh", "-c", script], 60), 65, f"the guest's answer to {script!r}")).rc != 0:
            raise GuestRefused(what, remedy)
    await guest.alive(_bring(ssh), 300, "the stack's arrival in the guest")
    await _agent_answers(guest, ssh)
    (await guest.alive(ssh.run(["sync"], 60), 65, "the guest's sync")).checked()
    await ssh.close()
    await _without_management(guest)


async def _connected(guest: Machine, login: Login, folder_fd: int, patience: float) -> Ssh:
    """Try until its ssh server answers: before that the user network takes a connection and drops it."""
    from harness.testbed.channels.ssh import Ssh  # see doors.open_ssh

    end = time.monotonic() + patience
    while True:
        sock = socket.socket(socket.AF_UNIX)
        ssh = Ssh(sock, login)
        try:
            sock.connect(f"/proc/self/fd/{folder_fd}/ssh")
            await guest.alive(ssh.open(ATTEMPT), ATTEMPT + 5, "an ssh server's answer")
            return ssh
        except GuestSilent as silent:
            sock.close()
            if time.monotonic() > end:
                what = f"no ssh server answered within {patience:g} s: {silent.what}\n{guest.console.tail(25)}"
                raise GuestSilent(
                    what, "the image must boot by itself, take an address by DHCP and start sshd"
                ) from silent
            await asyncio.sleep(PAUSE)


async def _bring(ssh: Ssh) -> None:
    await ssh.run(["sh", "-c", PREPARE], 120)  # what fails in it is missed later, and named then
    await ssh.put(f"{HOME}/guest.tar", _archive(), within=120)
    (await ssh.run(["sh", "-c", START], 120)).checked()


def _archive() -> bytes:
    """The sources of guest/, the same bytes for the same sources."""
    packed = io.BytesIO()
    files: Mapping[str, bytes] = source_files(guest_sources())
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"guest/{path}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


async def _agent_answers(guest: Machine, ssh: Ssh) -> None:
    try:
        await guest.alive(guest.agent.ask("hello", within=120), 125, "the agent's first answer")
    except GuestSilent as silent:
        said = (await ssh.run(["tail", "-n", "20", LOG], 60)).out
        raise GuestSilent(
            f"{silent.what}; in the guest it said:\n{said}", "is another Python first in PATH?"
        ) from silent


async def _without_management(guest: Machine) -> None:
    await guest.qmp.execute("device_del", {"id": NIC})
    gone = "the end of the management NIC: does the guest's kernel unplug PCI devices (CONFIG_HOTPLUG_PCI_ACPI)?"
    await guest.qmp_event("DEVICE_DELETED", 60, gone, lambda data: data.get("device") == NIC)
    await guest.qmp.execute("netdev_del", {"id": NETDEV})
