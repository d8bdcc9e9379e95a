"""Kernels of one's own, and names of kernels: what is accepted, what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.errors import BadKernel, UnknownKernel
from images.fetch import Builder
from images.kernel import PLACES, _finish, ensure_kernel, kernel_at, kernel_names
from images.store import Store
from images.tests.test_bzimage import KERNEL, PACKED, bzimage, elf
from images.tests.test_modules import module

RELEASE = "6.1.0-50-amd64"
IMAGE = bzimage(PACKED["xz"], release=RELEASE.encode() + b" (who@where)")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(Store(tmp_path / "cache"), mirror="http://127.0.0.1:9/debian")


def modules_in(folder: Path, release: str = RELEASE) -> Path:
    (folder / "kernel").mkdir(parents=True)
    (folder / "kernel/toy.ko").write_bytes(module(vermagic=f"{release} SMP mod_unload", depends=""))
    return folder


@pytest.mark.parametrize("content", [IMAGE, KERNEL], ids=["bzImage", "vmlinux"])
def test_a_kernel_file_alone(content: bytes, tmp_path: Path, builder: Builder) -> None:
    (tmp_path / "image").write_bytes(content)
    kernel = kernel_at(tmp_path / "image", None, builder)
    assert (kernel.release, kernel.modules, kernel.config) == (RELEASE, None, None)
    assert kernel.vmlinux.read_bytes() == KERNEL
    assert kernel_at(tmp_path / "image", None, builder) == kernel


@pytest.mark.parametrize("below", ["", RELEASE, f"lib/modules/{RELEASE}"])
def test_modules_are_found_at_whatever_level_is_named(below: str, tmp_path: Path, builder: Builder) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    folder = modules_in(tmp_path / "installed" / below)
    assert kernel_at(tmp_path / "image", tmp_path / "installed", builder).modules == folder


def test_other_modules_make_another_kernel(tmp_path: Path, builder: Builder) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    folder = modules_in(tmp_path / "modules")
    first = kernel_at(tmp_path / "image", folder, builder)
    (folder / "kernel/more.ko").write_bytes(module(vermagic=RELEASE))
    assert kernel_at(tmp_path / "image", folder, builder).digest != first.digest


def test_the_configuration_is_found_in_a_kernel_tree_or_beside_the_image(tmp_path: Path, builder: Builder) -> None:
    tree = tmp_path / "linux"
    (tree / "arch/x86/boot").mkdir(parents=True)
    (tree / "arch/x86/boot/bzImage").write_bytes(IMAGE)
    (tree / "Kbuild").write_text("")
    (tree / ".config").write_text("CONFIG_PVH=y\n")
    assert kernel_at(tree / "arch/x86/boot/bzImage", None, builder).config == tree / ".config"
    (tmp_path / "image").write_bytes(IMAGE)
    (tmp_path / f"config-{RELEASE}").write_text("CONFIG_PVH=y\n")
    assert kernel_at(tmp_path / "image", None, builder).config == tmp_path / f"config-{RELEASE}"


BAD_FILES = {
    "no kernel": (b"text", "neither a bzImage nor a vmlinux"),
    "cut off": (IMAGE[: len(IMAGE) // 2], "cut off"),
    "no PVH": (elf(b"", b"Linux version 6.1.0 "), "has no PVH entry.*CONFIG_PVH"),
}


@pytest.mark.parametrize(("content", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_cannot_be_booted_is_said(content: bytes, said: str, tmp_path: Path, builder: Builder) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(BadKernel, match=f"(?s){said}"):
        kernel_at(tmp_path / "image", None, builder)
    assert builder.store.objects() == []


def test_a_path_that_is_no_file_is_said(tmp_path: Path, builder: Builder) -> None:
    with pytest.raises(BadKernel, match=r"absent cannot be read: No such file"):
        kernel_at(tmp_path / "absent", None, builder)
    with pytest.raises(BadKernel, match="Is a directory"):
        kernel_at(tmp_path, None, builder)


def test_modules_of_another_kernel_are_said(tmp_path: Path, builder: Builder) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    folder = modules_in(tmp_path / "lib/modules" / RELEASE, release="6.1.0-49-amd64")
    with pytest.raises(BadKernel, match=r"is Linux 6\.1\.0-50-amd64, but .*toy\.ko was built for 6\.1\.0-49-amd64"):
        kernel_at(tmp_path / "image", folder, builder)
    with pytest.raises(BadKernel, match=f"holds no modules of {RELEASE}"):
        kernel_at(tmp_path / "image", tmp_path / "cache", builder)


def test_an_unknown_name_is_said_with_the_known_ones(builder: Builder) -> None:
    with pytest.raises(
        UnknownKernel, match=r"(?s)'debian-6\.2'.*did you mean debian-6\.1.*debian-5\.10, debian-6\.1, debian-6\.12"
    ):
        ensure_kernel("debian-6.2", builder)
    with pytest.raises(UnknownKernel, match="known are"):
        ensure_kernel("", builder)
    assert "debian-6.1" in kernel_names()


def lay_out(scratch: Path, layout: int) -> None:
    """A package's tree with its files in the older (0) or newer (1) places."""
    modules_in(scratch / "tree/usr/lib/modules" / RELEASE)
    contents = {
        "bzImage": IMAGE,
        "config": b"CONFIG_PVH=y\n",
        "System.map": b"ffffffff B debian symbols are elsewhere\n",
    }
    for name, places in PLACES.items():
        path = scratch / "tree" / places[layout].format(RELEASE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[name])


@pytest.mark.parametrize("layout", [0, 1], ids=["boot", "beside the modules"])
def test_both_layouts_of_debian_packages(layout: int, tmp_path: Path) -> None:
    lay_out(tmp_path, layout)
    assert _finish(tmp_path, {}) == {"release": RELEASE}
    assert (tmp_path / "vmlinux").read_bytes() == KERNEL
    assert (tmp_path / "bzImage").read_bytes() == IMAGE
    assert (tmp_path / "config").read_bytes() == b"CONFIG_PVH=y\n"
    assert not (tmp_path / "System.map").exists()  # a few words are no symbols


def test_packages_that_do_not_hold_one_whole_kernel_are_said(tmp_path: Path) -> None:
    lay_out(tmp_path, 0)
    (tmp_path / "tree" / PLACES["config"][0].format(RELEASE)).unlink()
    with pytest.raises(BadKernel, match="hold no config"):
        _finish(tmp_path, {})
    modules_in(tmp_path / "tree/usr/lib/modules/6.2")
    with pytest.raises(BadKernel, match=r"modules of 2 kernels \['6\.1\.0-50-amd64', '6\.2'\]"):
        _finish(tmp_path, {})
