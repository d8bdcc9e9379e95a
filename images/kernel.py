"""Kernels: Debian's, unpacked once on the host, and kernels of the user's own.

In: a name out of images.recipes.KERNELS, or files. Out: vmlinux (for QEMU's -kernel), bzImage (for kexec in the guest),
modules and configuration. Rule: a kernel's release is what its module folder is called and what `uname -r` will say.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.bzimage import Unpacker, has_pvh_entry, release_of, unpack_kernel
from images.errors import BadKernel, UnknownKernel
from images.fetch import Builder
from images.modules import index, release_for
from images.progress import stage
from images.recipes import KERNELS, Recipe
from images.store import manifest_of
from images.userland import ensure_userland

MODULES = "tree/usr/lib/modules"
# Where packages put a kernel's files: in /boot, or (newest) beside the modules. Below the tree; {} is the release.
PLACES = {
    "bzImage": ("boot/vmlinuz-{}", "usr/lib/modules/{}/vmlinuz"),
    "config": ("boot/config-{}", "usr/lib/modules/{}/config"),
    "System.map": ("boot/System.map-{}", "usr/lib/modules/{}/System.map"),
}
REAL_SYMBOLS = (
    64 << 10
)  # bytes; Debian ships a few words in place of System.map, and the symbols with the debug packages


@dataclass(frozen=True)
class Kernel:
    """A kernel that QEMU can boot."""

    name: str
    release: str  # as `uname -r` says
    vmlinux: Path  # ELF with a PVH entry
    bzimage: Path  # what was unpacked; for one's own kernel this may be a vmlinux too
    modules: Path | None  # folder that holds kernel/ and modules.builtin; None: everything is built in
    config: Path | None
    system_map: Path | None
    digest: str
    packages: Mapping[str, str]  # name -> version


def kernel_names() -> tuple[str, ...]:
    """The kernels that can be built by name."""
    return tuple(KERNELS)


def recipe_of(name: str) -> Recipe:
    """The recipe of a kernel. Raises UnknownKernel, which names those that exist."""
    if name in KERNELS:
        return KERNELS[name]
    close = difflib.get_close_matches(name, KERNELS, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UnknownKernel(f"no kernel is called {name!r}", f"{hint}known are {', '.join(KERNELS)}")


def ensure_kernel(name: str, builder: Builder) -> Kernel:
    """A kernel by name. Raises UnknownKernel, and ImageError when it cannot be built."""
    recipe = recipe_of(name)
    path = builder.fetched(recipe, lambda scratch: _finish(scratch, _tools(builder)))
    manifest = manifest_of(path)
    symbols = path / "System.map"
    return Kernel(
        name=name,
        release=manifest["release"],
        vmlinux=path / "vmlinux",
        bzimage=path / "bzImage",
        modules=path / MODULES / manifest["release"],
        config=path / "config",
        system_map=symbols if symbols.is_file() else None,
        digest=manifest["digest"],
        packages=manifest["packages"],
    )


def _tools(builder: Builder) -> Mapping[str, Unpacker]:
    """Unpackers that the standard library lacks; the userland they come from is fetched when first used."""

    def unpack(tool: str, packed: bytes) -> bytes:
        return ensure_userland(builder).unpack(tool, packed)

    return {tool: functools.partial(unpack, tool) for tool in ("zstd", "lz4")}


def _finish(scratch: Path, tools: Mapping[str, Unpacker]) -> Mapping[str, Any]:
    """The packages' files -> vmlinux, bzImage, config, System.map under fixed names, and modules."""
    releases = sorted(path.parent.name for path in (scratch / MODULES).glob("*/kernel"))
    if len(releases) != 1:
        raise BadKernel(f"the packages hold modules of {len(releases)} kernels {releases}", "the recipe does not fit")
    release = releases[0]
    for name, places in PLACES.items():
        for place in places:
            found = scratch / "tree" / place.format(release)
            if found.is_file() and not (name == "System.map" and found.stat().st_size < REAL_SYMBOLS):
                found.rename(scratch / name)
    for name in ("bzImage", "config"):
        if not (scratch / name).is_file():
            raise BadKernel(f"the packages of kernel {release} hold no {name}", "the recipe does not fit this suite")
    vmlinux = _bootable((scratch / "bzImage").read_bytes(), release, tools)
    (scratch / "vmlinux").write_bytes(vmlinux)
    return {"release": release}


