"""A disk image that nobody of this project built for its own use: a small Debian that boots by GRUB from its MBR, mounts its
ext4 root, takes an address by DHCP and starts sshd. Made of Debian packages, without root.

In: the kernel, userland and modules of the image cache; GRUB and mke2fs fetched like them. Out: a raw image, a key pair to log in with,
and the host's public key. Rule: it knows nothing of us: no agent, no keys of our guest image, no address that we chose.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import images
from images.cpio import Entry, folder, regular, symlink, write_archive
from images.guest import depmod
from images.modules import select
from images.process import argv_in_tree
from images.recipes import Recipe
from images.rootfs import closure, module_entries, programs, settings
from images.userland import LIB, Userland, ensure_userland

TOOLS = Recipe(
    "own-disk", ("bookworm",), ("grub-pc-bin", "grub-common", "e2fsprogs"), drop=r"usr/share/(doc|man|locale)/"
)
SECTOR, FIRST, SIZE = 512, 2048, 400 << 20  # bytes; the partition's first sector; bytes of the whole disk
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "e1000"),
    *("ext4", "crc32c_generic", "af_packet", "netconsole", "configfs", "bonding", "pvpanic-pci"),
)
GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile", "echo")

GRUB_CFG = "linux /boot/vmlinuz root=/dev/vda1 {cmdline}\ninitrd /boot/initrd\nboot\n"
INITRD_INIT = """#!/usr/bin/sh
export PATH=/usr/sbin:/usr/bin
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t sysfs sysfs /sys
busybox mount -t proc proc /proc
modprobe -a virtio_pci virtio_blk crc32c_generic ext4
busybox mount -t ext4 /dev/vda1 /mnt
exec busybox switch_root /mnt /sbin/init
"""
INIT = """#!/usr/bin/sh
export PATH=/usr/sbin:/usr/bin HOME=/root
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t sysfs sysfs /sys
busybox mount -t proc proc /proc
busybox mkdir -p /dev/pts
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs tmpfs /run
busybox mkdir -p /run/sshd
modprobe virtio_net
ip link set lo up
for nic in /sys/class/net/eth*; do
    ip link set ${nic##*/} up
    busybox udhcpc -q -n -i ${nic##*/} -s /etc/udhcpc.sh
done
/usr/sbin/sshd
echo "somebody else's guest is up"
while :; do busybox sleep 1000; done
"""
UDHCPC = '#!/bin/sh\n[ "$1" = bound ] && ip addr add "$ip/$mask" dev "$interface"\nexit 0\n'


@dataclass(frozen=True)
class OwnDisk:
    path: Path
    key: Path
    host_key: Path


def build(place: Path, cmdline: str = "console=ttyS0,115200") -> OwnDisk:
    """Make the image below `place`. Raises ImageError; CalledProcessError when a tool failed."""
    builder = images.Builder()
    userland = ensure_userland(builder)
    for name in ("client_key", "host_key"):
        userland.tool("usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(place / name))
    kernel = images.ensure_kernel(images.DEFAULT_KERNEL, builder)
    modules = _modules(kernel, userland, place)
    boot = {
        "boot/vmlinuz": regular(kernel.bzimage),
        "boot/initrd": regular(_initrd(userland, modules)),
        "boot/grub.cfg": regular(GRUB_CFG.format(cmdline=cmdline).encode()),
    }
    _write(place / "root", {**settings(), **programs(userland), **modules, **_own(place), **boot})
    disk = place / "disk.raw"
    _partition(disk)
    tree = builder.fetched(TOOLS, lambda _scratch: {}) / "tree"
    offset = FIRST * SECTOR
    options = ["-q", "-F", "-t", "ext4", "-E", f"offset={offset}", "-d", str(place / "root")]
    _run(tree, "usr/sbin/mke2fs", *options, str(disk), f"{(SIZE - offset) >> 10}k")
    _boot_code(tree, disk, place)
    shutil.rmtree(place / "root")
    return OwnDisk(disk, place / "client_key", place / "host_key.pub")


def _modules(kernel: images.Kernel, userland: Userland, place: Path) -> dict[str, Entry]:
    assert kernel.modules is not None
    chosen = select(kernel.modules, MODULES, lambda packed: userland.unpack("zstd", packed))
    return module_entries(kernel.release, chosen, depmod(place / "depmod", kernel, chosen, userland))


def _initrd(userland: Userland, modules: Mapping[str, Entry]) -> bytes:
    """Enough to mount the root: busybox, modprobe, modules."""
    needed = ("usr/bin/busybox", "usr/bin/kmod", "usr/sbin/modprobe", "usr/bin/dash", "usr/bin/sh")
    files = {*needed, *closure(userland.tree, needed), "usr/lib64/ld-linux-x86-64.so.2"}
    entries = {path: _as_entry(userland.tree / path) for path in files}
    links = {path: symlink(target) for path, target in (("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"))}
    places = {path: folder() for path in ("dev", "mnt", "proc", "sys")}
    packed = io.BytesIO()
    write_archive(packed, {**entries, **links, **places, **modules, "init": regular(INITRD_INIT.encode(), 0o755)})
    return packed.getvalue()


def _as_entry(path: Path) -> Entry:
    return symlink(os.readlink(path)) if path.is_symlink() else regular(path, 0o755)


def _own(place: Path) -> dict[str, Entry]:
    return {
        "usr/sbin/init": regular(INIT.encode(), 0o755),
        "etc/udhcpc.sh": regular(UDHCPC.encode(), 0o755),
        "etc/ssh/ssh_host_ed25519_key": regular((place / "host_key").read_bytes(), 0o600),
        "root/.ssh/authorized_keys": regular((place / "client_key.pub").read_bytes(), 0o600),
    }


def _write(root: Path, entries: Mapping[str, Entry]) -> None:
    """The entries as files; device nodes are left to devtmpfs."""
    for path, entry in sorted(entries.items()):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(entry.mode):
            target.mkdir(exist_ok=True)
        elif stat.S_ISLNK(entry.mode):
            target.symlink_to(entry.data.decode() if isinstance(entry.data, bytes) else entry.data)
        elif stat.S_ISREG(entry.mode):
            target.write_bytes(entry.data if isinstance(entry.data, bytes) else entry.data.read_bytes())
            target.chmod(entry.mode & 0o7777)


def _partition(disk: Path) -> None:
    """An MBR with one active Linux partition (type 0x83) that takes the rest."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", FIRST, SIZE // SECTOR - FIRST)
    with disk.open("wb") as file:
        file.truncate(SIZE)
        file.seek(446)
        file.write(entry + bytes(48) + b"\x55\xaa")


def _boot_code(tree: Path, disk: Path, place: Path) -> None:
    """boot.img before the partition table, the core image from sector 1 on, where boot.img and diskboot.img look for it."""
    modules = tree / "usr/lib/grub/i386-pc"
    core = place / "core.img"
    early = place / "early.cfg"
    early.write_text("set root=(hd0,msdos1)\nset prefix=(hd0,msdos1)/boot\nnormal /boot/grub.cfg\n")
    options = ["-O", "i386-pc", "-d", str(modules), "-p", "(hd0,msdos1)/boot", "-c", str(early), "-o", str(core)]
    _run(tree, "usr/bin/grub-mkimage", *options, *GRUB_MODULES)
    boot = (modules / "boot.img").read_bytes()[:440]
    assert core.stat().st_size < (FIRST - 1) * SECTOR
    with disk.open("r+b") as file:
        file.write(boot)
        file.seek(SECTOR)
        file.write(core.read_bytes())


def _run(tree: Path, program: str, *words: str) -> None:
    path = tree / program if (tree / program).exists() else tree / program.removeprefix("usr/")
    done = subprocess.run([*argv_in_tree(tree / LIB, path), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program} {words}: {done.stderr}"
