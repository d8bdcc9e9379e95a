"""The guest's root: which files of the userland, which modules, which settings; as entries of a cpio archive.

In: an unpacked userland, a kernel's modules. Out: path -> Entry. Rule: what a program links to is found by reading it
(its ELF closure), never listed by hand; a library that cannot be found is an error here, not a surprise in the guest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from images.cpio import Entry, character_device, folder, regular, symlink
from images.elf import Elf, links
from images.errors import CacheUnusable
from images.modules import Selection
from images.userland import LIB, PYTHON_DROPPED, Userland

INIT = Path(__file__).parent / "init.sh"
GUEST_HOME = "opt/netpoll-harness"

# Programs of the guest, in order of preference over busybox's applets of the same name. `?` marks what may be absent.
PROGRAMS = (
    "usr/bin/busybox",
    "usr/bin/dash",
    "usr/bin/sh",
    "usr/bin/ip",
    "usr/sbin/ip",
    "usr/bin/ss",
    "usr/sbin/tc",
    "usr/sbin/bridge",
    "usr/sbin/ethtool",
    "usr/bin/kmod",
    "usr/bin/lsmod",
    "usr/sbin/depmod",
    "usr/sbin/insmod",
    "usr/sbin/lsmod",
    "usr/sbin/modinfo",
    "usr/sbin/modprobe",
    "usr/sbin/rmmod",
    "usr/bin/ssh-keygen",
    "usr/sbin/sshd",
    "usr/lib/openssh/sftp-server",
    "usr/sbin/qemu-ga",
)
# Opened by name at run time, so no ELF file says it: pthread_cancel(3) and a thread's exit need libgcc_s.
OPENED_LATE = ("libgcc_s.so.1",)
# Extension modules whose libraries would weigh more than anybody here uses them.
EXTENSIONS_DROPPED = (
    "_curses",
    "_dbm",
    "_gdbm",
    "_sqlite3",
    "_tkinter",
    "nis",
    "ossaudiodev",
    "readline",
    "_test",
    "_xx",
    "xx",
)
FOLDERS = [
    "dev",
    "etc",
    "home",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib64",
    "usr/sbin",
    "var/empty",
    "var/lib",
    "var/log",
    "var/tmp",
]
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run"}
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nsshd:*:19000::::::\nnobody:*:19000::::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
    "etc/hostname": "guest\n",
    "etc/profile": "export PATH=/usr/sbin:/usr/bin PYTHONPATH=/opt/netpoll-harness\n",
    # A bond that appears by itself with the module is in everybody's way.
    "etc/modprobe.d/netpoll.conf": "options bonding max_bonds=0\noptions dummy numdummies=0\noptions ifb numifbs=0\n",
    # e100 brings no 82551 up without microcode, which Debian may not ship; QEMU's 82551 takes no notice of what it says. This
    # has the form that e100_request_firmware() asks for: 134 words, and three offsets into them.
    "usr/lib/firmware/e100/d102e_ucode.bin": "\0" * (134 * 4 + 3),
    "etc/ssh/sshd_config": "Port 22\nHostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\n"
    "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\nUsePAM no\nStrictModes no\nPrintMotd no\n"
    "SetEnv PATH=/usr/sbin:/usr/bin PYTHONPATH=/opt/netpoll-harness\n"
    "Subsystem sftp /usr/lib/openssh/sftp-server\n",
}
SECRET = {"etc/shadow": 0o600}


def settings() -> dict[str, Entry]:
    """Folders, links, device nodes and configuration files that belong to no package, and /init."""
    entries = {path: folder() for path in FOLDERS}
    entries |= {"root": folder(0o700), "tmp": folder(0o1777), "var/tmp": folder(0o1777)}
    entries |= {path: symlink(target) for path, target in LINKS.items()}
    entries |= {path: regular(text.encode(), SECRET.get(path, 0o644)) for path, text in TEXTS.items()}
    entries |= {"dev/console": character_device(5, 1), "dev/null": character_device(1, 3, 0o666)}
    return {**entries, "init": regular(INIT, 0o755)}


def programs(userland: Userland) -> dict[str, Entry]:
    """Programs, Python with its library, and every library that one of them links to. Raises CacheUnusable."""
    tree = userland.tree
    python = ["usr/bin/python3", f"usr/bin/{userland.python}"]
    chosen = {path for path in [*PROGRAMS, *python] if os.path.lexists(tree / path)}
    absent = {*PROGRAMS, *python} - chosen
    if absent:
        raise CacheUnusable(f"the userland lacks {', '.join(sorted(absent))}", "its packages do not fit images.rootfs")
    chosen |= set(python_library(userland))
    chosen |= set(_below(tree, "etc/iproute2"))
    chosen |= closure(tree, chosen, OPENED_LATE)
    chosen |= {"usr/lib64/ld-linux-x86-64.so.2"}
    return {**{path: entry(tree / path) for path in chosen}, **_applets(userland, chosen)}


def python_library(userland: Userland) -> Iterable[str]:
    for path in _below(userland.tree, f"usr/lib/{userland.python}"):
        name = path.rsplit("/", 1)[1]
        extension = "/lib-dynload/" in path and name.startswith(EXTENSIONS_DROPPED)
        if not PYTHON_DROPPED.search("/" + path) and not extension:
            yield path


def _below(tree: Path, start: str) -> Iterable[str]:
    """Files and links below a folder of the tree, as paths of the tree."""
    for where, folders, files in os.walk(tree / start):
        links_to_folders = [name for name in folders if os.path.islink(os.path.join(where, name))]
        for name in files + links_to_folders:
            yield os.path.relpath(os.path.join(where, name), tree)


def entry(path: Path) -> Entry:
    if path.is_symlink():
        return symlink(os.readlink(path))
    return regular(path, 0o755 if path.stat().st_mode & 0o111 else 0o644)


def _applets(userland: Userland, chosen: set[str]) -> dict[str, Entry]:
    """Links for busybox's applets, except where a real program has that name."""
    taken = {path.rsplit("/", 1)[1] for path in chosen if path.startswith(("usr/bin/", "usr/sbin/"))}
    names = userland.tool("usr/bin/busybox", "--list").decode().split()
    return {f"usr/bin/{name}": symlink("busybox") for name in names if name not in taken}


