"""npcrash.ko: our own kernel module that crashes a guest where user space cannot reach, built for one kernel.

In: a Kernel. Out: the path of a module that this kernel loads. Rule: built by the compiler and against the headers that belong to
exactly this kernel, fetched into a tree of their own and thrown away afterwards; what stays in the cache is the module. For a kernel of
the user's own it is its build tree and this host's compiler, or nothing: then the error says what is missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import BadKernel, ImageError
from images.fetch import Builder
from images.kernel import Kernel
from images.process import guarded, tail
from images.progress import stage
from images.recipes import KERNELS, headers
from images.store import manifest_of

NAME = "npcrash"
SOURCES = Path(__file__).parent / NAME
WORK = "usr/src/npcrash"
BUILD_SECONDS = 600.0
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# What becomes of the fetched tree: the device that shell scripts cannot do without, /proc for objtool, then make in it as its root. Runs
# in a mount namespace of its own (and as root of a user namespace where we are not root), so nothing of it is seen outside.
IN_TREE = (
    'mount --bind /dev/null "$0/dev/null" && mount --rbind /proc "$0/proc" && cd / && '
    'exec chroot "$0" /usr/bin/make -C "$1" M="/$2" CONFIG_DEBUG_INFO_BTF_MODULES= modules'
)


@dataclass(frozen=True)
class CrashModule:
    """A module file for `insmod`."""

    path: Path
    digest: str


def ensure_crash_module(kernel: Kernel, builder: Builder) -> CrashModule:
    """The module for a kernel. Raises ImageError where headers or compiler cannot be had, or the build fails."""
    digest = _digest(kernel)
    if kernel.name not in KERNELS:
        return _own(kernel, builder, digest)
    recipe = headers(kernel.name, kernel.release, source_digest()[:12])
    path = builder.fetched(recipe, functools.partial(_finish, kernel.release))
    return CrashModule(path / f"{NAME}.ko", manifest_of(path)["digest"])


def source_digest() -> str:
    """Of everything that is compiled."""
    files = sorted(path for path in SOURCES.iterdir() if path.is_file())
    return hashlib.sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in files)).hexdigest()


def _digest(kernel: Kernel) -> str:
    return hashlib.sha256(f"{kernel.digest} {source_digest()}".encode()).hexdigest()


def _finish(release: str, scratch: Path) -> Mapping[str, Any]:
    """The packages' files -> the module; nothing else is kept."""
    tree = scratch / "tree"
    _furnish(tree)
    shutil.copytree(SOURCES, tree / WORK)
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    build = f"/usr/lib/modules/{release}/build"
    _make(["unshare", *user, "--mount", "sh", "-c", IN_TREE, str(tree), build, WORK], release)
    shutil.move(tree / WORK / f"{NAME}.ko", scratch / f"{NAME}.ko")
    shutil.rmtree(tree)
    return {"release": release, "source": source_digest()}


def _furnish(tree: Path) -> None:
    """What packages leave to their maintainer scripts: awk, sh, and the device that everybody writes to."""
    for name, program in (("awk", "mawk"), ("sh", "dash")):
        if not os.path.lexists(tree / "usr/bin" / name):
            (tree / "usr/bin" / name).symlink_to(program)
    for folder in ("dev", "proc", "tmp"):
        (tree / folder).mkdir(exist_ok=True)
    (tree / "dev/null").touch()


def _make(argv: Sequence[str], release: str) -> None:
    environment = {"PATH": PATH, "LC_ALL": "C", "TMPDIR": "/tmp", "MAKEFLAGS": "-j2"}
    try:
        done = subprocess.run(
            guarded(argv),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{NAME}.ko cannot be built for {release}: {error}", "") from error
    if done.returncode:
        said = tail(done.stderr + done.stdout)
        raise ImageError(f"{NAME}.ko cannot be built for {release}:\n{said}", f"the command was {' '.join(argv)}")


def _own(kernel: Kernel, builder: Builder, digest: str) -> CrashModule:
    """For a kernel of the user's own: its modules' `build` folder, as `make modules_install` leaves it, and the host's compiler."""
    build = kernel.modules / "build" if kernel.modules else None
    if build is None or not (build / "Makefile").is_file():
        raise BadKernel(
            f"no headers of kernel {kernel.release}, so {NAME}.ko cannot be built",
            "`make modules_install` leaves a link `build` to the kernel's tree beside the modules; keep it",
        )
    if absent := [tool for tool in ("make", "gcc", "ld") if shutil.which(tool) is None]:
        raise ImageError(f"no {', '.join(absent)} on this host, so {NAME}.ko cannot be built for {kernel.release}")
    name = f"{NAME}-own-{digest[:16]}"
    with builder.store.lock(f"{NAME}-own"), stage(builder.progress, f"build {NAME} for {kernel.name}"):
        path = builder.store.find(name) or builder.store.build(
            lambda _: name, lambda scratch: _own_build(kernel, build, digest, scratch)
        )
    return CrashModule(path / f"{NAME}.ko", digest)


def _own_build(kernel: Kernel, build: Path, digest: str, scratch: Path) -> Mapping[str, Any]:
    shutil.copytree(SOURCES, scratch / "work")
    _make(["make", "-C", str(build.resolve()), f"M={scratch / 'work'}", "modules"], kernel.release)
    shutil.move(scratch / "work" / f"{NAME}.ko", scratch / f"{NAME}.ko")
    shutil.rmtree(scratch / "work")
    return {
        "kind": f"{NAME}-own",
        "digest": digest,
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "size": (scratch / f"{NAME}.ko").stat().st_size,
        "release": kernel.release,
        "packages": {},
    }
