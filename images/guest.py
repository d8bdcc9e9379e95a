"""The guest image: userland + modules of one kernel + our guest/ sources -> one initramfs.

In: a Kernel and the files of guest/. Out: a raw cpio. Rule: two layers. The base (userland, modules, settings) is made
once; the sources are a small archive appended to it, so an edited source costs a copy and no more. The kernel unpacks
both in order (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.catalogue import trim
from images.cpio import Entry, regular, write_archive
from images.errors import ImageError
from images.fetch import Builder
from images.kernel import Kernel
from images.modules import GUEST_MODULES, Selection, select
from images.progress import stage
from images.rootfs import GUEST_HOME, module_entries, programs, settings
from images.store import manifest_of
from images.userland import Userland, ensure_userland

# What the base is made by: an edit of one of these makes another base.
MAKERS = ("cpio.py", "elf.py", "guest.py", "init.sh", "modules.py", "rootfs.py", "userland.py")
READY_LINE = "netpoll-init: up after"  # begins what /init prints on the console when the agent is about to start
COPY = 1 << 24  # bytes


@dataclass(frozen=True)
class GuestImage:
    """An initramfs for one kernel, and the keys to it."""

    initrd: Path
    digest: str
    packages: Mapping[str, str]  # name -> version, of the userland
    modules: tuple[str, ...]  # paths below lib/modules/RELEASE
    host_key: Path  # public key of the guest's ssh server
    client_key: Path  # private key that may log in as root


def ensure_guest(kernel: Kernel, builder: Builder, sources: Path | None = None) -> GuestImage:
    """The guest image for a kernel with the sources of guest/ as they are now. Raises ImageError."""
    userland = ensure_userland(builder)
    files = source_files(sources or guest_sources())
    base = _ensure_base(kernel, userland, builder)
    base_manifest = manifest_of(base)
    digest = _sha256(base_manifest["digest"], *(f"{path} {_sha256(data)}" for path, data in sorted(files.items())))
    name = f"guest-{digest[:16]}"
    path = builder.store.find(name)
    if path is None:
        with builder.store.lock(f"guest-{kernel.name}"):
            path = builder.store.find(name) or builder.store.build(
                lambda _: name, lambda scratch: _append(scratch, base, files, userland, kernel, digest, builder)
            )
        trim(builder.store)
    return GuestImage(
        initrd=path / "initrd",
        digest=digest,
        packages=userland.packages,
        modules=tuple(base_manifest["modules"]),
        host_key=base / "ssh_host_ed25519_key.pub",
        client_key=base / "client_key",
    )


def guest_sources() -> Path:
    """The folder of the installed package `guest`, found without importing it."""
    spec = importlib.util.find_spec("guest")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise ImageError("the package `guest` is not installed beside `images`", "install netpoll-harness again")
    return Path(places[0])


def source_files(folder: Path) -> dict[str, bytes]:
    """Content of what is shipped, by path below `folder`: all but tests, caches and hidden files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        left_out = any(part in ("tests", "__pycache__") or part.startswith(".") for part in parts)
        if not left_out and path.is_file():
            found["/".join(parts)] = path.read_bytes()
    return found


def _ensure_base(kernel: Kernel, userland: Userland, builder: Builder) -> Path:
    here = Path(__file__).parent
    makers = [_sha256((here / name).read_bytes()) for name in MAKERS]
    digest = _sha256("base", kernel.digest, userland.digest, *makers)
    name = f"base-{digest[:16]}"
    with builder.store.lock(f"base-{kernel.name}"):
        return builder.store.find(name) or builder.store.build(
            lambda _: name, lambda scratch: _make_base(scratch, kernel, userland, digest, builder)
        )


def _make_base(scratch: Path, kernel: Kernel, userland: Userland, digest: str, builder: Builder) -> Mapping[str, Any]:
    with stage(builder.progress, f"guest base for {kernel.name}") as running:
        chosen = select(kernel.modules, GUEST_MODULES, lambda packed: userland.unpack("zstd", packed))
        listings = depmod(scratch / "depmod", kernel, chosen, userland)
        entries = {**programs(userland), **settings(), **_keys(scratch, userland)}
        entries |= module_entries(kernel.release, chosen, listings)
        with open(scratch / "base.cpio", "wb") as out:
            size = write_archive(out, entries)
        running.result(size)
    return {
        "kind": "base",
        "digest": digest,
        "built": now(),
        "size": size,
        "kernel": {"name": kernel.name, "release": kernel.release, "digest": kernel.digest},
        "packages": dict(userland.packages),
        "modules": sorted(chosen.files),
        "modules_built_in": chosen.built_in,
        "modules_missing": chosen.missing,
    }


def depmod(root: Path, kernel: Kernel, chosen: Selection, userland: Userland) -> dict[str, bytes]:
    """modules.dep and the other listings that modprobe needs, made for exactly the chosen modules by depmod(8)."""
    folder = root / "lib/modules" / kernel.release
    folder.mkdir(parents=True)
    for path, data in chosen.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if kernel.modules and (kernel.modules / name).is_file():
            shutil.copyfile(kernel.modules / name, folder / name)
    userland.tool("usr/bin/kmod", "-b", str(root), kernel.release, name="depmod")
    listings = {path.name: path.read_bytes() for path in folder.glob("modules.*")}
    shutil.rmtree(root)
    return listings


def _keys(scratch: Path, userland: Userland) -> dict[str, Entry]:
    """An ssh host key and a client key of this image's own; the private host key is in the image, the client's outside."""
    for name in ("ssh_host_ed25519_key", "client_key"):
        words = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(scratch / name)]
        userland.tool("usr/bin/ssh-keygen", *words)
    entries = {
        "etc/ssh/ssh_host_ed25519_key": regular((scratch / "ssh_host_ed25519_key").read_bytes(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": regular((scratch / "ssh_host_ed25519_key.pub").read_bytes()),
        "root/.ssh/authorized_keys": regular((scratch / "client_key.pub").read_bytes(), 0o600),
    }
    (scratch / "ssh_host_ed25519_key").unlink()
    return entries


def _append(
    scratch: Path,
    base: Path,
    files: Mapping[str, bytes],
    userland: Userland,
    kernel: Kernel,
    digest: str,
    builder: Builder,
) -> Mapping[str, Any]:
    with stage(builder.progress, f"guest image for {kernel.name}") as running:
        small = io.BytesIO()
        write_archive(
            small,
            {
                f"{GUEST_HOME}/guest/{path}": regular(data)
                for path, data in compiled(files, userland, scratch / "sources").items()
            },
        )
        with open(scratch / "initrd", "wb") as out, open(base / "base.cpio", "rb") as big:
            shutil.copyfileobj(big, out, COPY)
            out.write(small.getvalue())
            size = out.tell()
        running.result(size)
    return {
        "kind": "guest",
        "digest": digest,
        "built": now(),
        "size": size,
        "base": base.name,
        "kernel": {"name": kernel.name, "release": kernel.release},
        "packages": dict(userland.packages),
        "sources": {path: _sha256(data) for path, data in files.items()},
    }


def compiled(files: Mapping[str, bytes], userland: Userland, folder: Path) -> dict[str, bytes]:
    """The sources together with their .pyc, so that no guest spends its first second on compiling.

    `folder` is worked in and removed. Raises ImageError for a source with a syntax error.
    """
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    userland.compile(folder, f"/{GUEST_HOME}/guest")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shutil.rmtree(folder)
    return found


def _sha256(*parts: str | bytes) -> str:
    joined = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(joined).hexdigest()


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
