"""npcrash.ko: what is compiled belongs to one kernel, and a kernel without headers says so."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

import images
from images.crash_module import SOURCES, source_digest
from images.recipes import KERNELS, headers

RELEASE = "6.1.0-50-amd64"


def own_kernel(modules: Path | None) -> images.Kernel:
    return images.Kernel(
        name="bzImage",
        release=RELEASE,
        vmlinux=Path("vmlinux"),
        bzimage=Path("bzImage"),
        modules=modules,
        config=None,
        system_map=None,
        digest="0" * 64,
        packages={},
    )


@pytest.mark.parametrize("name", KERNELS)
def test_headers_are_those_of_exactly_this_kernel(name: str) -> None:
    recipe = headers(name, RELEASE, source_digest()[:12])
    assert recipe.packages[0] == f"linux-headers-{RELEASE}"
    assert recipe.suites == KERNELS[name].suites
    assert recipe.key != headers(name, RELEASE, "other sources").key


def test_sources_are_there_and_counted() -> None:
    assert {path.name for path in SOURCES.iterdir()} == {"Kbuild", "npcrash.c"}
    assert len(source_digest()) == 64
    assert 'MODULE_LICENSE("Dual MIT/GPL")' in (SOURCES / "npcrash.c").read_text()


@pytest.mark.parametrize("with_modules", [False, True], ids=["no modules", "modules without a build tree"])
def test_an_own_kernel_without_its_tree_says_what_to_keep(tmp_path: Path, with_modules: bool) -> None:
    builder = images.Builder(store=images.Store(tmp_path / "cache"))
    with pytest.raises(images.BadKernel, match="no headers of kernel") as told:
        images.ensure_crash_module(own_kernel(tmp_path if with_modules else None), builder)
    assert "make modules_install" in told.value.hint
    assert not (tmp_path / "cache").exists()


def test_a_build_that_fails_shows_what_make_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "gcc", "ld"):
        (tools / name).write_text("#!/bin/sh\necho 'no rule to make target' >&2\nexit 2\n")
        (tools / name).chmod(0o755)
    build = tmp_path / "modules/build"
    build.mkdir(parents=True)
    (build / "Makefile").touch()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr("images.crash_module.PATH", f"{tools}:/usr/bin:/bin")
    builder = images.Builder(store=images.Store(tmp_path / "cache"))
    with pytest.raises(images.ImageError, match="no rule to make target"):
        images.ensure_crash_module(own_kernel(build.parent), builder)
    assert list((tmp_path / "cache/store").glob("*")) == []


@pytest.mark.guest
def test_the_module_is_for_its_kernel_and_is_built_once() -> None:
    builder = images.Builder()
    kernel = images.ensure_kernel(images.DEFAULT_KERNEL, builder)
    module = images.ensure_crash_module(kernel, builder)
    assert f"vermagic={kernel.release} ".encode() in module.path.read_bytes()
    offline = dataclasses.replace(builder, mirror="http://mirror.invalid/debian")
    assert images.ensure_crash_module(kernel, offline) == module
    listed = subprocess.run(["ls", module.path.parent], capture_output=True, text=True, check=True).stdout.split()
    assert listed == ["manifest.json", "npcrash.ko"], "headers and compiler are gone"
