"""Unpacking real .deb files: merged /usr, relative links, nothing outside the tree."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from images.debs import merged, relative_link, unpack
from images.errors import FetchFailed
from images.tests.repository import make_deb


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("./bin/ip", "usr/bin/ip"),
        ("./lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("./lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("./usr/bin/ip", "usr/bin/ip"),
        ("./library/x", "library/x"),
        ("./etc//passwd", "etc/passwd"),
        ("../../etc/passwd", "etc/passwd"),
        ("/bin/../../../x", "x"),
    ],
)
def test_paths_are_merged_and_stay_inside(path: str, expected: str) -> None:
    assert merged(path) == expected


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ("./lib/x/libz.so.1", "libz.so.1.2", "libz.so.1.2"),
        ("./lib64/ld.so.2", "/lib/x/ld.so.2", "../lib/x/ld.so.2"),
        ("./sbin/ip", "/bin/ip", "../bin/ip"),
        ("./usr/lib/x/liba.so", "/lib/x/liba.so.1", "liba.so.1"),
        ("./lib/x/liba.so", "../../usr/lib/y/liba.so.1", "../y/liba.so.1"),
        ("./etc/mtab", "../proc/mounts", "../proc/mounts"),
        ("./bin/out", "/etc/alternatives/out", "../../etc/alternatives/out"),
        ("./x", "../../../../etc/shadow", "etc/shadow"),
    ],
)
def test_links_lead_where_they_led_but_are_relative(path: str, target: str, expected: str) -> None:
    assert relative_link(path, target) == expected


def test_a_package_is_unpacked(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, "toy", {"bin/tool": b"#!/bin/sh\n", "usr/share/doc/toy/README": b"words", "etc/toy": b"1"})
    unpack([deb], tmp_path / "tree", lambda path: not path.startswith("usr/share/doc/"))
    assert (tmp_path / "tree/usr/bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "tree/bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "tree/etc/toy").is_file()
    assert not (tmp_path / "tree/usr/share/doc/toy").exists()


def hostile_deb(folder: Path) -> Path:
    """A .deb, put together by hand, whose members try to leave the tree."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, link in (("../../outside", ""), ("/absolute", ""), ("etc/link", "/"), ("setuid", "")):
            member = tarfile.TarInfo(name)
            member.mode = 0o4755
            member.size = 0 if link else 4
            member.type, member.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
            tar.addfile(member, io.BytesIO(b"evil"))
    deb = make_deb(folder, "hostile", {})
    parts = folder / "parts"
    parts.mkdir()
    subprocess.run(["dpkg-deb", "-e", str(deb), str(parts / "DEBIAN")], check=True)
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as tar:
        tar.add(parts / "DEBIAN/control", "./control")
    members = (("debian-binary", b"2.0\n"), ("control.tar", control.getvalue()), ("data.tar", data.getvalue()))
    with open(deb, "wb") as out:
        out.write(b"!<arch>\n")
        for name, content in members:
            out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            out.write(content + b"\n" * (len(content) % 2))
    return deb


def test_nothing_is_written_outside_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "a/b/tree"
    unpack([hostile_deb(tmp_path)], tree, lambda _: True)
    assert (tree / "outside").read_bytes() == b"evil"
    assert (tree / "absolute").read_bytes() == b"evil"
    assert os.readlink(tree / "etc/link") == ".."
    assert stat.S_IMODE((tree / "setuid").stat().st_mode) == 0o755
    assert not (tmp_path / "outside").exists()
    assert not Path("/absolute").exists()


@pytest.mark.parametrize("content", [b"", b"not a package" * 100], ids=["empty", "text"])
def test_what_is_no_package_is_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.deb").write_bytes(content)
    with pytest.raises(FetchFailed, match=r"bad\.deb cannot be unpacked"):
        unpack([tmp_path / "bad.deb"], tmp_path / "tree", lambda _: True)


def test_a_package_cut_off_is_said(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, "toy", {"usr/big": bytes(200_000)})
    deb.write_bytes(deb.read_bytes()[:100_000])
    with pytest.raises(FetchFailed, match="cannot be unpacked"):
        unpack([deb], tmp_path / "tree", lambda _: True)
