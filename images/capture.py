"""What a guest with a crash kernel carries: an unpacked kernel to kexec, and the small initramfs that runs in it.

In: a Kernel and the files of guest/. Out: one archive with both below /boot, to be appended to the guest's own; and makedumpfile for the host. Rule: as
little as can be, since each megabyte is unpacked between the panic and the first packet: no shell, no programs but Python and makedumpfile, of
the modules the NICs' and what they need.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from images.catalogue import trim
from images.cpio import Entry, character_device, folder, regular, symlink, write_archive
from images.errors import ImageError
from images.fetch import Builder
from images.guest import compiled, guest_sources, now, source_files
from images.kernel import Kernel
from images.modules import NICS, canonical, load_order, select
from images.nfs import INSIDE, ensure_nfs_modules
from images.process import argv_in_tree, run, tail
from images.progress import stage
from images.recipes import MAKEDUMPFILE
from images.rootfs import GUEST_HOME, OPENED_LATE, TEXTS, closure, entry, python_library
from images.store import manifest_of
from images.userland import LIB, Userland, ensure_userland

MAKERS = ("capture.py", "cpio.py", "elf.py", "guest.py", "modules.py", "nfs.py", "rootfs.py", "userland.py")
MODULES = (*NICS.split(), "virtio_pci", "af_packet", "bonding", "uio_pci_generic")
PROGRAM = "usr/bin/makedumpfile"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
KERNEL, INITRD = "boot/vmlinux", "boot/capture.cpio"
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "usr/lib64")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
# Of Python's library what a client of netpoll never imports; the guest's own root has more.
LIBRARY_DROPPED = re.compile(
    r"/(asyncio|concurrent|email|http|multiprocessing|xml|xmlrpc|zoneinfo|venv|tomllib|wsgiref)/"
    r"|/encodings/(?!__init__|__pycache__/(__init__|aliases|utf_8|latin_1|ascii|idna)\.|aliases|utf_8|latin_1|ascii|idna)"
    r"|/lib-dynload/(_codecs_|_ssl|_decimal|_asyncio|_hashlib|_multi|audioop|_lsprof|_elementtree|_zoneinfo|_dbm|_xx)"
)

Other = Literal["ssh", "nfs"]


@dataclass(frozen=True)
class CaptureImage:
    """`archive`: for the guest, after its own initramfs. `modules`: names of those that the capture kernel has."""

    archive: Path
    digest: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class DumpTool:
    """makedumpfile as fetched; runs on the host with its own C library."""

    tree: Path
    version: str

    @property
    def lzo(self) -> Path:
        """The library that unpacks what it packed."""
        return self.tree / LIB / "liblzo2.so.2"

    def argv(self) -> tuple[str, ...]:
        """The words that run it; append arguments."""
        return _argv(self.tree)


def ensure_makedumpfile(builder: Builder) -> DumpTool:
    """makedumpfile, fetched when it is not in the cache yet. Raises ImageError."""
    path = builder.fetched(MAKEDUMPFILE, _finish)
    return DumpTool(path / "tree", manifest_of(path)["version"])


def _argv(tree: Path) -> tuple[str, ...]:
    return argv_in_tree(tree / LIB, tree / PROGRAM)


def _finish(scratch: Path) -> Mapping[str, Any]:
    """Runs it once: what does not run is no tool."""
    done = run([*_argv(scratch / "tree"), "-v"])
    match = re.search(rb"version (\d[\d.]+)", done.stdout)
    if match is None:
        raise ImageError(f"makedumpfile ended with {done.returncode}:\n{tail(done.stderr or done.stdout)}")
    return {"version": match[1].decode()}


def ensure_capture(
    kernel: Kernel, builder: Builder, sources: Path | None = None, *, other: Other | None = None
) -> CaptureImage:
    """The archive for a kernel with the sources of guest/ as they are now. `other`: with what others dump through, to compare
    with; one of them: an archive with both was too large for a guest of 768 MiB (kexec_load: "Bad address"). Raises ImageError."""
    userland, tool = ensure_userland(builder), ensure_makedumpfile(builder)
    files = source_files(sources or guest_sources())
    here = Path(__file__).parent
    words = [kernel.digest, userland.digest, tool.tree.parent.name]
    nfs = ensure_nfs_modules(kernel, builder) if other == "nfs" else None
    words += [other] if other else []
    words += [nfs.parents[4].name] if nfs else []
    words += [_sha256((here / name).read_bytes()) for name in MAKERS]
    digest = _sha256("\n".join(words + [f"{path} {_sha256(data)}" for path, data in sorted(files.items())]).encode())
    name = f"capture-{digest[:16]}"
    path = builder.store.find(name)
    if path is None:
        with builder.store.lock(f"capture-{kernel.name}"):
            path = builder.store.find(name) or builder.store.build(
                lambda _: name,
                lambda scratch: _make(scratch, kernel, userland, tool, files, digest, builder, other, nfs),
            )
        trim(builder.store)
    return CaptureImage(path / "archive", digest, tuple(manifest_of(path)["modules"]))


def _make(
    scratch: Path,
    kernel: Kernel,
    userland: Userland,
    tool: DumpTool,
    files: Mapping[str, bytes],
    digest: str,
    builder: Builder,
    other: Other | None,
    nfs: Path | None,
) -> Mapping[str, Any]:
    with stage(builder.progress, f"capture image for {kernel.name}") as running:
        modules = _modules(kernel, nfs, lambda packed: userland.unpack("zstd", packed))
        ours = compiled(files, userland, scratch / "sources")
        small = io.BytesIO()
        write_archive(
            small,
            {
                **_root(userland, tool, other == "ssh"),
                **{f"modules/{canonical(Path(path).stem)}.ko": regular(data) for path, data in modules.items()},
                "modules/needs": regular(needs(modules).encode()),
                **{f"{GUEST_HOME}/guest/{path}": regular(data) for path, data in ours.items()},
            },
        )
        with open(scratch / "archive", "wb") as out:
            size = write_archive(out, {KERNEL: regular(kernel.vmlinux), INITRD: regular(small.getvalue())})
        running.result(size)
    return {
        "kind": "capture",
        "digest": digest,
        "built": now(),
        "size": size,
        "kernel": {"name": kernel.name, "release": kernel.release, "digest": kernel.digest},
        "packages": dict(userland.packages),
        "modules": sorted(canonical(Path(path).stem) for path in modules),
    }


def _modules(kernel: Kernel, nfs: Path | None, unzstd: Callable[[bytes], bytes]) -> Mapping[str, bytes]:
    """Unpacked, by path. Raises BadKernel."""
    if nfs is None:
        return select(kernel.modules, MODULES, unzstd).files
    base = select(kernel.modules, (*MODULES, *INSIDE), unzstd).files
    return {**base, **select(nfs, ("nfs", "nfsv4"), unzstd).files}


def needs(files: Mapping[str, bytes]) -> str:
    """A line for each module: its name, then what must be loaded before it, in order."""
    lines = []
    for path in files:
        before = [name for name in load_order(files, path) if name != path]
        lines.append(" ".join(canonical(Path(name).stem) for name in (path, *before)))
    return "\n".join(sorted(lines)) + "\n"


def _root(userland: Userland, tool: DumpTool, ssh: bool) -> dict[str, Entry]:
    programs = {"usr/bin/python3", f"usr/bin/{userland.python}", *(("usr/bin/ssh",) if ssh else ())}
    chosen = programs | set(_library(python_library(userland)))
    chosen |= closure(userland.tree, chosen, OPENED_LATE)
    dumper = closure(tool.tree, [PROGRAM])
    return {
        **{path: folder() for path in FOLDERS},
        **{path: symlink(target) for path, target in LINKS.items()},
        "dev/console": character_device(5, 1),
        **(
            {path: regular(TEXTS[path].encode()) for path in ("etc/passwd", "etc/group", "etc/nsswitch.conf")}
            if ssh
            else {}
        ),
        "dev/null": character_device(1, 3, 0o666),
        **{path: entry(userland.tree / path) for path in chosen},
        # The newer C library of the two serves both.
        **{path: entry(tool.tree / path) for path in (*dumper, LOADER)},
    }


def _library(paths: Iterable[str]) -> Iterable[str]:
    return (path for path in paths if not LIBRARY_DROPPED.search("/" + path))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
