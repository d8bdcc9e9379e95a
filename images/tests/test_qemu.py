"""A QEMU that the user names: programs that are none, and (with images built) one that is."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import images
from images import qemu
from images.errors import BadQemu


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


BAD = {
    "not QEMU": ("echo busybox v1", "must be a qemu-system-x86_64"),
    "fails": ("echo 'libfoo.so: cannot open shared object file' >&2; exit 127", "(?s)ended with 127:.*libfoo"),
    "another machine type": (
        'case $1 in --version) echo "QEMU emulator version 7.2.0";; *) echo "virt  ARM";; esac',
        "(?s)no machine `pc`.*virt  ARM",
    ),
}


@pytest.mark.parametrize(("script", "said"), BAD.values(), ids=BAD)
def test_a_program_that_is_no_qemu_for_this_machine_is_said(script: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadQemu, match=said):
        images.qemu_at(program(tmp_path / "qemu", script))


def test_a_path_that_is_no_program_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    for path in (tmp_path / "absent", tmp_path / "text", tmp_path, "no-such-command"):
        with pytest.raises(BadQemu, match="is no program that can be run"):
            images.qemu_at(path)


def test_a_file_of_another_machine_is_said(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_bytes(b"\x7fELF\x01\x01\x01" + bytes(100))
    (tmp_path / "qemu").chmod(0o755)
    with pytest.raises(BadQemu, match=r"cannot be started: Exec format error|ended with"):
        images.qemu_at(tmp_path / "qemu")


def test_a_program_that_never_answers_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "PROBE_SECONDS", 0.2)
    with pytest.raises(BadQemu, match="gave no answer"):
        images.qemu_at(program(tmp_path / "qemu", "exec sleep 60"))


@pytest.mark.guest
def test_a_real_one(tmp_path: Path) -> None:
    built = images.ensure_qemu(images.Builder())
    path = program(tmp_path / "qemu", f'exec {shlex.join(built.argv)} "$@"')
    program(tmp_path / "qemu-img", f'exec {shlex.join(built.img_argv)} "$@"')
    own = images.qemu_at(path)
    assert own.argv == (str(path),)
    assert own.img_argv == (str(tmp_path / "qemu-img"),)
    assert (own.version, own.vfio_user) == (built.version, True)
    assert own.bios_dir.is_dir()
    path.touch()
    assert images.qemu_at(path).digest != own.digest
