"""What virtme-ng boots here: a root of Debian's packages, and an initramfs that gets a distribution's kernel to it.

In: a Kernel. Out: a folder to show as root, a file for QEMU's -initrd. Rule: nothing of the host's own file system is shown to a guest.

virtme-ng expects its own kernel configuration, with 9p and virtio built in; Debian has them as modules, so something must load them
before there is a root. The same hands over netpoll's modules, so the root needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.cpio import Entry, character_device, folder, regular, symlink, write_archive
from images.errors import BadKernel
from images.fetch import Builder
from images.kernel import Kernel
from images.modules import load_order, select
from images.recipes import VIRTME_ROOT
from images.rootfs import closure
from images.userland import ensure_userland

NEEDED = ("virtio_pci", "9p", "9pnet_virtio", "virtio_console", "overlay", "virtio_net", "netconsole", "configfs")
MOUNT_POINTS = ("dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "var/tmp")
BUSYBOX = "usr/bin/busybox"
INIT = """\
#!/usr/bin/busybox sh
b=/usr/bin/busybox
$b mount -t devtmpfs dev /dev
for m in {modules}; do $b insmod /m/$m || echo "insmod $m failed"; done
$b mount -t 9p -o ro,version=9p2000.L,trans=virtio,access=any,msize=524288 /dev/root /newroot
$b umount /dev
exec $b switch_root /newroot /bin/sh "$@"
"""


@dataclass(frozen=True)
class VirtmeRoot:
    """A root file system for `vng --root`."""

    tree: Path
    busybox: Path  # dynamic; runs in the tree


def ensure_virtme_root(builder: Builder) -> VirtmeRoot:
    """The root, fetched when it is not in the cache yet. Raises ImageError."""
    tree = builder.fetched(VIRTME_ROOT, _finish) / "tree"
    return VirtmeRoot(tree, tree / BUSYBOX)


def _finish(scratch: Path) -> Mapping[str, Any]:
    """What maintainer scripts and an installer would have made."""
    for name in MOUNT_POINTS:
        (scratch / "tree" / name).mkdir(parents=True, exist_ok=True)
    etc = scratch / "tree/etc"
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\ntty:x:5:\n")
    for name in ("fstab", "hosts", "resolv.conf", "sudoers", "shadow"):
        (etc / name).write_text("")
    return {}


def write_initramfs(path: Path, kernel: Kernel, builder: Builder) -> None:
    """Loads what the root's file system and netconsole need, then hands over to virtme-ng's init. Raises ImageError."""
    userland = ensure_userland(builder)
    chosen = select(kernel.modules, NEEDED, lambda data: userland.unpack("zstd", data))
    if chosen.missing:
        raise BadKernel(f"{kernel.name} has no {', '.join(chosen.missing)}", "virtme-ng's root is on 9p over virtio")
    modules = {Path(name).name: chosen.files[name] for name in load_order(chosen.files)}
    programs = closure(userland.tree, [BUSYBOX]) | {"usr/lib64/ld-linux-x86-64.so.2"}
    entries: dict[str, Entry] = {
        **{name: folder() for name in ("dev", "newroot", "proc", "sys")},
        **{name: symlink(f"usr/{name}") for name in ("bin", "lib", "lib64")},
        **{name: _entry(userland.tree / name) for name in programs},
        **{f"m/{name}": regular(content) for name, content in modules.items()},
        "dev/console": character_device(5, 1),
        "init": regular(INIT.format(modules=" ".join(modules)).encode(), 0o755),
    }
    with path.open("wb") as out:
        write_archive(out, entries)


def _entry(path: Path) -> Entry:
    return symlink(str(path.readlink())) if path.is_symlink() else regular(path, 0o755)
