"""NFS as fetched: the client's modules of a kernel, and a server that runs in user space; only for comparing dumps with what people have.

In: the recipes in images.recipes. Out: a folder of modules; the words that run the server. Rule: a module of another release than the kernel's is
refused here, not by the kernel in the middle of a crash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import ImageError
from images.fetch import Builder
from images.kernel import MODULES, Kernel
from images.process import run, tail
from images.recipes import NFS_SERVER, nfs_modules
from images.store import manifest_of
from images.userland import LIB

PROGRAM = "usr/bin/ganesha.nfsd"
INSIDE = (
    "sunrpc",
    "lockd",
    "grace",
    "fscache",
    "netfs",
    "dns_resolver",
)  # what nfs and nfsv4 stand on; in the kernel's own tree
CONFIG = """\
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = 2049; Enable_NLM = false; Enable_RQUOTA = false; Plugins_Dir = {plugins}; }}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {folder}/recovery; UseGetpwnam = true; Only_Numeric_Owners = true; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{ Export_Id = 1; Path = {folder}/export; Pseudo = /dump; Protocols = 4; Transports = TCP; Access_Type = RW; Squash = No_Root_Squash;
    SecType = sys; FSAL {{ Name = VFS; }} }}
"""
INITIALIZED = "NFS SERVER INITIALIZED"  # nfs_start() in its log


@dataclass(frozen=True)
class NfsServer:
    """NFS-Ganesha, NFSv4 over TCP alone: neither rpcbind nor a kernel's nfsd is needed."""

    tree: Path
    version: str

    def argv(self, folder: Path) -> tuple[str, ...]:
        """Serve `folder`/export as /dump; the rest of what it writes goes to `folder`, too, its log to `folder`/log."""
        for name in ("export", "recovery"):
            (folder / name).mkdir()
        plugins = self.tree / LIB / "ganesha"
        (folder / "ganesha.conf").write_text(CONFIG.format(folder=folder, plugins=plugins))
        files = ("-f", str(folder / "ganesha.conf"), "-L", str(folder / "log"), "-p", str(folder / "pid"))
        return (*_argv(self.tree), "-F", *files)


def ensure_nfs_server(builder: Builder) -> NfsServer:
    """The server, fetched when it is not in the cache yet. Raises ImageError."""
    path = builder.fetched(NFS_SERVER, _finish)
    return NfsServer(path / "tree", manifest_of(path)["version"])


def _argv(tree: Path) -> tuple[str, ...]:
    libraries = f"{tree / LIB}:{tree / 'usr/lib/ganesha'}"
    return (
        str(tree / LIB / "ld-linux-x86-64.so.2"),
        "--inhibit-cache",
        "--library-path",
        libraries,
        str(tree / PROGRAM),
    )


def _finish(scratch: Path) -> Mapping[str, Any]:
    """Runs it once: what does not run is no server."""
    done = run([*_argv(scratch / "tree"), "-v"])
    match = re.search(rb"Ganesha.*?V?(\d[\d.]+)", done.stdout)
    if match is None:
        raise ImageError(f"ganesha.nfsd ended with {done.returncode}:\n{tail(done.stderr or done.stdout)}")
    return {"version": match[1].decode()}


def ensure_nfs_modules(kernel: Kernel, builder: Builder) -> Path:
    """The folder that holds nfs and nfsv4 for that kernel. Raises ImageError, also where the mirror has another release by now."""
    path = builder.fetched(nfs_modules(kernel.name), lambda _: {})
    folder = path / "tree" / MODULES.removeprefix("tree/") / kernel.release
    if not (folder / "kernel/fs/nfs").is_dir():
        there = sorted(each.name for each in folder.parent.glob("*"))
        raise ImageError(
            f"NFS's modules are of {there}, the kernel is {kernel.release}",
            "`netpoll-harness images build --update` fetches the kernel anew",
        )
    return folder
