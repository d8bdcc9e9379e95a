"""The capture kernel's image: which modules need which, which files of Python's library stay, and that what a crash would start does start."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

import images
from images.capture import INITRD, LIBRARY_DROPPED, PROGRAM, ensure_capture, needs
from images.rootfs import GUEST_HOME
from images.tests.test_cpio import read_archive
from images.tests.test_modules import module

# What the capture kernel's process imports, and when a client needs it only late: after the panic is the wrong time to hear of a gap.
CLIENTS = re.compile(rf"{GUEST_HOME}/(guest/(capture|netpoll)/(?!(netpoll/)?(bench|tests)/).+)\.py$")
IMPORT = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(len(sys.argv) - 1)"


def test_each_module_has_a_line_with_what_must_be_loaded_before_it() -> None:
    files = {
        "kernel/net/net-failover.ko": module(depends="failover"),
        "kernel/net/failover.ko": module(depends=""),
        "kernel/drivers/virtio_net.ko": module(depends="failover,net_failover"),
    }
    assert needs(files).splitlines() == ["failover", "net_failover failover", "virtio_net failover net_failover"]


@pytest.mark.parametrize(
    ("path", "stays"),
    [
        ("usr/lib/python3.11/argparse.py", True),
        ("usr/lib/python3.11/logging/__init__.py", True),
        ("usr/lib/python3.11/urllib/parse.py", True),
        ("usr/lib/python3.11/encodings/utf_8.py", True),
        ("usr/lib/python3.11/encodings/__pycache__/idna.cpython-311.pyc", True),
        ("usr/lib/python3.11/encodings/cp1252.py", False),
        ("usr/lib/python3.11/encodings/__pycache__/cp1252.cpython-311.pyc", False),
        ("usr/lib/python3.11/asyncio/base_events.py", False),
        ("usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so", True),
        ("usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", False),
    ],
)
def test_what_no_client_imports_is_left_out(path: str, stays: bool) -> None:
    assert (LIBRARY_DROPPED.search("/" + path) is None) == stays


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initramfs of the capture kernel, as its first process finds it; device nodes left out."""
    builder = images.Builder()
    image = ensure_capture(images.ensure_kernel(images.DEFAULT_KERNEL, builder), builder)
    _, inner = read_archive(image.archive.read_bytes())[INITRD]
    there = tmp_path_factory.mktemp("capture")
    for path, (fields, data) in read_archive(inner).items():
        place = there / path
        if stat.S_ISDIR(fields["mode"]):
            place.mkdir(exist_ok=True)
        elif stat.S_ISLNK(fields["mode"]):
            place.symlink_to(data.decode())
        elif stat.S_ISREG(fields["mode"]):
            place.write_bytes(data)
            place.chmod(fields["mode"] & 0o777)
    return there


def inside(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run there, with nothing of the host's files in reach."""
    enter = ["chroot", str(root)] if os.geteuid() == 0 else ["unshare", "-r", "chroot", str(root)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"/{GUEST_HOME}"}
    return subprocess.run([*enter, *words], capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.mark.guest
def test_every_client_can_be_imported_in_the_capture_kernel_s_root(root: Path) -> None:
    paths = sorted(str(path.relative_to(root)) for path in (root / GUEST_HOME / "guest").rglob("*.py*"))
    names = dict.fromkeys(name for path in paths if (name := module_of(path)))
    assert {"guest.capture.peers", "guest.netpoll.tool.netdump", "guest.netpoll.drivers.pmd.tg3"} <= names.keys()
    done = inside(root, "/usr/bin/python3", "-S", "-P", "-c", IMPORT, *names)
    assert (done.returncode, done.stdout.strip()) == (0, str(len(names))), done.stderr


def module_of(path: str) -> str | None:
    """guest/netpoll/tool/netdump.py, or as it was compiled -> guest.netpoll.tool.netdump; None for what no client imports."""
    plain = re.sub(r"\.cpython-\d+\.pyc$|\.pyc$", ".py", path.replace("__pycache__/", ""))
    found = CLIENTS.match(plain)
    if found is None or plain.endswith("__main__.py"):
        return None
    return found[1].replace("/", ".").removesuffix(".__init__")


@pytest.mark.guest
def test_a_module_that_is_missing_would_be_named(root: Path) -> None:
    done = inside(root, "/usr/bin/python3", "-S", "-P", "-c", IMPORT, "asyncio")
    assert "No module named 'asyncio'" in done.stderr


@pytest.mark.guest
def test_makedumpfile_has_its_libraries_there(root: Path) -> None:
    done = inside(root, f"/{PROGRAM}", "-v")
    assert re.search(r"makedumpfile: version \d", done.stdout), done.stderr
    assert "lzo\tenabled" in done.stdout
