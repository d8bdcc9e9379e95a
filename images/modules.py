"""Kernel modules: finding them in a tree, what they need, and which ones a guest gets.

In: a modules folder (`kernel/**/*.ko[.xz|.zst|.gz]`, modules.builtin). Out: module files by name, closed under
dependencies. Rule: names are the kernel's own: `-` and `_` are the same in a module's name (modprobe(8)).
"""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from images.elf import Elf, ElfError, modinfo
from images.errors import BadKernel

SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")

# What a guest may load. A name that a kernel lacks or has built in is left out, and the manifest says so.
NICS = "e1000 e1000e igb virtio_net vmxnet3 8139cp 8139too pcnet32 tulip ne2k-pci e100 tg3 usbnet cdc_ether rndis_host"
NETWORK = "bonding netconsole af_packet 8021q bridge veth tun dummy ifb macvlan pktgen netdevsim tls sch_netem act_mirred cls_u32"
VIRTIO = "virtio_pci virtio_console virtio_blk virtio_balloon virtio_rng virtio_mmio vmw_vsock_virtio_transport"
CRASH = "pvpanic pvpanic-pci pvpanic-mmio i6300esb ib700wdt softdog configfs qemu_fw_cfg efi-pstore ramoops"
USER_DRIVERS = "uio uio_pci_generic vfio vfio-pci vfio_iommu_type1 irqbypass"
BUSES = "xhci_pci shpchp"
GUEST_MODULES = tuple(" ".join((NICS, NETWORK, VIRTIO, CRASH, USER_DRIVERS, BUSES)).split())


@dataclass(frozen=True)
class Selection:
    """Module files a guest gets, by path below the modules folder; and the names that were wished but are not there."""

    files: Mapping[str, bytes]  # unpacked `.ko` content; the path ends in `.ko`
    built_in: tuple[str, ...]
    missing: tuple[str, ...]


def canonical(name: str) -> str:
    """`ne2k-pci` and `ne2k_pci` are one module."""
    return name.replace("-", "_")


def index(modules: Path) -> dict[str, Path]:
    """All module files of a tree by canonical name. Raises BadKernel when there are none."""
    found = {}
    for path in sorted((modules / "kernel").rglob("*.ko*")):
        stem, dot, _ = path.name.partition(".ko")
        if dot and path.name.endswith(SUFFIXES):
            found[canonical(stem)] = path
    if not found:
        raise BadKernel(
            f"{modules} holds no kernel modules",
            "give the folder that holds kernel/, as `make modules_install INSTALL_MOD_PATH=` leaves it in lib/modules/RELEASE",
        )
    return found


def built_in(modules: Path) -> frozenset[str]:
    """Canonical names of modules that are part of the kernel image (modules.builtin)."""
    listing = modules / "modules.builtin"
    lines = listing.read_text().split() if listing.is_file() else []
    return frozenset(canonical(Path(line).name.removesuffix(".ko")) for line in lines)


def select(modules: Path | None, names: Iterable[str], unzstd: Callable[[bytes], bytes]) -> Selection:
    """The modules of that name and all that they need; none when the kernel has no module folder.

    Raises BadKernel: a folder without modules, a damaged module.
    """
    wished = [canonical(name) for name in names]
    if modules is None:
        return Selection({}, (), tuple(sorted(set(wished))))
    available, inside = index(modules), built_in(modules)
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    queue = list(wished)
    while queue:
        name = queue.pop()
        if name in seen or name not in available:
            continue
        seen.add(name)
        path = available[name]
        content = read_module(path, unzstd)
        files[re.sub(r"\.ko\..*$", ".ko", str(path.relative_to(modules)))] = content
        queue += _needs(path, content)
    return Selection(
        files,
        tuple(sorted(name for name in set(wished) - set(available) if name in inside)),
        tuple(sorted(name for name in set(wished) - set(available) if name not in inside)),
    )


def load_order(files: Mapping[str, bytes], only: str | None = None) -> list[str]:
    """The paths of a Selection's files, each after those that it needs: the order for insmod(8). `only`: of one file and what it
    needs. Raises BadKernel."""
    names = {canonical(Path(path).stem): path for path in files}
    order: dict[str, None] = {}

    def visit(path: str, above: tuple[str, ...]) -> None:
        for name in _needs(Path(path), files[path]):
            if (needed := names.get(name)) is not None and needed not in above:
                visit(needed, (*above, path))
        order[path] = None

    for path in files if only is None else (only,):
        visit(path, (path,))
    return list(order)


def read_module(path: Path, unzstd: Callable[[bytes], bytes]) -> bytes:
    """A module's ELF content, unpacked. Raises BadKernel."""
    data = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
        return unzstd(data) if path.suffix == ".zst" else data
    except (lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise BadKernel(f"module {path} is damaged: {error}", "install the modules again") from error


def release_for(path: Path, unzstd: Callable[[bytes], bytes]) -> str:
    """The kernel release that a module was built for: the first word of its vermagic. Raises BadKernel."""
    magic = _modinfo(path, read_module(path, unzstd)).get("vermagic", [""])[0]
    return magic.split(" ", 1)[0]


def _needs(path: Path, content: bytes) -> list[str]:
    """Names in `depends` and in `softdep pre:/post:` of a module's .modinfo."""
    info = _modinfo(path, content)
    hard = [name for value in info.get("depends", []) for name in value.split(",") if name]
    soft = [name for value in info.get("softdep", []) for name in value.split() if not name.endswith(":")]
    return [canonical(name) for name in hard + soft]


def _modinfo(path: Path, content: bytes) -> dict[str, list[str]]:
    try:
        return modinfo(Elf(content))
    except ElfError as error:
        raise BadKernel(f"module {path} is damaged: {error}", "install the modules again") from error
