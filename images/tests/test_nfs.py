"""NFS as the bench has it: what the server is told, and a kernel whose modules the mirror no longer has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import images
from images.nfs import NfsServer, ensure_nfs_modules


def test_the_server_serves_one_folder_and_writes_nowhere_else(tmp_path: Path) -> None:
    argv = NfsServer(Path("/tree"), "4.3").argv(tmp_path)
    assert argv[-7:] == ("-F", "-f", f"{tmp_path}/ganesha.conf", "-L", f"{tmp_path}/log", "-p", f"{tmp_path}/pid")
    config = (tmp_path / "ganesha.conf").read_text()
    assert f"Path = {tmp_path}/export; Pseudo = /dump" in config
    assert f"RecoveryRoot = {tmp_path}/recovery" in config
    assert (config.count("{"), config.count("Protocols = 4;")) == (config.count("}"), 2)


def test_modules_of_another_release_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tree/usr/lib/modules/6.1.0-51-amd64/kernel/fs/nfs").mkdir(parents=True)
    builder = cast(images.Builder, SimpleNamespace(fetched=lambda _recipe, _finish: tmp_path))
    kernel = cast(images.Kernel, SimpleNamespace(name="debian-6.1", release="6.1.0-50-amd64"))
    with pytest.raises(images.ImageError, match=r"\['6.1.0-51-amd64'\], the kernel is 6.1.0-50-amd64"):
        ensure_nfs_modules(kernel, builder)
