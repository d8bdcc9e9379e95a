"""What a user can get wrong, at the command line and with the real parts: a clear word, the documented exit code, no traceback.

more guests than memory             test_capacity.py
Ctrl-C, SIGKILL                     test_killed.py
a disk that fills while QEMU saves  test_template.py; while images are fetched: images/tests/test_fetch.py
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import images
from harness.run import Bench, load
from harness.tests.traces import Ground, make_ground
from images.tests.test_bzimage import bzimage

pytestmark = pytest.mark.guest
OWN_MOUNTS = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
PVH_NOTE = b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0"  # XEN_ELFNOTE_PHYS32_ENTRY, with an address of 8 bytes
OTHER_NOTE = PVH_NOTE.replace(b"\x12", b"\x13", 1)


def harness(*arguments: str | Path, outer: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*outer, sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def case(bench: Bench, testcases: Path) -> Path:
    """A testcase whose images and template are there."""
    found = testcases / "send" / "datagrams-out.yaml"
    bench.prepare(load([found], bench.options)[0])
    return found


def without_pvh(kernel: images.Kernel, folder: Path) -> list[str | Path]:
    found = kernel.vmlinux.read_bytes()
    assert PVH_NOTE in found
    (folder / "vmlinux").write_bytes(found.replace(PVH_NOTE, OTHER_NOTE))
    return ["--kernel", folder / "vmlinux"]


def packed_another_way(kernel: images.Kernel, folder: Path) -> list[str | Path]:
    (folder / "bzImage").write_bytes(bzimage(b"PACKED9!" + bytes(500), release=kernel.release.encode()))
    return ["--kernel", folder / "bzImage"]


def others_modules(kernel: images.Kernel, folder: Path) -> list[str | Path]:
    """Real modules, in a folder that claims another version."""
    assert kernel.modules is not None
    home = folder / "lib" / "modules" / "6.1.0-99-other"
    home.parent.mkdir(parents=True)
    home.symlink_to(kernel.modules)
    return ["--kernel", kernel.vmlinux, "--modules", folder]


KERNELS: dict[str, tuple[Callable[[images.Kernel, Path], list[str | Path]], str]] = {
    "without PVH": (without_pvh, "CONFIG_PVH=y"),
    "packed in another way": (packed_another_way, "packed in an unknown way"),
    "with modules of another version": (others_modules, "holds no modules of"),
}


@pytest.mark.parametrize(("make", "word"), KERNELS.values(), ids=KERNELS.keys())
def test_a_kernel_that_does_not_fit_is_3_before_anything_is_started(
    bench: Bench, case: Path, tmp_path: Path, make: Callable[[images.Kernel, Path], list[str | Path]], word: str
) -> None:
    options = make(bench.kernel(images.DEFAULT_KERNEL), tmp_path)
    done = harness("run", case, "-k", "virtio", *options, "--results", tmp_path / "r")
    assert done.returncode == 3, done.stdout + done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("r/*"))


def test_two_nics_with_one_mac_are_2_with_the_place(tmp_path: Path, testcases: Path) -> None:
    good = (testcases / "send" / "datagrams-out.yaml").read_text()
    bad = tmp_path / "one-mac.yaml"
    nic, mac = '    n0: {model: "${nic}"}\n', "{model: virtio-net, mac: '52:54:00:00:00:07'}"
    assert nic in good
    bad.write_text(good.replace(nic, f"    n0: {mac}\n    n1: {mac}\n"))
    done = harness("run", bad, "--results", tmp_path / "r")
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{bad}:" in done.stderr
    assert "52:54:00:00:00:07" in done.stderr


def another_qemu(qemu: images.Qemu, folder: Path) -> Path:
    """The image's QEMU, but without vmxnet3: a real one that lacks a model, and of another digest."""
    program = next(word for word in qemu.argv if word.endswith("qemu-system-x86_64"))
    made = folder / "qemu-system-x86_64"
    made.write_bytes(Path(program).read_bytes().replace(b"vmxnet3\0", b"vmxnet9\0"))
    made.chmod(0o755)
    words = [str(made) if word == program else word for word in qemu.argv]
    script = folder / "qemu"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def ground(bench: Bench, case: Path, tmp_path: Path) -> Ground:
    del case
    return make_ground(tmp_path / "ground", bench.options.cache)


@pytest.mark.long
def test_another_qemu_gets_a_template_of_its_own_and_may_lack_a_model(
    bench: Bench, case: Path, ground: Ground, tmp_path: Path
) -> None:
    """The template of the QEMU before is there, and not used."""
    first = ground.run("run", case, "-k", "virtio", "--results", tmp_path / "1")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "booting" in first.stderr
    lacking = tmp_path / "vmxnet.yaml"
    lacking.write_text(case.read_text().replace("nic: [e1000, virtio-net]", "nic: [virtio-net, vmxnet3]"))
    qemu = another_qemu(bench.qemu(), tmp_path)
    second = ground.run("run", lacking, "--qemu", qemu, "--results", tmp_path / "2")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "booting" in second.stderr, "rebuilt, not used"
    assert len(list(ground.cache.glob("templates/*/template.json"))) == 2
    verdicts = [json.loads(path.read_text()) for path in sorted((tmp_path / "2").glob("*/verdict.json"))]
    assert [verdict["word"] for verdict in verdicts] == ["PASS", "INCONCLUSIVE"]
    assert "this QEMU has no vmxnet3" in verdicts[1]["why"]


FULL = {
    "the cache": ("NETPOLL_HARNESS_CACHE", "size=20m", "NETPOLL_HARNESS_CACHE"),
    "the results": ("RESULTS", "size=32k", "no space left on device for the case's evidence"),
}


@pytest.mark.parametrize(("which", "size", "word"), FULL.values(), ids=FULL.keys())
def test_a_full_disk_is_3_and_says_which(case: Path, ground: Ground, which: str, size: str, word: str) -> None:
    """On small file systems of the test's own."""
    ground.results.mkdir()
    templates = ground.cache / "templates"
    templates.mkdir()
    place = templates if which == "NETPOLL_HARNESS_CACHE" else ground.results
    run = f"exec {sys.executable} -m harness run {case} -k virtio --results {ground.results}"
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", f"mount -t tmpfs -o {size} none {place} && {run}"],
        env=ground.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert word in said
    assert "Traceback" not in said
    assert ground.wait_until_gone() == {}
    after = ground.run("run", case, "-k", "virtio", "--results", ground.results)
    assert after.returncode == 0, after.stdout + after.stderr