def closure(tree: Path, files: Iterable[str], extra: Iterable[str] = ()) -> set[str]:
    """Paths of all libraries that ELF files among `files` need, with the links that lead to them. Raises CacheUnusable."""
    found: set[str] = set()
    queue = [*files, *(_library(tree, name, (), "a late open") for name in extra)]
    seen: set[str] = set()
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        found.add(path)
        if (tree / path).is_symlink():
            queue.append(_target(tree, path))
            continue
        for name, run_paths in _needed(tree / path):
            queue.append(_library(tree, name, run_paths, path))
    return found


def _needed(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    with open(path, "rb") as file:
        data = file.read(4)
        if data != b"\x7fELF":
            return []
        data += file.read()
    wanted = links(Elf(data))
    return [(name, wanted.run_paths) for name in wanted.needed]


def _library(tree: Path, name: str, run_paths: Iterable[str], user: str) -> str:
    """Where the dynamic linker finds a library, as a path of the tree (ld.so(8))."""
    for place in [*(path.lstrip("/") for path in run_paths), LIB, "usr/lib64", "usr/lib"]:
        if os.path.lexists(tree / place / name):
            return os.path.normpath(f"{place}/{name}")
    raise CacheUnusable(
        f"{user} needs {name}, which none of the userland's packages holds", "its recipe lacks a package"
    )


def _target(tree: Path, path: str) -> str:
    """What a symlink of the tree leads to, as a path of the tree."""
    target = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(tree / path)))
    if not os.path.lexists(tree / target):
        raise CacheUnusable(f"{path} leads to {target}, which is not there", "its recipe lacks a package")
    return target


def module_entries(release: str, selection: Selection, listings: Mapping[str, bytes]) -> dict[str, Entry]:
    """Modules and depmod's listings under usr/lib/modules/RELEASE."""
    base = f"usr/lib/modules/{release}"
    files = {**selection.files, **listings}
    return {f"{base}/{path}": regular(data) for path, data in files.items()}
