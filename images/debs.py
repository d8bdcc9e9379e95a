"""Unpacks .deb files into a tree, without dpkg's database and without maintainer scripts.

In: .deb files (verified by apt) and a choice of paths. Out: a folder. Rules: the tree is merged-/usr (what a package
puts under /bin, /sbin, /lib, /lib64 lands under /usr), all symlinks inside it are relative, so it runs from any place,
and nothing is written outside it. Owners and special mode bits are not kept: nobody needs them here.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from images.errors import FetchFailed
from images.process import guarded, tail

MERGED = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
Wanted = Callable[[str], bool]


def unpack(debs: Iterable[Path], into: Path, wanted: Wanted) -> None:
    """Unpacks all files whose merged path `wanted` accepts. Raises FetchFailed (not a .deb), OSError."""
    into.mkdir(parents=True, exist_ok=True)
    for name in MERGED[:4]:
        (into / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (into / name).is_symlink():
            (into / name).symlink_to(f"usr/{name}")
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for done in [pool.submit(_unpack_one, deb, into, wanted) for deb in debs]:
            done.result()


def _unpack_one(deb: Path, into: Path, wanted: Wanted) -> None:
    argv = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(guarded(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as unpacker:
        assert unpacker.stdout is not None
        assert unpacker.stderr is not None
        try:
            with tarfile.open(fileobj=unpacker.stdout, mode="r|") as tar:
                for member in tar:
                    _place(tar, member, into, wanted)
            problem = b""
        except tarfile.TarError as error:
            problem = str(error).encode()
        finally:
            unpacker.stdout.close()
        problem += unpacker.stderr.read()
    if unpacker.returncode:
        raise FetchFailed(f"{deb.name} cannot be unpacked:\n{tail(problem)}", "prune the cache and build again")


def merged(path: str) -> str:
    """A package's path as a merged-/usr system has it: `./bin/x` -> `usr/bin/x`. `..` never leads out."""
    clean = posixpath.normpath("/" + path).lstrip("/")
    head = clean.split("/", 1)[0]
    return f"usr/{clean}" if head in MERGED else clean


def relative_link(path: str, target: str) -> str:
    """The symlink target to write at merged(path) so that it leads where `target` at `path` leads in the package."""
    absolute = posixpath.join("/" + posixpath.dirname(posixpath.normpath(path)), target)
    return posixpath.relpath("/" + merged(absolute), "/" + posixpath.dirname(merged(path)))


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, wanted: Wanted) -> None:
    path = merged(member.name)
    if not wanted(path) or path in ("", *MERGED):
        return
    target = into / path
    if member.isdir():
        if not target.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(relative_link(member.name, member.linkname))
    elif member.islnk():
        os.link(into / merged(member.linkname), target)
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None
        with open(target, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        target.chmod(0o755 if member.mode & 0o111 else 0o644)