def _bootable(image: bytes, name: str, tools: Mapping[str, Unpacker]) -> bytes:
    """The vmlinux of a boot image. Raises BadKernel when QEMU could not boot it."""
    vmlinux = unpack_kernel(image, tools)
    if not has_pvh_entry(vmlinux):
        raise BadKernel(
            f"kernel {name} has no PVH entry, so QEMU's -kernel cannot boot it", "build it with CONFIG_PVH=y"
        )
    return vmlinux


def kernel_at(image: Path, modules: Path | None, builder: Builder) -> Kernel:
    """A kernel of the user's own: a bzImage or vmlinux, and its modules.

    `modules` is the folder that holds kernel/, or one that `make modules_install INSTALL_MOD_PATH=` was given.
    Raises BadKernel (no kernel, no PVH entry, modules of another release), ImageError.
    """
    data = _read(image)
    release = release_of(data)
    tools = _tools(builder)
    folder = _module_folder(modules, release, tools) if modules else None
    digest = hashlib.sha256(data + repr(_listing(folder)).encode()).hexdigest()
    name = f"kernel-own-{digest[:16]}"
    with builder.store.lock("kernel-own"):
        path = builder.store.find(name)
        if path is None:
            with stage(builder.progress, f"unpack kernel {image.name}"):
                vmlinux = _bootable(data, str(image), tools)
            path = builder.store.build(lambda _: name, lambda scratch: _own(scratch, vmlinux, image, release, digest))
    config = next((place for place in _configs(image, folder, release) if place.is_file()), None)
    symbols = image.with_name("System.map")
    return Kernel(
        name=image.name,
        release=release,
        vmlinux=path / "vmlinux",
        bzimage=image.absolute(),
        modules=folder,
        config=config,
        system_map=symbols if symbols.is_file() else None,
        digest=digest,
        packages={},
    )


def _own(scratch: Path, vmlinux: bytes, image: Path, release: str, digest: str) -> Mapping[str, Any]:
    (scratch / "vmlinux").write_bytes(vmlinux)
    return {
        "kind": "kernel-own",
        "digest": digest,
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "size": len(vmlinux),
        "release": release,
        "from": str(image.absolute()),
        "packages": {},
    }


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise BadKernel(
            f"kernel {image} cannot be read: {error.strerror}", "give the path of a bzImage or vmlinux"
        ) from error


def _module_folder(modules: Path, release: str, tools: Mapping[str, Unpacker]) -> Path:
    """The folder with kernel/ in it, whichever level was named; its modules must be this kernel's, by vermagic."""
    places = [
        place
        for place in (modules, modules / release, modules / "lib/modules" / release)
        if (place / "kernel").is_dir()
    ]
    if not places:
        raise BadKernel(f"{modules} holds no modules of {release}", f"it should hold lib/modules/{release}/kernel")
    folder = places[0].absolute()
    some = next(iter(index(folder).values()))
    magic = release_for(some, tools["zstd"])
    if magic != release:
        raise BadKernel(
            f"the kernel is Linux {release}, but {some} was built for {magic}",
            "kernel and modules must come from one build",
        )
    return folder


def _listing(folder: Path | None) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a module folder's files: changes when the modules are installed anew."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    return [(str(path.relative_to(folder or path)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _configs(image: Path, folder: Path | None, release: str) -> list[Path]:
    """Where a configuration may lie: in a kernel tree (arch/x86/boot/bzImage), beside the image, with the modules."""
    trees = [parent for parent in image.absolute().parents[:4] if (parent / "Kbuild").is_file()]
    modules = [folder / "config", folder / "build/.config"] if folder else []
    beside = [image.with_name(f"config-{release}"), image.with_name("config")]
    return [*(tree / ".config" for tree in trees), *beside, *modules]
