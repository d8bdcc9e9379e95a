"""The QEMU that guests run in: fetched and run through its own C library, or one that the user names.

In: the recipe in images.recipes, or a path. Out: the words that start it. Rule: ask for the feature, not for the version.

A fetched QEMU looks for firmware and modules in `qemu-bundle` beside /proc/self/exe before it tries absolute paths
(qemu: util/cutils.c, get_relocated_path). Run through ld.so that is ld.so's own folder, so a symlink there to the root of
the tree makes it independent of any QEMU installed on the host.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import BadQemu
from images.fetch import Builder
from images.process import argv_in_tree, run, tail
from images.recipes import QEMU, QEMU_FEATURE
from images.store import manifest_of

LIB = "usr/lib/x86_64-linux-gnu"
PROBE_SECONDS = 30.0
VERSION_LINE = re.compile(r"QEMU emulator version (\S+)")


@dataclass(frozen=True)
class Qemu:
    """A QEMU that has been seen to run."""

    argv: tuple[str, ...]  # the words that run qemu-system-x86_64; append arguments
    version: str
    digest: str  # of the packages, or of the program named
    root: Path
    bios_dir: Path  # firmware and option ROMs
    img_argv: tuple[str, ...]  # the words that run qemu-img; empty when there is none
    vfio_user: bool  # has the device vfio-user-pci


def ensure_qemu(builder: Builder) -> Qemu:
    """The fetched QEMU. Raises ImageError."""
    path = builder.fetched(QEMU, _finish)
    manifest = manifest_of(path)
    return Qemu(
        argv=_argv(path, "qemu-system-x86_64"),
        version=manifest["version"],
        digest=manifest["digest"],
        root=path / "tree",
        bios_dir=path / "tree/usr/share/qemu",
        img_argv=_argv(path, "qemu-img"),
        vfio_user=True,
    )


def _argv(path: Path, program: str) -> tuple[str, ...]:
    return argv_in_tree(path / "tree" / LIB, path / "tree/usr/bin" / program)


def _finish(scratch: Path) -> Mapping[str, Any]:
    """Makes the tree self-contained and asks it for the feature that it was fetched for."""
    (scratch / "tree" / LIB / "qemu-bundle").symlink_to("../../..")
    argv = _argv(scratch, "qemu-system-x86_64")
    version = _version(argv)
    if not _has_device(argv, QEMU_FEATURE):
        raise BadQemu(
            f"QEMU {version} of {QEMU.release} has no {QEMU_FEATURE}",
            "the mirror is too old: name a newer one with --mirror URL, or use --qemu PATH",
        )
    return {"version": version}


def qemu_at(path: str | Path) -> Qemu:
    """A QEMU of the user's own: a file, or a command name. Raises BadQemu if it does not run."""
    found = shutil.which(path)
    if found is None:
        raise BadQemu(f"{path} is no program that can be run", "--qemu takes the path of a qemu-system-x86_64")
    program = Path(found).absolute()
    argv = (str(program),)
    version = _version(argv)
    stat = program.resolve().stat()
    seen = f"{version} {program.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    img = shutil.which("qemu-img", path=f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return Qemu(
        argv=argv,
        version=version,
        digest=hashlib.sha256(seen.encode()).hexdigest(),
        root=program.parent,
        bios_dir=_data_folder(argv, program),
        img_argv=(img,) if img else (),
        vfio_user=_has_device(argv, QEMU_FEATURE),
    )


def _ask(argv: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return run([*argv, *words], timeout=PROBE_SECONDS)
    except OSError as error:
        raise BadQemu(f"{argv[-1]} cannot be started: {error.strerror}", "is it built for this machine?") from error
    except subprocess.TimeoutExpired as error:
        raise BadQemu(
            f"`{' '.join([*argv, *words])}` gave no answer in {PROBE_SECONDS:.0f} s", "run it by hand"
        ) from error


def _version(argv: tuple[str, ...]) -> str:
    """What --version says; also holds that it can emulate a PC at all."""
    answer = _ask(argv, "--version")
    match = VERSION_LINE.search(answer.stdout.decode(errors="replace"))
    if answer.returncode or not match:
        said = tail(answer.stderr or answer.stdout)
        raise BadQemu(
            f"{argv[-1]} --version ended with {answer.returncode}:\n{said}", "it must be a qemu-system-x86_64"
        )
    machines = _ask(argv, "-machine", "help")
    if machines.returncode or not re.search(rb"(?m)^pc\b", machines.stdout):
        said = tail(machines.stderr or machines.stdout)
        raise BadQemu(f"{argv[-1]} has no machine `pc`; -machine help said:\n{said}", "name a qemu-system-x86_64")
    return match[1]


def _has_device(argv: tuple[str, ...], device: str) -> bool:
    return _ask(argv, "-device", f"{device},help").returncode == 0


def _data_folder(argv: tuple[str, ...], program: Path) -> Path:
    """The first folder that exists of those in which this QEMU looks for firmware."""
    for line in _ask(argv, "-L", "help").stdout.decode(errors="replace").splitlines():
        if line.startswith("/") and Path(line).is_dir():
            return Path(line)
    return program.parent
