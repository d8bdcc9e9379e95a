"""Kernels: Debian's, unpacked once on the host, and kernels of the user's own.

In: a name out of images.recipes.KERNELS, or files. Out: vmlinux (for QEMU's -kernel), bzImage (for kexec in the guest),
modules and configuration. Rule: what the kernel is called is what its module folder is called.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.bzimage import Unpacker, has_pvh_entry, unpack_kernel
from images.errors import BadKernel, UnknownKernel
from images.fetch import Builder
from images.recipes import KERNELS
from images.store import manifest_of
from images.userland import ensure_userland

REAL_SYMBOLS = (
    64 << 10
)  # bytes; Debian ships a few words in place of System.map, and the symbols with the debug packages


@dataclass(frozen=True)
class Kernel:
    """A kernel that QEMU can boot."""

    name: str
    release: str  # as `uname -r` says
    vmlinux: Path  # ELF with a PVH entry
    bzimage: Path
    modules: Path  # folder that holds kernel/ and modules.builtin
    config: Path
    system_map: Path | None
    digest: str
    packages: Mapping[str, str]  # name -> version


def kernel_names() -> tuple[str, ...]:
    """The kernels that can be built by name."""
    return tuple(KERNELS)


def ensure_kernel(name: str, builder: Builder) -> Kernel:
    """A kernel by name. Raises UnknownKernel, and ImageError when it cannot be built."""
    recipe = KERNELS.get(name)
    if recipe is None:
        close = difflib.get_close_matches(name, KERNELS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownKernel(f"no kernel is called {name!r}", f"{hint}known are {', '.join(KERNELS)}")
    path = builder.fetched(recipe, lambda scratch: _finish(scratch, _tools(builder)))
    manifest = manifest_of(path)
    symbols = path / "System.map"
    return Kernel(
        name=name,
        release=manifest["release"],
        vmlinux=path / "vmlinux",
        bzimage=path / "bzImage",
        modules=path / "tree/usr/lib/modules" / manifest["release"],
        config=path / "config",
        system_map=symbols if symbols.is_file() else None,
        digest=manifest["digest"],
        packages=manifest["packages"],
    )


def _tools(builder: Builder) -> Mapping[str, Unpacker]:
    """Unpackers that the standard library lacks; the userland they come from is fetched when first used."""

    def with_tool(name: str) -> Unpacker:
        return lambda packed: ensure_userland(builder).unpack(name, packed)

    return {"zstd": with_tool("zstd"), "lz4": with_tool("lz4")}


def _finish(scratch: Path, tools: Mapping[str, Unpacker]) -> Mapping[str, Any]:
    """boot/vmlinuz-RELEASE and its companions -> vmlinux, bzImage, config, System.map under fixed names."""
    boot = scratch / "tree/boot"
    bzimage = _only(boot, "vmlinuz-*")
    release = bzimage.name.removeprefix("vmlinuz-")
    vmlinux = unpack_kernel(bzimage.read_bytes(), tools)
    if not has_pvh_entry(vmlinux):
        raise BadKernel(f"kernel {release} has no PVH entry", "QEMU's -kernel needs CONFIG_PVH=y")
    if not (scratch / "tree/usr/lib/modules" / release / "kernel").is_dir():
        raise BadKernel(f"the packages of kernel {release} hold no modules for it", "its recipe lacks a package")
    (scratch / "vmlinux").write_bytes(vmlinux)
    bzimage.rename(scratch / "bzImage")
    _only(boot, f"config-{release}").rename(scratch / "config")
    symbols = boot / f"System.map-{release}"
    if symbols.is_file() and symbols.stat().st_size >= REAL_SYMBOLS:
        symbols.rename(scratch / "System.map")
    return {"release": release}


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise BadKernel(
            f"the kernel's packages hold {len(found)} files boot/{pattern}", "its recipe does not fit this suite"
        )
    return found[0]


def content_digest(paths: list[Path], read: Callable[[Path], bytes] = Path.read_bytes) -> str:
    """SHA-256 over the content of files, in order."""
    return hashlib.sha256(b"".join(hashlib.sha256(read(path)).digest() for path in paths)).hexdigest()
