"""forkable.so: built once by the host's compiler, and not at all without one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import images
from images.forkable import COMPILERS, compiler

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler on this host")


@pytest.fixture
def builder(tmp_path: Path) -> images.Builder:
    return images.Builder(store=images.Store(tmp_path / "cache"))


def fake_compiler(folder: Path, text: str) -> None:
    folder.mkdir()
    for name in COMPILERS:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


@needs_compiler
def test_it_is_built_once(builder: images.Builder) -> None:
    first = images.ensure_forkable(builder)
    made = (first.stat().st_ino, first.stat().st_mtime_ns)
    assert first.read_bytes()[:4] == b"\x7fELF"
    again = images.ensure_forkable(builder).stat()
    assert (again.st_ino, again.st_mtime_ns) == made


@needs_compiler
def test_what_is_in_the_cache_needs_no_compiler(builder: images.Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    built = images.ensure_forkable(builder)
    monkeypatch.setattr("images.forkable.compiler", lambda: None)
    assert images.ensure_forkable(builder) == built


def test_without_a_compiler_it_says_so(
    builder: images.Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(images.ImageError, match="no C compiler") as told:
        images.ensure_forkable(builder)
    assert "cc" in told.value.hint
    assert not list((tmp_path / "cache/store").glob("*"))


@pytest.mark.parametrize(
    ("text", "said"), [("echo 'no such header' >&2; exit 1", "no such header"), ("exit 0", "cannot build")]
)
def test_a_compiler_that_fails_is_quoted(
    builder: images.Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    fake_compiler(tmp_path / "bin", text)
    setpriv = shutil.which("setpriv")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(setpriv).parent if setpriv else '/bin'}")
    with pytest.raises(images.ImageError, match=said):
        images.ensure_forkable(builder)
    assert not list((tmp_path / "cache/store").glob("*"))
