"""Choosing kernel modules: names, packings, dependencies."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from images.elf import Elf, modinfo
from images.errors import BadKernel
from images.modules import built_in, index, release_for, select


def module(**info: str) -> bytes:
    """A relocatable ELF file with a .modinfo section: header, sections' content, section headers."""
    text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in info.items())
    names = b"\0.modinfo\0.shstrtab\0"
    at = 64 + len(text) + len(names)
    header = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 62, 1, 0, 0, at, 0, 64, 0, 0, 64, 3, 2)
    sections = ((0, 0, 0), (1, 64, len(text)), (10, 64 + len(text), len(names)))
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, start, size, 0, 0, 1, 0) for name, start, size in sections
    )
    return header + text + names + table


VERMAGIC = "6.1.0-50-amd64 SMP preempt mod_unload modversions "
TREE = {
    "kernel/drivers/net/e100.ko": module(depends="mii", vermagic=VERMAGIC),
    "kernel/drivers/net/mii.ko.xz": lzma.compress(module(depends="")),
    "kernel/drivers/net/ne2k-pci.ko.gz": gzip.compress(module(depends="8390")),
    "kernel/drivers/net/8390.ko": module(depends=""),
    "kernel/drivers/net/tg3.ko.zst": b"zst:" + module(depends="libphy,ptp", softdep="pre: crc-soft post: absent"),
    "kernel/drivers/net/libphy.ko": module(depends=""),
    "kernel/lib/crc-soft.ko": module(depends="loop-a"),
    "kernel/lib/loop-a.ko": module(depends="loop-b"),
    "kernel/lib/loop-b.ko": module(depends="loop-a"),
    "kernel/lib/unused.ko": module(depends=""),
    "kernel/lib/notes.ko.txt": b"no module",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path, data in TREE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    (tmp_path / "modules.builtin").write_text("kernel/net/packet/af_packet.ko\nkernel/drivers/ptp/ptp.ko\n")
    return tmp_path


def unzstd(data: bytes) -> bytes:
    return data.removeprefix(b"zst:")


def test_names_mean_the_same_with_dash_and_underscore(tree: Path) -> None:
    assert set(index(tree)) == {
        "e100",
        "mii",
        "ne2k_pci",
        "8390",
        "tg3",
        "libphy",
        "crc_soft",
        "loop_a",
        "loop_b",
        "unused",
    }
    assert built_in(tree) == {"af_packet", "ptp"}


@pytest.mark.parametrize(
    ("wished", "files", "inside", "missing"),
    [
        (["e100"], {"net/e100.ko", "net/mii.ko"}, (), ()),
        (["ne2k_pci"], {"net/ne2k-pci.ko", "net/8390.ko"}, (), ()),
        (["loop-a"], {"lib/loop-a.ko", "lib/loop-b.ko"}, (), ()),
        (["tg3"], {"net/tg3.ko", "net/libphy.ko", "lib/crc-soft.ko", "lib/loop-a.ko", "lib/loop-b.ko"}, (), ()),
        (["af_packet", "nosuch"], set(), ("af_packet",), ("nosuch",)),
        ([], set(), (), ()),
    ],
    ids=["depends", "gzip and dash", "circle", "zstd and soft", "built in and missing", "none"],
)
def test_what_is_chosen(
    wished: list[str], files: set[str], inside: tuple[str, ...], missing: tuple[str, ...], tree: Path
) -> None:
    chosen = select(tree, wished, unzstd)
    assert {path.removeprefix("kernel/").removeprefix("drivers/") for path in chosen.files} == files
    assert (chosen.built_in, chosen.missing) == (inside, missing)
    assert all(data.startswith(b"\x7fELF") for data in chosen.files.values())


def test_a_kernel_without_a_module_folder_has_none() -> None:
    assert select(None, ["e100"], unzstd).missing == ("e100",)


def test_the_release_a_module_is_for(tree: Path) -> None:
    assert release_for(tree / "kernel/drivers/net/e100.ko", unzstd) == "6.1.0-50-amd64"


@pytest.mark.parametrize(
    ("name", "content"),
    [("mii.ko.xz", b"\xfd7zXZ\0 cut"), ("mii.ko.gz", b"\x1f\x8b cut"), ("mii.ko", b"text"), ("mii.ko", module()[:70])],
    ids=["xz", "gzip", "no elf", "cut off"],
)
def test_a_damaged_module_is_said(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / name).write_bytes(content)
    with pytest.raises(BadKernel, match=f"{name} is damaged"):
        select(tmp_path, ["mii"], unzstd)


def test_a_folder_without_modules_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadKernel, match="holds no kernel modules"):
        select(tmp_path, ["mii"], unzstd)


def test_modinfo_keeps_every_value_of_a_key() -> None:
    data = module(alias="a").replace(b"alias=a\0", b"x=1\0x=2\0")
    assert modinfo(Elf(data))["x"] == ["1", "2"]
